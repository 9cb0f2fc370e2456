import type { ImageManifest } from "./manifest.js";

/** What an image was made from, for a person: "trixie, trixie-updates". */
export function describeOrigin({ source }: ImageManifest): string {
	return source.suites.map((suite) => suite.name).join(", ") || source.kind;
}

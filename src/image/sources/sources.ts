/** All kinds of sources, by the word before the colon in a recipe's `from`. */

import { SandboxError } from "../../errors.js";
import type { Source } from "../source.js";
import { debianSource } from "./debian/debian.js";
import { imageSource } from "./image.js";
import { ociSource } from "./oci/oci.js";
import { tarSource } from "./tar.js";
import { v86Source } from "./v86.js";

/** Locks are JSON that the source's own schema has checked, so that the kinds can stand in one list. */
const SOURCES = [debianSource, ociSource, tarSource, v86Source, imageSource] as unknown as readonly Source<unknown>[];

export interface ParsedFrom {
	readonly source: Source<unknown>;
	/** What follows the colon. */
	readonly reference: string;
}

/** "debian:trixie" → Debian's source and "trixie". */
export function parseFrom(from: string): ParsedFrom {
	const colon = from.indexOf(":");
	const scheme = from.slice(0, colon);
	const source = SOURCES.find((known) => known.scheme === scheme);
	if (source === undefined || colon < 1) {
		throw new SandboxError(
			"invalid-argument",
			`"from" is ${JSON.stringify(from.slice(0, 200))}, which is no kind of source`,
			`it must start with ${SOURCES.map((known) => `${known.scheme}:`).join(", ")}`,
		);
	}
	return { source, reference: from.slice(colon + 1) };
}

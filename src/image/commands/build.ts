/** `sandbox86 image build`. */

import { buildImage } from "../build.js";
import type { ImageCommandContext } from "../commands.js";
import { obtainImage } from "../obtain.js";
import { createProgressRenderer, formatBytes, formatDuration } from "../progress.js";
import { checkMirrorUrl } from "../sources/debian/mirror.js";
import { listImages } from "../store.js";
import { parseArguments } from "./arguments.js";

const BUILD_USAGE = "image build NAME|RECIPE.json [--mirror URL] [--update] [--no-cache]";

export async function buildCommand(args: readonly string[], context: ImageCommandContext): Promise<number> {
	const { values, positionals } = parseArguments(args, BUILD_USAGE, 1, {
		mirror: { type: "string" },
		update: { type: "boolean" },
		"no-cache": { type: "boolean" },
	});
	const mirror = values.mirror ?? context.mirror;
	const renderer = createProgressRenderer(context.stderr);
	const started = performance.now();
	let name: string;
	try {
		const which = positionals[0] ?? "";
		const isThere = (await listImages(context.home)).some((image) => image.name === which && image.state !== "missing");
		// An image that is there is to be built anew; one that an installed package has needs no building.
		const make = isThere || values["no-cache"] === true ? buildImage : obtainImage;
		({ name } = await make(context.home, which, {
			log: context.log,
			onProgress: (progress) => renderer.show(progress),
			onLine: (line) => renderer.print(line),
			update: values.update === true,
			fresh: values["no-cache"] === true,
			...(mirror === undefined ? {} : { mirror: checkMirrorUrl(mirror) }),
			...(context.memoryMiB === undefined ? {} : { memoryMiB: context.memoryMiB }),
			...(context.openNetwork === undefined ? {} : { openNetwork: context.openNetwork }),
			...(context.signal === undefined ? {} : { signal: context.signal }),
		}));
	} finally {
		renderer.end();
	}
	const built = (await listImages(context.home)).find((image) => image.name === name);
	const manifest = built?.manifest;
	const sizes =
		manifest === undefined
			? ""
			: `, ${manifest.packages.length} packages, ${formatBytes(manifest.fileBytes)}, ` +
				`boot snapshot ${formatBytes(built?.bootSnapshotBytes ?? 0)}`;
	context.stdout.write(`image ${name} is ready after ${formatDuration(performance.now() - started)}${sizes}\n`);
	context.stdout.write(`use it with: sandbox86 --image ${name}\n`);
	return 0;
}

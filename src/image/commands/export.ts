import type { ImageCommandContext } from "../commands.js";
import { exportImage } from "../export.js";
import { createProgressRenderer, formatBytes } from "../progress.js";
import { parseArguments } from "./arguments.js";

/** `image export NAME FILE [--force]`. */
export async function exportCommand(args: readonly string[], context: ImageCommandContext): Promise<number> {
	const { values, positionals } = parseArguments(args, "image export NAME FILE [--force]", 2, {
		force: { type: "boolean" },
	});
	const [name = "", file = ""] = positionals;
	const renderer = createProgressRenderer(context.stderr);
	try {
		const { path, bytes, sha256, header } = await exportImage(context.home, name, file, {
			log: context.log,
			force: values.force === true,
			onProgress: (progress) => renderer.show(progress),
			...(context.signal === undefined ? {} : { signal: context.signal }),
		});
		renderer.end();
		const boot = header.bootSnapshots.length;
		context.stdout.write(
			`image ${name} is in ${path}: ${formatBytes(bytes)}, ${header.contents.files} files, ` +
				`${boot} boot snapshot${boot === 1 ? "" : "s"}, SHA-256 ${sha256}\n`,
		);
		return 0;
	} finally {
		renderer.end();
	}
}

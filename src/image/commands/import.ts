import type { ImageCommandContext } from "../commands.js";
import { type ImportedImage, importImage } from "../import.js";
import { createProgressRenderer, formatBytes } from "../progress.js";
import { parseArguments } from "./arguments.js";

/** `image import FILE [--name NAME] [--force]`. */
export async function importCommand(args: readonly string[], context: ImageCommandContext): Promise<number> {
	const { values, positionals } = parseArguments(args, "image import FILE [--name NAME] [--force]", 1, {
		name: { type: "string" },
		force: { type: "boolean" },
	});
	const renderer = createProgressRenderer(context.stderr);
	try {
		const imported = await importImage(context.home, positionals[0] ?? "", {
			log: context.log,
			force: values.force === true,
			onProgress: (progress) => renderer.show(progress),
			...(values.name === undefined ? {} : { name: values.name }),
			...(context.signal === undefined ? {} : { signal: context.signal }),
		});
		renderer.end();
		context.stdout.write(describeImported(imported));
		return 0;
	} finally {
		renderer.end();
	}
}

function describeImported({ name, outcome, files, bytes, bootSnapshots, bootSnapshotsLeftOut }: ImportedImage): string {
	if (outcome === "present") return `image ${name} is here already, with the same tree; --force writes it again\n`;
	const count = bootSnapshots.length;
	const boot = `${count} boot snapshot${count === 1 ? "" : "s"}`;
	const lines = [`image ${name} is ready: ${files} files, ${formatBytes(bytes)}, ${boot}`];
	if (bootSnapshotsLeftOut !== undefined) {
		lines.push(`its boot snapshots are left out and made again at the first start: ${bootSnapshotsLeftOut}`);
	}
	if (outcome === "replaced") {
		lines.push("it replaced another image: snapshots that were taken of that one's machine fit no more");
	}
	return `${lines.join("\n")}\n`;
}

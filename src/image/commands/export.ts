import { SandboxError } from "../../errors.js";
import type { ImageCommandContext } from "../commands.js";
import { type ExportedImage, type ExportOptions, exportImage } from "../export.js";
import { writeImagePackage } from "../image-package.js";
import { createProgressRenderer, formatBytes } from "../progress.js";
import { parseArguments } from "./arguments.js";

const TO_FILE = "image export NAME FILE [--force]";
const TO_PACKAGE = "image export NAME --npm FOLDER [--version V] [--scope @ME] [--license L] [--force]";

/** `image export NAME FILE` and `image export NAME --npm FOLDER`. */
export async function exportCommand(args: readonly string[], context: ImageCommandContext): Promise<number> {
	const isPackage = args.some((arg) => arg === "--npm" || arg.startsWith("--npm="));
	const { values, positionals } = parseArguments(args, isPackage ? TO_PACKAGE : TO_FILE, isPackage ? 1 : 2, {
		force: { type: "boolean" },
		npm: { type: "string" },
		version: { type: "string" },
		scope: { type: "string" },
		license: { type: "string" },
	});
	const [name = "", file = ""] = positionals;
	const { npm, version, scope, license } = values;
	if (npm === undefined && (version ?? scope ?? license) !== undefined) {
		throw new SandboxError(
			"invalid-argument",
			"only a package has a version, a scope and a license",
			`usage: sandbox86 ${TO_PACKAGE}`,
		);
	}
	const renderer = createProgressRenderer(context.stderr);
	const options: ExportOptions = {
		log: context.log,
		force: values.force === true,
		onProgress: (progress) => renderer.show(progress),
		...(context.signal === undefined ? {} : { signal: context.signal }),
	};
	try {
		if (npm === undefined) {
			const exported = await exportImage(context.home, name, file, options);
			renderer.end();
			context.stdout.write(`image ${name} is in ${describe(exported)}\n`);
			return 0;
		}
		const exported = await writeImagePackage(context.home, name, npm, {
			...options,
			...(version === undefined ? {} : { version }),
			...(scope === undefined ? {} : { scope }),
			...(license === undefined ? {} : { license }),
		});
		renderer.end();
		context.stdout.write(
			`image ${name} is the package ${exported.packageName} ${exported.version} in ${describe(exported)}\n` +
				`npm pack ${npm} makes the one file that others install\n`,
		);
		return 0;
	} finally {
		renderer.end();
	}
}

function describe({ path, bytes, sha256, header }: ExportedImage): string {
	const boot = header.bootSnapshots.length;
	return (
		`${path}: ${formatBytes(bytes)}, ${header.contents.files} files, ` +
		`${boot} boot snapshot${boot === 1 ? "" : "s"}, SHA-256 ${sha256}`
	);
}

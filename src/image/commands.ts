/** `sandbox86 image …`. */

import { SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import type { BuildNetwork } from "./build.js";
import { parseArguments } from "./commands/arguments.js";
import { diffCommand } from "./commands/diff.js";
import { exportCommand } from "./commands/export.js";
import { importCommand } from "./commands/import.js";
import { inspectCommand } from "./commands/inspect.js";
import { listCommand } from "./commands/list.js";
import { formatBytes } from "./progress.js";
import { removeImage, verifyImage } from "./store.js";

export interface TextOutput {
	readonly isTTY?: boolean;
	write(text: string): unknown;
}

export interface ImageCommandContext {
	readonly home: string;
	readonly log: Log;
	readonly stdout: TextOutput;
	readonly stderr: TextOutput;
	readonly mirror?: string | undefined;
	readonly memoryMiB?: number | undefined;
	/** The network of recipes' packages and commands. */
	readonly openNetwork?: (() => Promise<BuildNetwork>) | undefined;
	readonly signal?: AbortSignal | undefined;
}

export const IMAGE_USAGE = `usage: sandbox86 image build NAME|RECIPE.json        build an image, or build it anew
           [--mirror URL] [--update] [--no-cache]
       sandbox86 image list                         show all images, their sizes and what is theirs alone
       sandbox86 image inspect NAME [--json]        tell all that is known about an image
       sandbox86 image diff A B                     compare the trees of two images
       sandbox86 image verify NAME                  check every file of an image
       sandbox86 image rm NAME                      remove an image
       sandbox86 image export NAME FILE             write an image into one file, for another computer
       sandbox86 image export NAME --npm FOLDER     write it as an npm package [--version V] [--scope @ME] [--license L]
       sandbox86 image import FILE [--name NAME]    take over the image of such a file
export and import replace what is there only with --force.
`;

/**
 * Runs one command; returns the exit code of the process: 0 done, 1 where `verify` found damage or `diff` a difference. Usage and
 * other errors are thrown.
 */
export async function runImageCommand(args: readonly string[], context: ImageCommandContext): Promise<number> {
	if (args.length === 0 || args[0] === "help" || args.includes("--help") || args.includes("-h")) {
		context.stdout.write(IMAGE_USAGE);
		return args.length === 0 ? 2 : 0;
	}
	const [verb, ...rest] = args;
	switch (verb) {
		case "build":
			return await (await import("./commands/build.js")).buildCommand(rest, context);
		case "list":
			return await listCommand(rest, context);
		case "inspect":
			return await inspectCommand(rest, context);
		case "diff":
			return await diffCommand(rest, context);
		case "verify":
			return await verifyCommand(nameOf(rest, "image verify NAME"), context);
		case "rm":
			return await removeCommand(nameOf(rest, "image rm NAME"), context);
		case "export":
			return await exportCommand(rest, context);
		case "import":
			return await importCommand(rest, context);
		default:
			throw usage(`there is no command image ${verb}`);
	}
}

async function verifyCommand(name: string, { home, stdout }: ImageCommandContext): Promise<number> {
	const problems = await verifyImage(home, name);
	for (const { file, guestPath, kind, detail } of problems) {
		stdout.write(`${kind}: ${guestPath ?? "the image itself"} (${file}): ${detail}\n`);
	}
	if (problems.length === 0) {
		stdout.write(`image ${name}: every file is as it was built\n`);
		return 0;
	}
	stdout.write(`image ${name}: ${problems.length} damaged; build it again with: sandbox86 image build ${name}\n`);
	return 1;
}

async function removeCommand(name: string, { home, stdout }: ImageCommandContext): Promise<number> {
	const { files, bytes } = await removeImage(home, name);
	stdout.write(`image ${name} is removed: ${files} files, ${formatBytes(bytes)}\n`);
	return 0;
}

function nameOf(args: readonly string[], form: string): string {
	return parseArguments(args, form, 1, {}).positionals[0] ?? "";
}

function usage(problem: string): SandboxError {
	return new SandboxError("invalid-argument", problem, IMAGE_USAGE.trim().replace(/\s*\n\s*/g, "; "));
}

import { escapeControls } from "../../log.js";
import { formatTable } from "../../text-table.js";
import type { ImageCommandContext } from "../commands.js";
import { type ImageDetails, inspectImage } from "../inspect.js";
import { formatBytes } from "../progress.js";
import { parseArguments } from "./arguments.js";

/** `image inspect NAME [--json]`. */
export async function inspectCommand(
	args: readonly string[],
	{ home, stdout }: Pick<ImageCommandContext, "home" | "stdout">,
): Promise<number> {
	const { values, positionals } = parseArguments(args, "image inspect NAME [--json]", 1, { json: { type: "boolean" } });
	const details = await inspectImage(home, positionals[0] ?? "");
	stdout.write(values.json === true ? `${JSON.stringify(details, undefined, "\t")}\n` : describe(details));
	return 0;
}

function describe(details: ImageDetails): string {
	const { sharedWith, bootSnapshots, biggestFolders, warmCommands } = details;
	const rows = [
		["name", details.name],
		["digest", details.digest],
		["from", details.from ?? "part of the package"],
		...(details.created === undefined ? [] : [["created", details.created]]),
		...(details.builtBy === undefined ? [] : [["built by", `sandbox86 ${details.builtBy}`]]),
		["packages", String(details.packages.length)],
		["entries", `${details.entries}, with ${details.files} different contents`],
		["size", formatBytes(details.bytes)],
		["own", `${formatBytes(details.ownBytes)} that no other image has`],
		...sharedWith.map(({ name, bytes }) => ["shared", `${formatBytes(bytes)} with ${name}`]),
		...bootSnapshots.map(({ memoryMiB, bytes, fits }) => [
			"boot snapshot",
			`${memoryMiB} MiB of memory, ${formatBytes(bytes)}${fits ? "" : ", of another build"}`,
		]),
		...warmCommands.map((command) => ["warmed with", command]),
		...biggestFolders.map(({ path, bytes }) => ["folder", `${formatBytes(bytes).padStart(6)}  ${path}`]),
	];
	return formatTable(rows.map((row) => row.map(escapeControls)));
}

import { escapeControls } from "../../log.js";
import type { ImageCommandContext } from "../commands.js";
import { diffImages, type PathChange } from "../diff.js";
import { formatBytes } from "../progress.js";
import { parseArguments } from "./arguments.js";

/** `image diff A B`: exit code 0 where the trees are the same, 1 where they differ. */
export async function diffCommand(
	args: readonly string[],
	{ home, stdout }: Pick<ImageCommandContext, "home" | "stdout">,
): Promise<number> {
	const { positionals } = parseArguments(args, "image diff A B", 2, {});
	const [before = "", after = ""] = positionals;
	const { changes, timesOnly } = await diffImages(home, before, after);
	if (changes.length === 0 && timesOnly === 0) {
		stdout.write(`${before} and ${after} have the same tree\n`);
		return 0;
	}
	const count = (kind: PathChange["change"]) => changes.filter(({ change }) => change === kind).length;
	stdout.write(changes.map((change) => `${escapeControls(line(change))}\n`).join(""));
	stdout.write(
		`${count("added")} added, ${count("removed")} removed, ${count("changed")} changed` +
			`${timesOnly === 0 ? "" : `, ${timesOnly} with another time only`}\n`,
	);
	return 1;
}

function line(change: PathChange): string {
	if (change.change === "changed") return `~ ${change.path}  ${change.what.join(", ")}`;
	const size = change.kind === "file" ? ` ${formatBytes(change.bytes)}` : "";
	return `${change.change === "added" ? "+" : "-"} ${change.path}  ${change.kind}${size}`;
}

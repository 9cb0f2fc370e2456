import { escapeControls } from "../../log.js";
import { formatTable } from "../../text-table.js";
import type { ImageCommandContext } from "../commands.js";
import { formatBytes } from "../progress.js";
import { listImages } from "../store.js";
import { imageUsage } from "../usage.js";
import { parseArguments } from "./arguments.js";

/** `image list`. OWN is what removing the image frees, beside its boot snapshots. */
export async function listCommand(
	args: readonly string[],
	{ home, stdout }: Pick<ImageCommandContext, "home" | "stdout">,
): Promise<number> {
	parseArguments(args, "image list", 0, {});
	const usage = await imageUsage(home);
	const rows = [["NAME", "STATE", "SIZE", "OWN", "BOOT SNAPSHOTS", "CREATED", "FROM"]];
	for (const { name, state, manifest, problem, bootSnapshotBytes } of await listImages(home)) {
		const used = usage.get(name);
		rows.push([
			name,
			state,
			used === undefined ? "-" : formatBytes(used.bytes),
			used === undefined ? "-" : formatBytes(used.ownBytes),
			bootSnapshotBytes === 0 ? "-" : formatBytes(bootSnapshotBytes),
			escapeControls(manifest?.created.slice(0, 16).replace("T", " ") ?? "-"),
			escapeControls(problem ?? (manifest === undefined ? "-" : manifest.recipe.from)),
		]);
	}
	stdout.write(formatTable(rows));
	return 0;
}

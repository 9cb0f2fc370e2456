import { z } from "zod";
import { boundedText, defineTool } from "./tool.js";

export const restoreTool = defineTool({
	name: "restore",
	title: "Restore a snapshot",
	description:
		"Puts the machine back to a snapshot in about a second: memory, files and processes as they were; everything since is lost. " +
		"Works after a restart of the server, too.",
	input: z.strictObject({ snapshot: boundedText("snapshot", 100).describe("id or name") }),
	output: z.object({ snapshot: z.string(), duration_ms: z.int().min(0) }),
	annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true, openWorldHint: false },
	async run({ snapshot }, { machine, snapshots }) {
		const startedAt = performance.now();
		// All of it is read and checked here, before the machine is touched.
		const opened = await snapshots.open(snapshot);
		try {
			const guest = await machine();
			await guest.restore(opened);
		} finally {
			await opened.close();
		}
		const durationMs = Math.round(performance.now() - startedAt);
		const { id, name, created, description } = opened.header;
		const label = name === undefined ? id : `"${name}" (${id})`;
		return {
			structured: { snapshot: id, duration_ms: durationMs },
			text: `Restored ${label} of ${created} in ${durationMs} ms.${description === undefined ? "" : ` ${description}`}`,
		};
	},
});

import { z } from "zod";
import { SNAPSHOT_NAME } from "../vm/snapshot/format.js";
import { limits as snapshotLimits } from "../vm/snapshot/limits.js";
import { defineTool } from "./tool.js";

export const snapshotTool = defineTool({
	name: "snapshot",
	title: "Save the machine",
	description:
		"Saves the whole live machine, memory, files and running processes, to disk in about a second; the machine goes on. " +
		"Take one before anything risky.",
	input: z.strictObject({
		name: z
			.string()
			.regex(SNAPSHOT_NAME, `1 to ${snapshotLimits.maxNameChars} of A-Z a-z 0-9 . _ - are needed`)
			.optional()
			.describe("a name not yet taken"),
		description: z.string().max(snapshotLimits.maxDescriptionChars).optional(),
	}),
	output: z.object({
		snapshot: z.string().describe("id for restore"),
		size_bytes: z.int().min(0),
		duration_ms: z.int().min(0),
	}),
	annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false },
	async run({ name, description }, { machine, snapshots }) {
		if (name !== undefined) await snapshots.checkNameIsFree(name);
		const guest = await machine();
		await guest.start();
		const startedAt = performance.now();
		const label = {
			...(name === undefined ? {} : { name }),
			...(description === undefined ? {} : { description }),
		};
		const { header, sizeBytes } = await guest.save((saved) => snapshots.save(saved, label));
		const durationMs = Math.round(performance.now() - startedAt);
		return {
			structured: { snapshot: header.id, size_bytes: sizeBytes, duration_ms: durationMs },
			text: `Saved as ${header.id}${name === undefined ? "" : ` ("${name}")`}: ${(sizeBytes / 2 ** 20).toFixed(1)} MiB in ${durationMs} ms. Go back to it with restore.`,
		};
	},
});

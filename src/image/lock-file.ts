/**
 * The exact inputs of an image, by hash: RECIPE.lock.json beside a recipe. A build that finds it takes these inputs and no
 * others, so that the same recipe gives the same image on another day and another computer.
 */

import { z } from "zod";
import { SandboxError } from "../errors.js";
import { readBoundedText, writeFileAtomically } from "./disk.js";
import { limits } from "./limits.js";

export const lockFileSchema = z.strictObject({
	format: z.literal(1),
	/** The recipe's `from`. */
	from: z.string(),
	/** What it meant; checked by the schema of its source. */
	inputs: z.unknown(),
	/** What the recipe's `packages` brought, where the guest's package manager installed them. */
	installed: z
		.array(z.strictObject({ name: z.string().max(256), version: z.string().max(256) }))
		.max(limits.maxPackages)
		.optional(),
});

export type LockFile = z.infer<typeof lockFileSchema>;

/** "…/node.json" → "…/node.lock.json". */
export function lockFilePath(recipePath: string): string {
	return `${recipePath.replace(/\.json$/, "")}.lock.json`;
}

/** Undefined where there is none; SandboxError("corrupt") where it is no lock file. */
export async function readLockFile(path: string): Promise<LockFile | undefined> {
	const corrupt = (what: string) =>
		new SandboxError("corrupt", `${path}: ${what}`, "make a new lock file with --update");
	const text = await readBoundedText(path, limits.maxLockFileBytes, corrupt);
	if (text === undefined) return undefined;
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (error) {
		throw corrupt(`no JSON: ${error instanceof Error ? error.message : String(error)}`);
	}
	const parsed = lockFileSchema.safeParse(value);
	if (!parsed.success) throw corrupt(z.prettifyError(parsed.error));
	return parsed.data;
}

export async function writeLockFile(path: string, lock: LockFile): Promise<void> {
	await writeFileAtomically(path, `${JSON.stringify(lock, undefined, "\t")}\n`);
}

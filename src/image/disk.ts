import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";

/** Writes a whole file so that after a crash the old or the new content is there, never a mixture. Creates parent folders. */
export async function writeFileAtomically(path: string, content: Uint8Array | string): Promise<void> {
	const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
	await onDisk(path, async () => {
		await mkdir(dirname(path), { recursive: true });
		try {
			const handle = await open(temporary, "wx");
			try {
				await handle.writeFile(content);
				await handle.sync();
			} finally {
				await handle.close();
			}
			await rename(temporary, path);
		} catch (error) {
			await rm(temporary, { force: true });
			throw error;
		}
	});
}

/** Runs `work` and turns a full disk or a missing permission into a SandboxError that names `path`. */
export async function onDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
	try {
		return await work();
	} catch (error) {
		throw diskError(path, error);
	}
}

export function diskError(path: string, error: unknown): unknown {
	switch (errnoOf(error)) {
		case "ENOSPC":
		case "EDQUOT":
			return new SandboxError(
				"no-space",
				`the disk is full: ${path} cannot be written`,
				"make room or set SANDBOX86_HOME to a folder on another disk; what is downloaded is kept",
				{ cause: error },
			);
		case "EACCES":
		case "EPERM":
		case "EROFS":
			return new SandboxError(
				"invalid-argument",
				`${path} cannot be written (${errnoOf(error)})`,
				"set SANDBOX86_HOME to a folder that you may write",
				{ cause: error },
			);
		default:
			return error;
	}
}

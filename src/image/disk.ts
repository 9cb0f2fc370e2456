import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
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

/**
 * A whole text file of at most `maxBytes`; undefined where there is none. `refuse` makes the error for one that is longer, can't be
 * read, or is no file.
 */
export async function readBoundedText(
	path: string,
	maxBytes: number,
	refuse: (reason: string) => SandboxError,
): Promise<string | undefined> {
	try {
		const handle = await open(path, "r");
		try {
			const about = await handle.stat();
			if (!about.isFile()) throw refuse("it is no file");
			if (about.size > maxBytes) throw refuse(`it has ${about.size} bytes, at most ${maxBytes} are read`);
			return await handle.readFile("utf8");
		} finally {
			await handle.close();
		}
	} catch (error) {
		if (error instanceof SandboxError) throw error;
		const why = errnoOf(error);
		if (why === "ENOENT" || why === "ENOTDIR") return undefined;
		throw why === undefined ? error : refuse(why);
	}
}

/** Names of what is in a folder; none where there is no such folder. */
export async function namesIn(folder: string): Promise<string[]> {
	try {
		return await readdir(folder);
	} catch (error) {
		if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
		throw error;
	}
}

/** Writes all of the bytes where the file is. */
export async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
	for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at)).bytesWritten;
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

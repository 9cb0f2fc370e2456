/** A file or folder of the host that a recipe names, read once from start to end with its SHA-256. */

import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { errnoOf, SandboxError } from "../errors.js";

export interface FileIdentity {
	/** 64 hex digits. */
	readonly sha256: string;
	readonly sizeBytes: number;
}

const READ_BYTES = 256 * 1024;

export interface ReadOptions {
	readonly signal?: AbortSignal | undefined;
	/** Bytes that were read just now. */
	readonly onBytes?: ((bytes: number) => void) | undefined;
}

/**
 * Gives `consume` the bytes of a file, and then says what all of them were, also where `consume` did not want them to the
 * end. A file that can't be read is SandboxError("not-found").
 */
export async function readIdentified<T>(
	path: string,
	consume: (bytes: AsyncIterable<Uint8Array>) => Promise<T>,
	options: ReadOptions = {},
): Promise<{ readonly result: PromiseSettledResult<T>; readonly identity: FileIdentity }> {
	const handle = await openFile(path);
	try {
		const hash = createHash("sha256");
		let sizeBytes = 0;
		const next = async (): Promise<Uint8Array | undefined> => {
			if (options.signal?.aborted === true) throw new SandboxError("cancelled", "the build was cancelled");
			const buffer = Buffer.allocUnsafe(READ_BYTES);
			const { bytesRead } = await handle.read(buffer, 0, READ_BYTES, sizeBytes);
			if (bytesRead === 0) return undefined;
			sizeBytes += bytesRead;
			const bytes = buffer.subarray(0, bytesRead);
			hash.update(bytes);
			options.onBytes?.(bytesRead);
			return bytes;
		};
		const bytes = async function* () {
			for (let chunk = await next(); chunk !== undefined; chunk = await next()) yield chunk;
		};
		const [result] = await Promise.allSettled([consume(bytes())]);
		while ((await next()) !== undefined) {
			// What is left counts for the hash.
		}
		return { result, identity: { sha256: hash.digest("hex"), sizeBytes } };
	} finally {
		await handle.close();
	}
}

/** Hash and size of a file. */
export async function identify(path: string, options: ReadOptions = {}): Promise<FileIdentity> {
	const { identity } = await readIdentified(path, async () => {}, options);
	return identity;
}

async function openFile(path: string): Promise<FileHandle> {
	try {
		const handle = await open(path, "r");
		if ((await handle.stat()).isFile()) return handle;
		await handle.close();
	} catch (error) {
		const why = errnoOf(error);
		if (why === undefined) throw error;
		throw new SandboxError(
			"not-found",
			`${path} can't be read (${why})`,
			"relative paths start from the recipe's folder",
		);
	}
	throw new SandboxError("not-found", `${path} is no file`, "give the path of a file");
}

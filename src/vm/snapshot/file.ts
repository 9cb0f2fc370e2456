/** One snapshot file: written in a stream, opened only after every byte of it was checked. */

import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { errnoOf, SandboxError } from "../../errors.js";
import type { MachineSaved } from "../machine.js";
import { PREAMBLE_BYTES, parseHeader, parsePreamble, type SnapshotHeader, serializeHeader } from "./format.js";
import { limits } from "./limits.js";

/** What the writer is told; the state's hash comes from the state itself. */
export type NewSnapshotHeader = Omit<SnapshotHeader, "stateSha256">;

/** A snapshot whose bytes were all verified; the file stays open until `close`. */
export interface OpenSnapshot extends MachineSaved {
	readonly header: SnapshotHeader;
	/** Absolute path of the file, and where in it the state starts: what a process of its own needs to read it. */
	readonly path: string;
	readonly stateOffset: number;
	close(): Promise<void>;
}

/**
 * Writes a new file at `path` (never over an existing one) and syncs it to the disk. Memory use is one chunk of the
 * state. Throws SandboxError("no-space") on a full disk and whatever the state's iterator throws; the caller removes
 * the file then.
 */
export async function writeSnapshotFile(
	path: string,
	header: NewSnapshotHeader,
	state: AsyncIterable<Uint8Array>,
): Promise<SnapshotHeader> {
	const reserved = serializeHeader({ ...header, stateSha256: "0".repeat(64) }).length;
	let handle: FileHandle | undefined;
	try {
		handle = await open(path, "wx", 0o600);
		const hash = createHash("sha256");
		let position = reserved;
		for await (const chunk of state) {
			// The disk and the hash work at the same time; the next chunk may reuse this one's memory.
			const written = writeFully(handle, chunk, position);
			hash.update(chunk);
			await written;
			position += chunk.length;
		}
		const stateBytes = position - reserved;
		if (stateBytes !== header.stateBytes) {
			throw new SandboxError(
				"internal",
				`the machine's state was announced with ${header.stateBytes} bytes and has ${stateBytes}`,
			);
		}
		const complete = { ...header, stateSha256: hash.digest("hex") };
		await writeFully(handle, serializeHeader(complete), 0);
		await handle.datasync();
		return complete;
	} catch (error) {
		throw explainWriteError(error, path);
	} finally {
		await handle?.close();
	}
}

/**
 * Opens a snapshot after checking all of it: magic, version, header, length and the state's SHA-256.
 * Throws SandboxError("not-found"), or SandboxError("corrupt") that names the file and what is wrong.
 */
export async function openSnapshotFile(path: string): Promise<OpenSnapshot> {
	const handle = await openForReading(path);
	try {
		const { header, stateOffset } = await readHeader(handle, path);
		await checkState(handle, path, stateOffset, header);
		return {
			imageName: header.imageName,
			imageDigest: header.imageDigest,
			memoryMiB: header.memoryMiB,
			emulatorVersion: header.emulatorVersion,
			openFlows: header.openFlows,
			stateBytes: header.stateBytes,
			state: readRange(handle, stateOffset, header.stateBytes),
			header,
			path,
			stateOffset,
			close: () => handle.close(),
		};
	} catch (error) {
		await handle.close();
		throw error;
	}
}

/** The header, checked, and where the state starts; the state's bytes are not read. Throws as openSnapshotFile does. */
export async function readSnapshotHeader(path: string): Promise<{ header: SnapshotHeader; stateOffset: number }> {
	const handle = await openForReading(path);
	try {
		return await readHeader(handle, path);
	} finally {
		await handle.close();
	}
}

async function openForReading(path: string): Promise<FileHandle> {
	try {
		return await open(path, "r");
	} catch (error) {
		if (errnoOf(error) === "ENOENT")
			throw new SandboxError("not-found", `there is no snapshot file ${path}`, undefined, { cause: error });
		throw error;
	}
}

async function readHeader(handle: FileHandle, path: string): Promise<{ header: SnapshotHeader; stateOffset: number }> {
	const preamble = await readUpTo(handle, 0, PREAMBLE_BYTES);
	const parsed = parsePreamble(preamble);
	if (!parsed.ok) throw corrupt(path, parsed.reason);
	const stateOffset = PREAMBLE_BYTES + parsed.value.headerBytes;
	const header = parseHeader(await readUpTo(handle, 0, stateOffset));
	if (!header.ok) throw corrupt(path, header.reason);
	const { size } = await handle.stat();
	const expected = stateOffset + header.value.stateBytes;
	if (size !== expected) throw corrupt(path, `it has ${size} bytes instead of ${expected}`);
	return { header: header.value, stateOffset };
}

async function checkState(handle: FileHandle, path: string, offset: number, header: SnapshotHeader): Promise<void> {
	const hash = createHash("sha256");
	let checked = 0;
	for await (const chunk of readRange(handle, offset, header.stateBytes)) {
		hash.update(chunk);
		checked += chunk.length;
	}
	if (checked !== header.stateBytes) throw corrupt(path, `it ends after ${offset + checked} bytes`);
	if (hash.digest("hex") !== header.stateSha256) {
		throw corrupt(path, `its ${header.stateBytes} bytes of state do not match their SHA-256`);
	}
}

/** Reads [offset, offset + length) in chunks; the next read runs while the caller works on a chunk. */
async function* readRange(handle: FileHandle, offset: number, length: number): AsyncGenerator<Uint8Array> {
	const end = offset + length;
	let position = offset;
	let pending = readUpTo(handle, position, Math.min(limits.readChunkBytes, end - position));
	while (position < end) {
		const chunk = await pending;
		if (chunk.length === 0) return;
		position += chunk.length;
		pending = readUpTo(handle, position, Math.min(limits.readChunkBytes, end - position));
		// A caller that stops early never awaits the read ahead.
		pending.catch(() => {});
		yield chunk;
	}
}

async function readUpTo(handle: FileHandle, position: number, length: number): Promise<Uint8Array> {
	const buffer = Buffer.allocUnsafeSlow(length);
	let filled = 0;
	while (filled < length) {
		const { bytesRead } = await handle.read(buffer, filled, length - filled, position + filled);
		if (bytesRead === 0) break;
		filled += bytesRead;
	}
	return buffer.subarray(0, filled);
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
	let written = 0;
	while (written < bytes.length) {
		const { bytesWritten } = await handle.write(bytes, written, bytes.length - written, position + written);
		written += bytesWritten;
	}
}

function explainWriteError(error: unknown, path: string): unknown {
	const errno = errnoOf(error);
	if (errno === "ENOSPC" || errno === "EDQUOT" || errno === "EFBIG") {
		return new SandboxError(
			"no-space",
			`no space for the snapshot: writing ${path} failed with ${errno}; nothing of it was kept`,
			"free space on that disk, or move the data folder with --home",
			{ cause: error },
		);
	}
	return error;
}

function corrupt(path: string, reason: string): SandboxError {
	return new SandboxError(
		"corrupt",
		`the snapshot file ${path} is damaged: ${reason}`,
		"the machine was not touched; delete that file and restore another snapshot",
	);
}

/** An image of the data folder as one file that another computer imports; what is in it: export-format.ts. */

import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, readFile, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { type Pack, pack } from "tar-stream";
import { describeError, errnoOf, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { bootSnapshotName, isBootSnapshotOf } from "../vm/boot-snapshot.js";
import type { MachineImage } from "../vm/machine-image.js";
import { openSnapshotFile } from "../vm/snapshot/file.js";
import { ByteProgress } from "./byte-progress.js";
import { hashFile } from "./content-store.js";
import { namesIn, writeAll } from "./disk.js";
import {
	type ExportHeader,
	HEADER_ENTRY,
	MANIFEST_ENTRY,
	parseExportHeader,
	parseForeignTree,
	sortedContents,
	TREE_ENTRY,
} from "./export-format.js";
import { limits } from "./limits.js";
import type { Progress } from "./progress.js";
import { sha256Of } from "./sha256.js";
import { imageFolders, loadImage, TINY } from "./store.js";

/** Contents up to this size are read at once, bytes. */
const SMALL_BYTES = 1024 * 1024;
/** Of base (298 MB of tar): 1 gives 118 MB in 10 s, 4 gives 111 MB in 14 s, 6 gives 108 MB in 21 s. */
const GZIP_LEVEL = 4;
/** The same image gives the same bytes, so no entry has a time. */
const NO_TIME = new Date(0);

export interface ExportOptions {
	readonly log: Log;
	/** Replace a file that exists. */
	readonly force?: boolean;
	readonly signal?: AbortSignal;
	readonly onProgress?: (progress: Progress) => void;
}

export interface ExportedImage {
	/** Absolute path of the file, its length, and the SHA-256 of all of it. */
	readonly path: string;
	readonly bytes: number;
	readonly sha256: string;
	readonly header: ExportHeader;
}

/**
 * Writes the image into a file that is there in full or not at all. Every byte is compared with its hash while it is read:
 * SandboxError("corrupt") names what is damaged. SandboxError("already-exists") where the file exists and `force` is not set.
 */
export async function exportImage(
	home: string,
	name: string,
	path: string,
	options: ExportOptions,
): Promise<ExportedImage> {
	if (name === TINY) {
		throw new SandboxError("invalid-argument", "the image tiny is part of the package; every sandbox86 has it");
	}
	const image = await loadImage(home, name);
	const target = resolve(path);
	if (options.force !== true) await refuseExisting(target);
	const parts = await gather(home, image, options.log);
	const temporary = join(dirname(target), `.${basename(target)}.${randomBytes(6).toString("hex")}.tmp`);
	try {
		const written = await writeArchive(temporary, parts, options);
		if (options.force !== true) await refuseExisting(target);
		await rename(temporary, target);
		return { path: target, ...written, header: parts.header };
	} catch (error) {
		if (options.signal?.aborted === true) throw new SandboxError("cancelled", "the export was cancelled");
		throw explainWriteError(error, target, temporary);
	} finally {
		await rm(temporary, { force: true }).catch(() => undefined);
	}
}

interface Part {
	/** Its name in the archive. */
	readonly name: string;
	/** The bytes, or where they lie. */
	readonly from: Buffer | string;
	readonly bytes: number;
	readonly sha256: string;
}

async function gather(
	home: string,
	image: MachineImage,
	log: Log,
): Promise<{ header: ExportHeader; parts: readonly Part[] }> {
	const manifest = await readFile(join(imageFolders(home).images, image.name, "manifest.json"));
	const treeJson = await readFile(image.treePath);
	const tree = parseForeignTree(treeJson, image.treePath);
	const contents = sortedContents(tree);
	const bootSnapshots = await gatherBootSnapshots(image, log);
	const header = parseExportHeader(
		{
			format: 1,
			name: image.name,
			digest: image.digest,
			manifest: { sha256: sha256Of(manifest), bytes: manifest.length },
			tree: { sha256: sha256Of(treeJson), bytes: treeJson.length },
			bootSnapshots: bootSnapshots.map(({ memoryMiB, sha256, bytes }) => ({ memoryMiB, sha256, bytes })),
			contents: { files: contents.length, bytes: contents.reduce((sum, { bytes }) => sum + bytes, 0) },
		} satisfies ExportHeader,
		(reason) => new SandboxError("invalid-argument", `the image ${image.name} can't be exported: ${reason}`),
	);
	const headerJson = Buffer.from(`${JSON.stringify(header, undefined, "\t")}\n`);
	const inMemory = (name: string, from: Buffer) => ({ name, from, bytes: from.length, sha256: sha256Of(from) });
	return {
		header,
		parts: [
			inMemory(HEADER_ENTRY, headerJson),
			inMemory(MANIFEST_ENTRY, manifest),
			inMemory(TREE_ENTRY, treeJson),
			...bootSnapshots.map(({ path, sha256, bytes, memoryMiB }) => ({
				name: `boot/${bootSnapshotName(memoryMiB)}`,
				from: path,
				sha256,
				bytes,
			})),
			...contents.map(({ sha256, bytes }) => ({
				name: `files/${sha256}`,
				from: join(image.filesPath, sha256),
				sha256,
				bytes,
			})),
		],
	};
}

/** The boot snapshots that would be used here; one that is damaged or of another build is left out, it can be made again. */
async function gatherBootSnapshots(
	image: MachineImage,
	log: Log,
): Promise<{ path: string; memoryMiB: number; sha256: string; bytes: number }[]> {
	const found = [];
	for (const name of await namesIn(image.bootSnapshotsPath)) {
		const path = join(image.bootSnapshotsPath, name);
		try {
			if (!name.endsWith(".sbx86")) continue;
			const { header, close } = await openSnapshotFile(path);
			await close();
			if (!isBootSnapshotOf(header, image.digest) || name !== bootSnapshotName(header.memoryMiB)) continue;
			found.push({
				path,
				memoryMiB: header.memoryMiB,
				sha256: await hashFile(path),
				bytes: (await stat(path)).size,
			});
		} catch (error) {
			log.warn(`${describeError(error)}; it is not exported`);
		}
	}
	return found.sort((a, b) => a.memoryMiB - b.memoryMiB).slice(0, limits.maxBootSnapshots);
}

async function writeArchive(
	path: string,
	{ header, parts }: { header: ExportHeader; parts: readonly Part[] },
	{ signal, onProgress }: ExportOptions,
): Promise<{ bytes: number; sha256: string }> {
	const total = parts.reduce((sum, part) => sum + part.bytes, 0);
	const progress = new ByteProgress(onProgress ?? (() => {}), "export", total);
	const archive = pack();
	const handle = await open(path, "wx", 0o644);
	try {
		// Either side's failure ends the other: the first one is the reason.
		let first: { readonly error: unknown } | undefined;
		const onFailure = (error: unknown) => {
			first ??= { error };
		};
		const [, drained] = await Promise.allSettled([
			fill(archive, parts, (bytes) => progress.advance(bytes, `exporting ${header.name}`), onFailure),
			drain(archive, handle, signal, onFailure),
		]);
		if (drained.status === "rejected") throw first === undefined ? drained.reason : first.error;
		if (first !== undefined) throw first.error;
		await handle.sync();
		return drained.value;
	} finally {
		await handle.close();
	}
}

async function fill(
	archive: Pack,
	parts: readonly Part[],
	onBytes: (bytes: number) => void,
	onFailure: (error: unknown) => void,
): Promise<void> {
	try {
		for (const part of parts) await addPart(archive, part, onBytes);
		archive.finalize();
	} catch (error) {
		onFailure(error);
		archive.destroy(error instanceof Error ? error : new Error(String(error)));
	}
}

async function addPart(archive: Pack, part: Part, onBytes: (bytes: number) => void): Promise<void> {
	const { name, bytes } = part;
	let settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;
	const finished = new Promise<void>((resolve, reject) => {
		settle = { resolve, reject };
	});
	finished.catch(() => undefined);
	const sink = archive.entry({ name, size: bytes, mode: 0o644, mtime: NO_TIME, type: "file" }, (error) => {
		if (error) settle?.reject(error);
		else settle?.resolve();
	});
	sink.on("error", (error: Error) => settle?.reject(error));
	const hash = createHash("sha256");
	let seen = 0;
	for await (const chunk of chunksOf(part)) {
		seen += chunk.length;
		if (seen > bytes) throw damaged(part, `it has more than ${bytes} bytes`);
		hash.update(chunk);
		if (!sink.write(chunk)) {
			await Promise.race([finished, new Promise<void>((resolve) => sink.once("drain", () => resolve()))]);
		}
		onBytes(chunk.length);
	}
	if (seen !== bytes) throw damaged(part, `it has ${seen} of ${bytes} bytes`);
	const found = hash.digest("hex");
	if (found !== part.sha256) throw damaged(part, `its SHA-256 is ${found} instead of ${part.sha256}`);
	sink.end(null);
	await finished;
}

async function* chunksOf(part: Part): AsyncGenerator<Buffer> {
	if (typeof part.from !== "string") {
		yield part.from;
		return;
	}
	try {
		if (part.bytes <= SMALL_BYTES) yield await readFile(part.from);
		else for await (const chunk of createReadStream(part.from, { highWaterMark: SMALL_BYTES })) yield chunk as Buffer;
	} catch (error) {
		if (errnoOf(error) === "ENOENT") throw damaged(part, "it is missing");
		throw error;
	}
}

function damaged({ name, from }: Part, reason: string): SandboxError {
	return new SandboxError(
		"corrupt",
		`${typeof from === "string" ? from : name} is damaged: ${reason}`,
		"sandbox86 image verify tells all that is; build or import the image again",
	);
}

/** Compresses what the archive gives into the file; returns its length and hash. */
async function drain(
	archive: Pack,
	handle: FileHandle,
	signal: AbortSignal | undefined,
	onFailure: (error: unknown) => void,
): Promise<{ bytes: number; sha256: string }> {
	const hash = createHash("sha256");
	let bytes = 0;
	await pipeline(
		async function* () {
			for await (const chunk of archive) yield chunk as Uint8Array;
		},
		createGzip({ level: GZIP_LEVEL }),
		async (compressed: AsyncIterable<Uint8Array>) => {
			for await (const chunk of compressed) {
				await writeAll(handle, chunk).catch((error: unknown) => {
					onFailure(error);
					throw error;
				});
				hash.update(chunk);
				bytes += chunk.length;
			}
		},
		{ ...(signal === undefined ? {} : { signal }) },
	);
	return { bytes, sha256: hash.digest("hex") };
}

async function refuseExisting(path: string): Promise<void> {
	const found = await stat(path).catch((error: unknown) => {
		if (errnoOf(error) === "ENOENT") return undefined;
		throw error;
	});
	if (found === undefined) return;
	throw new SandboxError("already-exists", `${path} exists already`, "choose another file, or replace it with --force");
}

function explainWriteError(error: unknown, target: string, temporary: string): unknown {
	if (error instanceof SandboxError) return error;
	const errno = errnoOf(error);
	// What is read is named by its own error; only the written file's folder is explained here.
	const path = error instanceof Error && "path" in error ? error.path : undefined;
	if (errno === undefined || (path !== undefined && path !== temporary && path !== target)) return error;
	if (errno === "ENOSPC" || errno === "EDQUOT" || errno === "EFBIG") {
		return new SandboxError(
			"no-space",
			`no space for ${target}: writing it failed with ${errno}; nothing of it was kept`,
			"make room, or choose a file on another disk",
			{ cause: error },
		);
	}
	return new SandboxError("invalid-argument", `${target} can't be written: ${errno}`, "choose another file", {
		cause: error,
	});
}

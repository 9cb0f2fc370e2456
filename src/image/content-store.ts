import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";
import { namesIn, onDisk, writeAll } from "./disk.js";
import { SHA256_HEX, sha256Of } from "./sha256.js";

export interface StoredContent {
	/** 64 hex digits. */
	readonly sha256: string;
	readonly sizeBytes: number;
}

/** Contents up to this size are held in memory and written at once. */
const SMALL_BYTES = 1024 * 1024;
const TEMPORARY = /^\.[0-9a-f]{16}\.tmp$/;

/** A folder of files that are named by their SHA-256. A file in it is whole: it gets its name when it is complete. */
export class ContentStore {
	readonly folder: string;
	readonly #known = new Set<string>();

	constructor(folder: string) {
		this.folder = folder;
	}

	path(sha256: string): string {
		return join(this.folder, sha256);
	}

	/** Stores bytes in memory. */
	async put(content: Uint8Array | string): Promise<StoredContent> {
		const bytes = typeof content === "string" ? Buffer.from(content) : content;
		const sha256 = sha256Of(bytes);
		if (!(await this.has(sha256))) {
			await onDisk(this.folder, async () => {
				const temporary = await this.#temporary();
				try {
					await writeFile(temporary, bytes, { flag: "wx" });
					await rename(temporary, this.path(sha256));
				} catch (error) {
					await rm(temporary, { force: true });
					throw error;
				}
			});
			this.#known.add(sha256);
		}
		return { sha256, sizeBytes: bytes.length };
	}

	/** Stores a stream of any length. Nothing is left of it if it fails. */
	async putStream(chunks: AsyncIterable<Uint8Array>): Promise<StoredContent> {
		const hash = createHash("sha256");
		const head: Uint8Array[] = [];
		let sizeBytes = 0;
		let temporary: string | undefined;
		let handle: FileHandle | undefined;
		try {
			for await (const chunk of chunks) {
				sizeBytes += chunk.length;
				if (handle === undefined && sizeBytes <= SMALL_BYTES) {
					head.push(Buffer.from(chunk));
					continue;
				}
				hash.update(Buffer.concat(head));
				hash.update(chunk);
				const before = Buffer.concat(head.splice(0));
				await onDisk(this.folder, async () => {
					if (handle === undefined) {
						temporary = await this.#temporary();
						handle = await open(temporary, "wx");
						await handle.write(before);
					}
					await writeAll(handle, chunk);
				});
			}
			if (handle === undefined || temporary === undefined) return await this.put(Buffer.concat(head));
			await (handle as FileHandle).close();
			handle = undefined;
			const sha256 = hash.digest("hex");
			await rename(temporary, this.path(sha256));
			temporary = undefined;
			this.#known.add(sha256);
			return { sha256, sizeBytes };
		} finally {
			await (handle as FileHandle | undefined)?.close();
			if (temporary !== undefined) await rm(temporary, { force: true });
		}
	}

	async has(sha256: string): Promise<boolean> {
		if (this.#known.has(sha256)) return true;
		try {
			await stat(this.path(sha256));
		} catch (error) {
			if (errnoOf(error) === "ENOENT") return false;
			throw error;
		}
		this.#known.add(sha256);
		return true;
	}

	async read(sha256: string): Promise<Buffer> {
		return await readFile(this.path(sha256));
	}

	/** Names of all contents. */
	async list(): Promise<string[]> {
		return (await namesIn(this.folder)).filter((name) => SHA256_HEX.test(name));
	}

	/** Moves all contents into another store of the same disk, in place of what is damaged there. */
	async moveInto(target: ContentStore): Promise<void> {
		await onDisk(target.folder, async () => {
			await mkdir(target.folder, { recursive: true });
			for (const name of await this.list()) await replaceContent(this.path(name), target.path(name));
		});
		this.#known.clear();
	}

	async remove(sha256: string): Promise<void> {
		this.#known.delete(sha256);
		await rm(this.path(sha256), { force: true });
	}

	/** Removes what an interrupted process left half-written. Nobody may be writing. */
	async removeTemporary(): Promise<void> {
		for (const name of await namesIn(this.folder)) {
			if (TEMPORARY.test(name)) await rm(join(this.folder, name), { force: true });
		}
	}

	async #temporary(): Promise<string> {
		await mkdir(this.folder, { recursive: true });
		return join(this.folder, `.${randomBytes(8).toString("hex")}.tmp`);
	}
}

/** Puts a content in the place of one that has the same name; Windows keeps one that a machine reads, if it is whole. */
async function replaceContent(from: string, to: string): Promise<void> {
	try {
		await rename(from, to);
	} catch (error) {
		const isHeld = ["EACCES", "EPERM", "EBUSY"].includes(errnoOf(error) ?? "");
		if (!isHeld || !(await isAsLong(from, to))) throw error;
		await rm(from);
	}
}

async function isAsLong(path: string, other: string): Promise<boolean> {
	try {
		return (await stat(path)).size === (await stat(other)).size;
	} catch (error) {
		if (errnoOf(error) === "ENOENT") return false;
		throw error;
	}
}

/** SHA-256 (hex) of a file. */
export async function hashFile(path: string): Promise<string> {
	const hash = createHash("sha256");
	try {
		for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) hash.update(chunk as Buffer);
	} catch (error) {
		if (errnoOf(error) === "ENOENT") throw new SandboxError("not-found", `${path} is missing`);
		throw error;
	}
	return hash.digest("hex");
}

/**
 * The content-addressed files of an image, as v86's filesystem wants them (lib/filesystem.js, FileStorageInterface):
 * read on demand, checked against the name (SHA-256) before a byte reaches the guest, and kept in a bounded cache.
 */

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

const CACHE_BYTES = 64 * 1024 * 1024;
const FILE_NAME = /^[0-9a-f]{64}$/;

export class ImageStorage {
	readonly #folder: string;
	readonly #onCorrupt: (file: string, reason: string) => void;
	/** Least recently used first. */
	readonly #cache = new Map<string, Uint8Array>();
	#cachedBytes = 0;
	/** Files that the guest made on a writable tree; they exist nowhere else. */
	readonly #written = new Map<string, Uint8Array>();
	readonly #loading = new Map<string, Promise<Uint8Array>>();

	constructor(folder: string, onCorrupt: (file: string, reason: string) => void) {
		this.#folder = folder;
		this.#onCorrupt = onCorrupt;
	}

	/** v86: bytes [offset, offset + count) of a file. Never resolves when the file is corrupt: onCorrupt ends the machine. */
	async read(name: string, offset: number, count: number, _fileSize?: number): Promise<Uint8Array> {
		const content = this.#written.get(name) ?? (await this.#load(name));
		return content.subarray(offset, offset + count);
	}

	/** v86: keeps content that the guest wrote. */
	async cache(name: string, content: Uint8Array): Promise<void> {
		this.#written.set(name, content);
	}

	uncache(name: string): void {
		this.#written.delete(name);
	}

	#load(name: string): Promise<Uint8Array> {
		const cached = this.#cache.get(name);
		if (cached !== undefined) {
			this.#cache.delete(name);
			this.#cache.set(name, cached);
			return Promise.resolve(cached);
		}
		let loading = this.#loading.get(name);
		if (loading === undefined) {
			loading = this.#readChecked(name).finally(() => this.#loading.delete(name));
			this.#loading.set(name, loading);
		}
		return loading;
	}

	async #readChecked(name: string): Promise<Uint8Array> {
		if (!FILE_NAME.test(name)) return this.#corrupt(name, "its name is not a SHA-256");
		const path = join(this.#folder, name);
		let content: Uint8Array;
		try {
			content = await readFile(path);
		} catch (error) {
			return this.#corrupt(path, error instanceof Error ? error.message : String(error));
		}
		const digest = createHash("sha256").update(content).digest("hex");
		if (digest !== name) return this.#corrupt(path, `its ${content.length} bytes have the SHA-256 ${digest}`);
		this.#remember(name, content);
		return content;
	}

	#remember(name: string, content: Uint8Array): void {
		this.#cache.set(name, content);
		this.#cachedBytes += content.length;
		for (const [oldest, bytes] of this.#cache) {
			if (this.#cachedBytes <= CACHE_BYTES || oldest === name) break;
			this.#cache.delete(oldest);
			this.#cachedBytes -= bytes.length;
		}
	}

	#corrupt(file: string, reason: string): Promise<never> {
		this.#onCorrupt(file, reason);
		return new Promise(() => {});
	}
}

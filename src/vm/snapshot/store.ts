/** The snapshots of one data folder. Several processes may use the folder at once. */

import { randomBytes } from "node:crypto";
import { link, mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SandboxError } from "../../errors.js";
import type { Log } from "../../log.js";
import type { MachineSaved } from "../machine.js";
import { type OpenSnapshot, openSnapshotFile, readSnapshotHeader, writeSnapshotFile } from "./file.js";
import { SNAPSHOT_ID, SNAPSHOT_NAME, type SnapshotHeader } from "./format.js";
import { limits } from "./limits.js";
import { TempFiles } from "./temp-files.js";

const SUFFIX = ".sbx86";
/** Marks the file of a snapshot that has a name, so that no name can look like an id. */
const NAMED = "@";

export interface SnapshotLabel {
	/** SNAPSHOT_NAME; refused if another snapshot has it. */
	readonly name?: string;
	readonly description?: string;
}

export interface StoredSnapshot {
	readonly header: SnapshotHeader;
	/** Size of the file, bytes. */
	readonly sizeBytes: number;
}

/** The only way in and out of the snapshots on disk. */
export interface SnapshotStore {
	/**
	 * Writes a snapshot; it is there in full or not at all. Throws SandboxError("already-exists") for a name that is
	 * taken and SandboxError("no-space") for a full disk.
	 */
	save(saved: MachineSaved, label: SnapshotLabel): Promise<StoredSnapshot>;
	/** The snapshot with that id or name; throws SandboxError("not-found") that names some there are. */
	find(idOrName: string): Promise<StoredSnapshot>;
	/** Throws SandboxError("already-exists") if the name is taken, SandboxError("invalid-argument") if it is none. */
	checkNameIsFree(name: string): Promise<void>;
	/** All of them, newest first; damaged ones are left out and logged. */
	list(): Promise<StoredSnapshot[]>;
	/** Opens a snapshot whose every byte has been verified. The caller closes it. */
	open(idOrName: string): Promise<OpenSnapshot>;
	remove(idOrName: string): Promise<void>;
	/** Removes what is being written; for the end of the process. */
	close(): void;
}

/** A store in `folder`, which is made if need be. Leftovers of processes that died are removed. */
export async function openSnapshotStore(folder: string, log: Log): Promise<SnapshotStore> {
	await mkdir(folder, { recursive: true });
	const store = new FolderSnapshotStore(folder, log);
	await store.removeLeftovers();
	return store;
}

class FolderSnapshotStore implements SnapshotStore {
	readonly #folder: string;
	readonly #log: Log;
	readonly #temp: TempFiles;

	constructor(folder: string, log: Log) {
		this.#folder = folder;
		this.#log = log;
		this.#temp = new TempFiles(folder);
	}

	async removeLeftovers(): Promise<void> {
		const removed = await this.#temp.removeStale();
		if (removed > 0) this.#log.info(`removed ${removed} unfinished snapshot files in ${this.#folder}`);
	}

	async save(saved: MachineSaved, { name, description }: SnapshotLabel): Promise<StoredSnapshot> {
		if (name !== undefined) checkName(name);
		const created = new Date();
		const header = {
			id: newId(created),
			...(name === undefined ? {} : { name }),
			...(description === undefined ? {} : { description }),
			created: created.toISOString(),
			imageName: saved.imageName,
			imageDigest: saved.imageDigest,
			memoryMiB: saved.memoryMiB,
			emulatorVersion: saved.emulatorVersion,
			openFlows: saved.openFlows,
			stateBytes: saved.stateBytes,
		};
		const temp = this.#temp.create();
		try {
			const complete = await writeSnapshotFile(temp, header, saved.state);
			const path = this.#pathOf(name ?? header.id);
			await this.#publish(temp, path, name);
			return { header: complete, sizeBytes: (await stat(path)).size };
		} finally {
			await this.#temp.remove(temp);
		}
	}

	async checkNameIsFree(name: string): Promise<void> {
		checkName(name);
		if (await exists(this.#pathOf(name))) throw await this.#nameTaken(name);
	}

	async find(idOrName: string): Promise<StoredSnapshot> {
		return this.#inspect(await this.#locate(idOrName));
	}

	async open(idOrName: string): Promise<OpenSnapshot> {
		return openSnapshotFile(await this.#locate(idOrName));
	}

	async list(): Promise<StoredSnapshot[]> {
		const found: StoredSnapshot[] = [];
		for (const path of await this.#paths()) {
			try {
				found.push(await this.#inspect(path));
			} catch (error) {
				// Another process may just have removed it.
				if (error instanceof SandboxError && error.code === "corrupt") this.#log.warn(error.message);
			}
		}
		return found.sort((a, b) => b.header.created.localeCompare(a.header.created));
	}

	async remove(idOrName: string): Promise<void> {
		await unlink(await this.#locate(idOrName));
		await syncFolder(this.#folder);
	}

	close(): void {
		this.#temp.removeAllNow();
	}

	/** Gives a finished file its name, unless the name is taken: `link` fails then, where `rename` would replace. */
	async #publish(temp: string, path: string, name: string | undefined): Promise<void> {
		try {
			await link(temp, path);
		} catch (error) {
			const errno = errnoOf(error);
			if (errno === "EEXIST" && name !== undefined) throw await this.#nameTaken(name);
			if (errno === "ENOENT")
				throw new SandboxError("cancelled", "the snapshot was not kept: the server is ending", undefined, {
					cause: error,
				});
			if (errno !== "EPERM" && errno !== "ENOTSUP" && errno !== "EOPNOTSUPP" && errno !== "ENOSYS") throw error;
			// A file system without hard links (FAT): the check and the rename are two steps there.
			if (name !== undefined && (await exists(path))) throw await this.#nameTaken(name);
			await rename(temp, path);
		}
		await syncFolder(this.#folder);
	}

	/** By the file's name, which is the id or `@name`; a snapshot that has a name is found by its id in the headers. */
	async #locate(idOrName: string): Promise<string> {
		if (SNAPSHOT_NAME.test(idOrName)) {
			const path = this.#pathOf(idOrName);
			if (await exists(path)) return path;
			for (const { header } of SNAPSHOT_ID.test(idOrName) ? await this.list() : []) {
				if (header.id === idOrName) return this.#pathOf(header.name ?? header.id);
			}
		}
		throw await this.#notFound(idOrName);
	}

	async #inspect(path: string): Promise<StoredSnapshot> {
		const { header, stateOffset } = await readSnapshotHeader(path);
		return { header, sizeBytes: stateOffset + header.stateBytes };
	}

	async #paths(): Promise<string[]> {
		const names = await readdir(this.#folder);
		return names.filter((name) => name.endsWith(SUFFIX)).map((name) => join(this.#folder, name));
	}

	#pathOf(idOrName: string): string {
		const base = SNAPSHOT_ID.test(idOrName) ? idOrName : `${NAMED}${idOrName}`;
		return join(this.#folder, `${base}${SUFFIX}`);
	}

	async #nameTaken(name: string): Promise<SandboxError> {
		const existing = await this.find(name).catch(() => undefined);
		const since = existing === undefined ? "" : `, since ${existing.header.created} (${existing.header.id})`;
		return new SandboxError(
			"already-exists",
			`the snapshot name "${name}" is taken${since}; snapshots are never overwritten`,
			"choose another name, or leave the name out and use the id in the answer",
		);
	}

	async #notFound(idOrName: string): Promise<SandboxError> {
		const all = await this.list();
		const some = all.slice(0, MAX_SUGGESTIONS).map(({ header }) => header.name ?? header.id);
		const hint =
			all.length === 0
				? "there are no snapshots yet; take one with the snapshot tool"
				: `there ${all.length === 1 ? "is" : "are"} ${some.join(", ")}${all.length > some.length ? ` and ${all.length - some.length} more` : ""}`;
		return new SandboxError("not-found", `there is no snapshot ${JSON.stringify(idOrName.slice(0, 100))}`, hint);
	}
}

const MAX_SUGGESTIONS = 8;

function checkName(name: string): void {
	if (SNAPSHOT_NAME.test(name) && !SNAPSHOT_ID.test(name)) return;
	throw new SandboxError(
		"invalid-argument",
		`${JSON.stringify(name.slice(0, 100))} can't be a snapshot's name`,
		`use 1 to ${limits.maxNameChars} of A-Z a-z 0-9 . _ - that do not look like an id`,
	);
}

function newId(created: Date): string {
	const digits = created.toISOString().replace(/\D/g, "");
	return `s-${digits.slice(0, 8)}-${digits.slice(8, 14)}-${randomBytes(4).toString("hex")}`;
}

async function exists(path: string): Promise<boolean> {
	try {
		await stat(path);
		return true;
	} catch (error) {
		if (errnoOf(error) === "ENOENT") return false;
		throw error;
	}
}

/** Makes a new name last over a power failure. Windows can't open folders and needs no such thing. */
async function syncFolder(folder: string): Promise<void> {
	if (process.platform === "win32") return;
	const handle = await open(folder, "r");
	try {
		await handle.sync();
	} finally {
		await handle.close();
	}
}

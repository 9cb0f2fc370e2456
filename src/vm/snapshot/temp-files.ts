/** Files that are being written: named after their process, so that the next one can tell which are left over. */

import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../errors.js";
import { limits } from "./limits.js";

const TEMP_NAME = /^\.tmp-(\d+)-[0-9a-f]{12}$/;

export class TempFiles {
	readonly #folder: string;
	readonly #live = new Set<string>();

	constructor(folder: string) {
		this.#folder = folder;
	}

	/** A new path in the folder; nothing exists there yet. */
	create(): string {
		const path = join(this.#folder, `.tmp-${process.pid}-${randomBytes(6).toString("hex")}`);
		this.#live.add(path);
		return path;
	}

	async remove(path: string): Promise<void> {
		await rm(path, { force: true });
		this.#live.delete(path);
	}

	/** Removes every file that this process is still writing; for the end of the process. */
	removeAllNow(): void {
		for (const path of this.#live) rmSync(path, { force: true });
		this.#live.clear();
	}

	/** Removes what processes that are gone have left. Returns how many files that were. */
	async removeStale(): Promise<number> {
		let removed = 0;
		for (const name of await readdir(this.#folder)) {
			const pid = TEMP_NAME.exec(name)?.[1];
			const path = join(this.#folder, name);
			if (pid === undefined || this.#live.has(path)) continue;
			if ((Number(pid) !== process.pid && isAlive(Number(pid))) || !(await isQuiet(path))) continue;
			await rm(path, { force: true });
			removed++;
		}
		return removed;
	}
}

function isAlive(pid: number): boolean {
	try {
		process.kill(pid, 0);
		return true;
	} catch (error) {
		return errnoOf(error) === "EPERM";
	}
}

/** A process in another container has a number that means nothing here; a file that grows is never removed. */
async function isQuiet(path: string): Promise<boolean> {
	try {
		return Date.now() - (await stat(path)).mtimeMs > limits.staleTempMs;
	} catch {
		return false;
	}
}

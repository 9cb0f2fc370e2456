/** Progress in a file, for the other processes that wait for this one. */

import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeError, errnoOf } from "../errors.js";
import type { Log } from "../log.js";
import type { Progress } from "./progress.js";

/** In the folder of builds. */
const PROGRESS_FILE = "progress.json";
/** Shortest time between two writes, ms. */
const INTERVAL_MS = 500;

export class ProgressFile {
	readonly #path: string;
	readonly #log: Log;
	#writtenMs = Number.NEGATIVE_INFINITY;
	#writing: Promise<void> = Promise.resolve();

	constructor(builds: string, log: Log) {
		this.#path = join(builds, PROGRESS_FILE);
		this.#log = log;
	}

	update(progress: Progress): void {
		const nowMs = performance.now();
		if (nowMs - this.#writtenMs < INTERVAL_MS) return;
		this.#writtenMs = nowMs;
		this.#writing = this.#writing.then(async () => {
			try {
				await writeFile(`${this.#path}.new`, JSON.stringify(progress));
				await rename(`${this.#path}.new`, this.#path);
			} catch (error) {
				// Only a courtesy to other processes.
				this.#log.debug(`progress is not written: ${describeError(error)}`);
			}
		});
	}

	/** The work is over: nobody waits for it. */
	async end(): Promise<void> {
		await this.#writing;
		// A full disk may have left the new one half written.
		for (const path of [`${this.#path}.new`, this.#path]) await rm(path, { force: true });
	}
}

/** Reads the progress that another process writes; undefined where there is none yet. */
export async function readProgressFile(builds: string): Promise<Progress | undefined> {
	try {
		const value: unknown = JSON.parse(await readFile(join(builds, PROGRESS_FILE), "utf8"));
		if (typeof value === "object" && value !== null && "fraction" in value && "stage" in value) {
			return value as Progress;
		}
		return undefined;
	} catch (error) {
		if (error instanceof SyntaxError || errnoOf(error) === "ENOENT") return undefined;
		throw error;
	}
}

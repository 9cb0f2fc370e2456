/** The serial console: a bounded file for people, its last lines for errors, and the guest's last words. */

import { createWriteStream, mkdirSync, type WriteStream } from "node:fs";
import { dirname } from "node:path";

const FILE_MAX_BYTES = 4 * 1024 * 1024;
const RECENT_MAX_CHARS = 16 * 1024;
const LAST_LINES = 8;
/** What a Linux kernel prints when it will not go on (kernel/panic.c, kernel/reboot.c). */
const FATAL =
	/Kernel panic - not syncing[^\r\n]*|reboot: (?:System halted|Power down|Power off not available|Restarting system)[^\r\n]*/;

export class ConsoleLog {
	readonly path: string;
	readonly #file: WriteStream;
	#fileBytes = 0;
	#recent = "";
	readonly #decoder = new TextDecoder();

	/** Starts the file afresh; failing to write it is no reason to stop the machine. */
	constructor(path: string) {
		this.path = path;
		mkdirSync(dirname(path), { recursive: true });
		this.#file = createWriteStream(path, { flags: "w" });
		this.#file.on("error", () => {});
	}

	/** Takes console bytes; returns the guest's last words if it says that it will not go on. */
	write(bytes: Uint8Array): string | undefined {
		if (this.#fileBytes < FILE_MAX_BYTES) {
			this.#fileBytes += bytes.length;
			this.#file.write(bytes);
			if (this.#fileBytes >= FILE_MAX_BYTES) this.#file.write("\n(the console log is full)\n");
		}
		this.#recent = (this.#recent + this.#decoder.decode(bytes, { stream: true })).slice(-RECENT_MAX_CHARS);
		return FATAL.exec(this.#recent)?.[0];
	}

	/** The last lines, without control characters. */
	lastLines(): string[] {
		return this.#recent
			.split(/\r?\n/)
			.map((line) => line.replace(/\p{Cc}/gu, "").trim())
			.filter((line) => line !== "")
			.slice(-LAST_LINES);
	}

	/** Resolves when the file is complete. */
	close(): Promise<void> {
		return new Promise((resolve) => this.#file.end(() => resolve()));
	}
}

/** A command's output as progress messages: a few each second, each bounded, and never more than one under way. */

import { StringDecoder } from "node:string_decoder";
import { limits } from "./limits.js";

export class OutputProgress {
	readonly #send: (message: string) => Promise<void>;
	readonly #decoders = { stdout: new StringDecoder("utf8"), stderr: new StringDecoder("utf8") };
	readonly #startedAt = performance.now();
	#text = "";
	/** Bytes that came while more was waiting than one message shows. */
	#skippedBytes = 0;
	#timer: NodeJS.Timeout | undefined;
	#sending = false;
	#ended = false;

	constructor(send: (message: string) => Promise<void>) {
		this.#send = send;
		this.#schedule(limits.heartbeatMs);
	}

	push(stream: "stdout" | "stderr", bytes: Uint8Array): void {
		if (this.#ended) return;
		const first = this.#text === "" && this.#skippedBytes === 0;
		const room = limits.maxProgressBytes - Buffer.byteLength(this.#text);
		if (room >= bytes.length) this.#text += this.#decoders[stream].write(Buffer.from(bytes));
		else this.#skip(stream, bytes, room);
		if (first && !this.#sending) this.#schedule(limits.progressIntervalMs);
	}

	/** Sends what is left and stops. */
	async end(): Promise<void> {
		clearTimeout(this.#timer);
		this.#ended = true;
		if (!this.#sending && this.#text !== "") await this.#send(this.#take()).catch(() => {});
	}

	#skip(stream: "stdout" | "stderr", bytes: Uint8Array, room: number): void {
		if (this.#skippedBytes === 0) this.#text += this.#decoders[stream].write(Buffer.from(bytes.subarray(0, room)));
		else room = 0;
		this.#skippedBytes += bytes.length - room;
		// What follows starts in the middle of nowhere.
		this.#decoders[stream] = new StringDecoder("utf8");
	}

	#schedule(delayMs: number): void {
		clearTimeout(this.#timer);
		this.#timer = setTimeout(() => void this.#flush(), delayMs);
	}

	async #flush(): Promise<void> {
		this.#sending = true;
		try {
			await this.#send(this.#take());
		} catch {
			// The caller is gone; its call ends by other means.
		} finally {
			this.#sending = false;
		}
		if (!this.#ended) this.#schedule(this.#text === "" ? limits.heartbeatMs : limits.progressIntervalMs);
	}

	#take(): string {
		const text = this.#text;
		const skipped = this.#skippedBytes;
		this.#text = "";
		this.#skippedBytes = 0;
		if (text === "") return `still running after ${Math.round((performance.now() - this.#startedAt) / 1000)} s`;
		return skipped === 0 ? text : `${text}\n[... ${skipped} bytes not shown here ...]`;
	}
}

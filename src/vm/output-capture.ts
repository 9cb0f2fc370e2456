/** Keeps the first and the last half of a stream within a bound, and counts what it leaves out. */

import type { CapturedOutput } from "./machine.js";

export class OutputCapture {
	readonly #headMax: number;
	readonly #tailMax: number;
	readonly #head: Uint8Array[] = [];
	#headBytes = 0;
	/** The most recent chunks; at most tailMax bytes and one chunk more. */
	#tail: Uint8Array[] = [];
	#tailBytes = 0;
	#droppedBytes = 0;

	constructor(maxBytes: number) {
		this.#headMax = Math.ceil(maxBytes / 2);
		this.#tailMax = Math.floor(maxBytes / 2);
	}

	push(bytes: Uint8Array): void {
		const forHead = bytes.subarray(0, this.#headMax - this.#headBytes);
		if (forHead.length > 0) {
			this.#head.push(forHead);
			this.#headBytes += forHead.length;
		}
		const forTail = bytes.subarray(forHead.length);
		if (forTail.length === 0) return;
		this.#tail.push(forTail);
		this.#tailBytes += forTail.length;
		for (let first = this.#tail[0]; first && this.#tailBytes - first.length >= this.#tailMax; first = this.#tail[0]) {
			this.#tail.shift();
			this.#tailBytes -= first.length;
			this.#droppedBytes += first.length;
		}
	}

	result(): CapturedOutput {
		const tail = Buffer.concat(this.#tail);
		const surplus = Math.max(0, tail.length - this.#tailMax);
		return {
			head: Buffer.concat(this.#head),
			tail: tail.subarray(surplus),
			omittedBytes: this.#droppedBytes + surplus,
		};
	}
}

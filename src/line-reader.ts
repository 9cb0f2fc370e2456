/** Cuts a byte stream into lines, in time linear in its length and memory bounded by the longest line allowed. */

/** As text: Node looks for a string by memchr, for a number byte by byte, which is ten times slower. */
const NEWLINE = "\n";

export class LineReader {
	readonly #maxLineBytes: number;
	#parts: Uint8Array[] = [];
	#bytes = 0;
	#discarding = false;

	constructor(maxLineBytes: number) {
		this.#maxLineBytes = maxLineBytes;
	}

	/** The lines that `bytes` complete, without their ends; "too-long" stands for one that was thrown away. */
	push(bytes: Uint8Array): (string | "too-long")[] {
		const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
		const lines: string[] = [];
		let start = 0;
		for (let end = chunk.indexOf(NEWLINE, 0, "latin1"); end !== -1; end = chunk.indexOf(NEWLINE, start, "latin1")) {
			this.#add(chunk.subarray(start, end));
			lines.push(this.#take());
			start = end + 1;
		}
		this.#add(chunk.subarray(start));
		return lines;
	}

	#add(part: Uint8Array): void {
		if (this.#discarding || part.length === 0) return;
		this.#bytes += part.length;
		if (this.#bytes > this.#maxLineBytes) {
			this.#discarding = true;
			this.#parts = [];
		} else this.#parts.push(part);
	}

	#take(): string {
		const line = this.#discarding ? "too-long" : Buffer.concat(this.#parts).toString("utf8");
		this.#parts = [];
		this.#bytes = 0;
		this.#discarding = false;
		return line;
	}
}

import { TCP_MAX_SACKED_RANGES } from "../limits.js";

/** What the guest has selectively acknowledged (RFC 2018), as disjoint ranges of positions in order. */
export class Scoreboard {
	readonly #ranges: { start: number; end: number }[] = [];
	#bytes = 0;

	get bytes(): number {
		return this.#bytes;
	}

	/** The end of the highest range; 0 if there is none. */
	get end(): number {
		return this.#ranges.at(-1)?.end ?? 0;
	}

	/** Returns how many bytes are new. A range too many is left out: it will only be sent again. */
	add(start: number, end: number): number {
		const ranges = this.#ranges;
		let first = ranges.length;
		while (first > 0 && (ranges[first - 1]?.end ?? 0) >= start) first -= 1;
		let after = first;
		let joinedStart = start;
		let joinedEnd = end;
		let known = 0;
		for (let range = ranges[after]; range !== undefined && range.start <= end; range = ranges[after]) {
			joinedStart = Math.min(joinedStart, range.start);
			joinedEnd = Math.max(joinedEnd, range.end);
			known += range.end - range.start;
			after += 1;
		}
		if (after === first && ranges.length >= TCP_MAX_SACKED_RANGES) return 0;
		ranges.splice(first, after - first, { start: joinedStart, end: joinedEnd });
		const added = joinedEnd - joinedStart - known;
		this.#bytes += added;
		return added;
	}

	/** Everything before `position` was acknowledged for good. */
	release(position: number): void {
		const ranges = this.#ranges;
		for (let range = ranges[0]; range !== undefined && range.start < position; range = ranges[0]) {
			const end = Math.min(range.end, position);
			this.#bytes -= end - range.start;
			range.start = end;
			if (range.start < range.end) return;
			ranges.shift();
		}
	}

	clear(): void {
		this.#ranges.length = 0;
		this.#bytes = 0;
	}

	/** The first position from `position` on that is in no range. */
	skip(position: number): number {
		for (const range of this.#ranges) {
			if (position < range.start) return position;
			if (position < range.end) return range.end;
		}
		return position;
	}

	/** Where the next range after `position`, which is in none, begins. */
	nextStart(position: number): number {
		for (const range of this.#ranges) if (range.start > position) return range.start;
		return Number.POSITIVE_INFINITY;
	}

	/** How much of [start, end) is in ranges. */
	bytesIn(start: number, end: number): number {
		let bytes = 0;
		for (const range of this.#ranges) bytes += Math.max(0, Math.min(end, range.end) - Math.max(start, range.start));
		return bytes;
	}
}

import { TCP_MAX_REORDERED_SEGMENTS } from "../limits.js";

interface Piece {
	readonly start: number;
	readonly bytes: Uint8Array;
}

const endOf = (piece: Piece): number => piece.start + piece.bytes.length;

/** Bytes that came before the ones in front of them: disjoint pieces by position, in order. */
export class ReceiveQueue {
	#pieces: Piece[] = [];
	/** A position in the piece that came last. */
	#latest = 0;

	get isEmpty(): boolean {
		return this.#pieces.length === 0;
	}

	/** The position after the last byte; 0 when empty. */
	get end(): number {
		const last = this.#pieces.at(-1);
		return last === undefined ? 0 : endOf(last);
	}

	/** Copies what is not here yet. What is here stays: two versions of one byte are the guest's fault. */
	add(start: number, bytes: Uint8Array): void {
		const pieces = this.#pieces;
		const end = start + bytes.length;
		this.#latest = start;
		let index = pieces.length;
		while (index > 0 && endOf(pieces[index - 1] as Piece) > start) index -= 1;
		for (let at = start; at < end; index += 1) {
			const next = pieces[index];
			const pieceEnd = next === undefined ? end : Math.min(end, next.start);
			if (pieceEnd > at) {
				if (pieces.length >= TCP_MAX_REORDERED_SEGMENTS) return;
				pieces.splice(index, 0, { start: at, bytes: new Uint8Array(bytes.subarray(at - start, pieceEnd - start)) });
				at = pieceEnd;
			} else {
				at = endOf(next as Piece);
			}
		}
	}

	/** Takes the bytes at `position`, if they are here; what lies before it is forgotten. */
	take(position: number): Uint8Array | undefined {
		for (let piece = this.#pieces[0]; piece !== undefined && piece.start <= position; piece = this.#pieces[0]) {
			this.#pieces.shift();
			if (endOf(piece) > position) return piece.bytes.subarray(position - piece.start);
		}
		return undefined;
	}

	clear(): void {
		this.#pieces = [];
	}

	/** Up to `limit` joined ranges for a SACK option, the one that grew last first (RFC 2018 4). */
	ranges(limit: number): [number, number][] {
		const ranges: [number, number][] = [];
		let latest: [number, number] | undefined;
		let current: [number, number] | undefined;
		for (const piece of this.#pieces) {
			if (current !== undefined && current[1] === piece.start) {
				current[1] = endOf(piece);
			} else {
				current = [piece.start, endOf(piece)];
				if (ranges.length < limit) ranges.push(current);
			}
			if (piece.start <= this.#latest && this.#latest < endOf(piece)) latest = current;
		}
		if (latest === undefined) return ranges;
		return [latest, ...ranges.filter((range) => range !== latest)].slice(0, limit);
	}
}

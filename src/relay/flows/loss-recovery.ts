import { Scoreboard } from "./scoreboard.js";

/** RFC 5681 3.2. */
const DUPLICATE_THRESHOLD = 3;

/**
 * What of the bytes in flight is believed lost: by selective acknowledgments (RFC 6675), by duplicate ones where the guest has no
 * SACK (RFC 6582), or by a timeout. `una` and `nxt` are SND.UNA and SND.NXT as positions.
 *
 *     una ── sent again ── cursor ── lost ── lostEnd ── in flight ── nxt
 *
 * but for the ranges on the scoreboard, which have arrived.
 */
export class LossRecovery {
	readonly #segmentBytes: number;
	readonly #selectiveAcks: boolean;
	readonly #sacked = new Scoreboard();
	#cursor = 1;
	#lostEnd = 0;
	/** What had been sent when the last loss was noticed ends here; until it is acknowledged no other loss is. */
	#recoveryEnd = 0;
	#recovering = false;
	/** The next lost segment goes out whatever the congestion window (RFC 6582 3.2, RFC 6675 5). */
	#urgent = false;
	#duplicates = 0;
	/** Bytes that duplicate acknowledgments say have left, where the guest has no SACK. */
	#departedBytes = 0;

	constructor(segmentBytes: number, selectiveAcks: boolean) {
		this.#segmentBytes = segmentBytes;
		this.#selectiveAcks = selectiveAcks;
	}

	/** After duplicate acknowledgments, until all that was in flight then is acknowledged. */
	get isRecovering(): boolean {
		return this.#recovering;
	}

	/** Where to send again from; undefined if nothing is lost that was not sent again. */
	get next(): number | undefined {
		if (this.#cursor >= this.#lostEnd) return undefined;
		if (this.#sacked.bytes > 0) this.#cursor = this.#sacked.skip(this.#cursor);
		return this.#cursor < this.#lostEnd ? this.#cursor : undefined;
	}

	/** The end of the hole that begins at `next`. */
	get holeEnd(): number {
		return this.#sacked.bytes > 0 ? Math.min(this.#lostEnd, this.#sacked.nextStart(this.#cursor)) : this.#lostEnd;
	}

	get isUrgent(): boolean {
		return this.#urgent;
	}

	/** `length` from `next` on was sent again. */
	repaired(length: number): void {
		this.#cursor += length;
		this.#urgent = false;
	}

	/** Bytes believed to be on the way (RFC 6675 4). */
	inFlight(una: number, nxt: number): number {
		let bytes = nxt - una - this.#sacked.bytes - this.#departedBytes;
		if (this.#cursor < this.#lostEnd) {
			bytes -= this.#lostEnd - this.#cursor - this.#sacked.bytesIn(this.#cursor, this.#lostEnd);
		}
		return Math.max(0, bytes);
	}

	/** Everything before `una` was acknowledged, `bytes` of it now. A part of a repair's data: the next hole begins there. */
	acknowledge(una: number, nxt: number, bytes: number): void {
		this.#duplicates = 0;
		this.#sacked.release(una);
		if (this.#cursor < una) this.#cursor = una;
		if (!this.#recovering) return;
		if (una >= this.#recoveryEnd) {
			this.#recovering = false;
			this.#departedBytes = 0;
			this.#lostEnd = 0;
		} else if (!this.#selectiveAcks) {
			this.#departedBytes = Math.max(0, this.#departedBytes - bytes);
			this.#loseFirst(una, nxt);
		}
	}

	/** Takes the ranges of a SACK option, unchecked positions. True: they say something new. */
	takeSack(ranges: readonly (readonly [number, number])[], una: number, nxt: number): boolean {
		if (!this.#selectiveAcks) return false;
		let added = 0;
		for (const [start, end] of ranges) {
			if (start > una && start < end && end <= nxt) added += this.#sacked.add(start, end);
		}
		return added > 0;
	}

	/** An acknowledgment that acknowledges nothing new, over data in flight; `bare`: it says nothing else (RFC 5681 2). */
	countDuplicate(bare: boolean, newlySacked: boolean): void {
		if (this.#selectiveAcks ? !newlySacked : !bare) return;
		this.#duplicates += 1;
		if (this.#recovering && !this.#selectiveAcks) this.#departedBytes += this.#segmentBytes;
	}

	/** Whether a loss shows now that did not before. */
	notice(una: number, nxt: number): boolean {
		const enough =
			this.#duplicates >= DUPLICATE_THRESHOLD || this.#sacked.bytes >= DUPLICATE_THRESHOLD * this.#segmentBytes;
		const noticed = enough && !this.#recovering && una >= this.#recoveryEnd && nxt > una;
		if (noticed) {
			this.#recovering = true;
			this.#recoveryEnd = nxt;
			this.#loseFirst(una, nxt);
		}
		if (this.#recovering) this.#lostEnd = Math.max(this.#lostEnd, this.#sacked.end);
		return noticed;
	}

	/** A timeout: nothing of what is in flight is believed to arrive, even what SACK named (RFC 2018 8). */
	loseAll(una: number, nxt: number): void {
		this.#sacked.clear();
		this.#recovering = false;
		this.#duplicates = 0;
		this.#departedBytes = 0;
		this.#recoveryEnd = nxt;
		this.#cursor = una;
		this.#lostEnd = nxt;
	}

	#loseFirst(una: number, nxt: number): void {
		this.#urgent = true;
		this.#cursor = una;
		this.#lostEnd = Math.min(nxt, una + this.#segmentBytes);
	}
}

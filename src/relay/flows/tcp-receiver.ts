import { TCP_DELAYED_ACK_MS } from "../limits.js";
import { ReceiveQueue } from "./receive-queue.js";

const NEVER = Number.POSITIVE_INFINITY;
const MAX_RAW_WINDOW = 65_535;
/** RFC 7323 2.3. */
export const MAX_WINDOW_SHIFT = 14;
/** As many as fit in the options of a header without timestamps. */
const MAX_SACK_RANGES = 4;

/** The smallest shift with which the window field can say `budgetBytes`. */
export function windowShiftFor(budgetBytes: number): number {
	let shift = 0;
	while (shift < MAX_WINDOW_SHIFT && MAX_RAW_WINDOW * 2 ** shift < budgetBytes) shift += 1;
	return shift;
}

/**
 * The receiving half: reassembly, the window, when to acknowledge. All positions; position 0 is the guest's SYN.
 *
 * The window's right edge is a promise: it never moves back (RFC 9293 3.8.6), and forward only by steps that are worth it
 * (RFC 9293 3.8.6.2.2).
 */
export class TcpReceiver {
	readonly #queue = new ReceiveQueue();
	readonly #segmentBytes: number;
	readonly #budgetBytes: number;
	readonly #stepBytes: number;
	#shift = 0;
	#nxt = 1;
	#edge = 1;
	#freeBytes: number;
	#finPosition = NEVER;
	#unacknowledgedSegments = 0;
	#closed = false;
	#ackNow = false;
	#budgetGrew = false;
	#ackAtMs = NEVER;

	/** `segmentBytes`: the largest segment that the guest may send. */
	constructor(budgetBytes: number, segmentBytes: number) {
		this.#budgetBytes = budgetBytes;
		this.#freeBytes = budgetBytes;
		this.#segmentBytes = segmentBytes;
		this.#stepBytes = Math.max(1, Math.min(Math.floor(budgetBytes / 2), segmentBytes));
	}

	get nxt(): number {
		return this.#nxt;
	}

	get hasHoles(): boolean {
		return !this.#queue.isEmpty;
	}

	get ackAtMs(): number {
		return this.#ackAtMs;
	}

	/** Both sides offered window scaling: the field counts units of 2^shift from now on. */
	scaleWindow(shift: number): void {
		this.#shift = shift;
	}

	setFreeBytes(freeBytes: number): void {
		this.#budgetGrew ||= freeBytes > this.#freeBytes;
		this.#freeBytes = Math.max(0, freeBytes);
	}

	/** What the window field says now; the edge moves to it. */
	advertise(): number {
		const edge = this.#nxt + Math.min(this.#freeBytes, MAX_RAW_WINDOW * 2 ** this.#shift);
		if (edge - this.#edge >= this.#stepBytes) this.#edge = edge;
		return Math.min(MAX_RAW_WINDOW, Math.floor((this.#edge - this.#nxt) / 2 ** this.#shift));
	}

	/**
	 * Whether a segment of `length` at `start` touches the window (RFC 9293 3.10.7.4). At its very edge any segment is accepted,
	 * data and all: the data is cut off, its acknowledgment counts.
	 */
	accepts(start: number, length: number): boolean {
		if (start > this.#edge) return false;
		return length === 0 ? start >= this.#nxt : start + length > this.#nxt;
	}

	/** Whether `position` lies in the window (RFC 5961 3.2). */
	isInWindow(position: number): boolean {
		return position >= this.#nxt && position <= this.#edge;
	}

	/**
	 * Takes the text of an acceptable segment, and its FIN. True: the FIN has had its turn. The output may close the receiver from
	 * inside data().
	 */
	receive(
		start: number,
		payload: Uint8Array,
		fin: boolean,
		nowMs: number,
		output: { data(bytes: Uint8Array): void },
	): boolean {
		const end = start + payload.length;
		if (fin && this.#finPosition === NEVER && end >= this.#nxt && end >= this.#queue.end && end <= this.#edge) {
			this.#finPosition = end;
		}
		const first = Math.max(start, this.#nxt);
		const limit = Math.max(first, Math.min(end, this.#edge, this.#finPosition));
		const whole = first === start && limit === end;
		// A duplicate, a hole or its filling, data beyond the window, a FIN: the guest wants to know at once (RFC 5681 4.2).
		if (fin || !whole || first > this.#nxt || this.hasHoles) this.#ackNow = true;
		const bytes = whole ? payload : payload.subarray(first - start, limit - start);
		if (first > this.#nxt) {
			this.#queue.add(first, bytes);
			return false;
		}
		this.#unacknowledgedSegments += 1;
		if (this.#ackAtMs === NEVER) this.#ackAtMs = nowMs + TCP_DELAYED_ACK_MS;
		for (let next: Uint8Array | undefined = bytes; next !== undefined && !this.#closed; ) {
			this.#nxt += next.length;
			this.#freeBytes = Math.max(0, this.#freeBytes - next.length);
			if (next.length > 0) output.data(next);
			next = this.hasHoles ? this.#queue.take(this.#nxt) : undefined;
		}
		if (this.#closed || this.#nxt !== this.#finPosition) return false;
		this.#nxt += 1;
		this.#queue.clear();
		return true;
	}

	requestAck(): void {
		this.#ackNow = true;
	}

	/** The end of a batch: two segments or more are acknowledged now, one may wait for company (RFC 9293 3.8.6.3). */
	endBatch(): void {
		if (this.#unacknowledgedSegments >= 2) this.#ackNow = true;
	}

	/** Whether a bare acknowledgment is due. */
	isAckDue(nowMs: number): boolean {
		return this.#ackNow || nowMs >= this.#ackAtMs || (this.#budgetGrew && this.#isUpdateDue());
	}

	/** The current numbers went out with a segment. */
	acknowledged(): void {
		this.#ackNow = false;
		this.#budgetGrew = false;
		this.#unacknowledgedSegments = 0;
		this.#ackAtMs = NEVER;
	}

	sackRanges(): [number, number][] {
		return this.#queue.ranges(MAX_SACK_RANGES);
	}

	close(): void {
		this.#closed = true;
		this.#queue.clear();
		this.acknowledged();
	}

	/** Whether the guest should hear of a larger window: it can send little, or could send much more. */
	#isUpdateDue(): boolean {
		if (this.#nxt > this.#finPosition) return false;
		const visible = this.#edge - this.#nxt;
		const increase = Math.min(this.#freeBytes, MAX_RAW_WINDOW * 2 ** this.#shift) - visible;
		if (increase < this.#stepBytes) return false;
		return visible < 2 * this.#segmentBytes || increase >= this.#budgetBytes / 4;
	}
}

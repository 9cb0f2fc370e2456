import { TCP_GIVE_UP_MS, TCP_MIN_SEGMENT_BYTES } from "../limits.js";
import { TCP_FIN, TCP_PSH } from "../wire/tcp.js";
import { Congestion } from "./congestion.js";
import { PeerWindow } from "./peer-window.js";
import { RoundTrip } from "./round-trip.js";
import { Scoreboard } from "./scoreboard.js";
import { SendQueue } from "./send-queue.js";

/** RFC 5681 3.2. */
const DUPLICATE_THRESHOLD = 3;
const NEVER = Number.POSITIVE_INFINITY;
const NO_BYTES = new Uint8Array(0);

/** What the guest said in its SYN. */
export interface PeerLimits {
	/** Its MSS option, or undefined. */
	readonly maximumSegmentSize: number | undefined;
	/** The largest segment that fits our MTU. */
	readonly pathSegmentBytes: number;
	readonly selectiveAcks: boolean;
}

/** An acknowledgment, in positions. */
export interface Acknowledgment {
	readonly position: number;
	/** The position of the segment that carried it. */
	readonly segmentPosition: number;
	/** The window it offers, bytes. */
	readonly windowBytes: number;
	/** Whether the segment carried nothing else. */
	readonly bare: boolean;
	/** Selectively acknowledged ranges, in positions; unchecked. */
	readonly sacked: readonly (readonly [number, number])[];
}

export interface SegmentSink {
	data(position: number, payload: Uint8Array, flags: number): void;
}

/**
 * The sending half: what is queued, in flight, lost. Windows by RFC 9293 3.8.6, loss by RFC 6298, RFC 5681, RFC 6582 (a guest
 * without SACK) and RFC 6675. All positions; position 0 is our SYN.
 *
 *     una ──── in flight ──── nxt ──── queued ──── end (then FIN)
 *      └ [cursor, lostEnd) is believed lost and is sent again, but for what is in the scoreboard
 */
export class TcpSender {
	readonly queue = new SendQueue();
	readonly roundTrip = new RoundTrip();
	readonly #sink: SegmentSink;
	readonly #budgetBytes: number;
	readonly #window = new PeerWindow();
	readonly #sacked = new Scoreboard();
	#congestion: Congestion | undefined;
	#segmentBytes = 0;
	#selectiveAcks = false;
	#finished = false;

	#una = 0;
	#nxt = 1;
	/** The position after a byte that was sent beyond the window as a probe. */
	#probed = 0;

	#cursor = 0;
	#lostEnd = 0;
	/** What was sent before the last loss was noticed ends here; until it is acknowledged no other loss counts. */
	#recoveryEnd = 0;
	#recovering = false;
	/** The next lost segment goes out whatever the congestion window (RFC 6582 3.2, RFC 6675 5). */
	#repairNow = false;
	#duplicates = 0;
	/** Bytes that duplicate acknowledgments say have left, where the guest has no SACK. */
	#departedBytes = 0;

	#timedPosition = 0;
	#timedAtMs = 0;
	#timerAtMs = NEVER;
	#progressAtMs = 0;
	#retransmissions = 0;

	constructor(budgetBytes: number, sink: SegmentSink) {
		this.#budgetBytes = budgetBytes;
		this.#sink = sink;
	}

	/** The handshake is done; `windowBytes` is what its last segment offered at `segmentPosition`. */
	open(peer: PeerLimits, segmentPosition: number, windowBytes: number): void {
		// RFC 9293 3.7.1: 536 without the option.
		const offered = Math.max(TCP_MIN_SEGMENT_BYTES, peer.maximumSegmentSize ?? 536);
		this.#segmentBytes = Math.min(offered, peer.pathSegmentBytes);
		this.#selectiveAcks = peer.selectiveAcks;
		this.#congestion = new Congestion(this.#segmentBytes, 2 * this.#budgetBytes);
		this.#una = 1;
		this.#cursor = 1;
		this.#window.update(segmentPosition, 1, windowBytes);
	}

	get una(): number {
		return this.#una;
	}

	get nxt(): number {
		return this.#nxt;
	}

	/** The highest position that an acknowledgment may name. */
	get highest(): number {
		return Math.max(this.#nxt, this.#probed);
	}

	/** The position that a bare acknowledgment is sent at: nxt, or what of it the guest still takes after it took back its window. */
	get ackPosition(): number {
		if (this.#congestion === undefined) return this.#nxt;
		const limit = Math.max(this.#una, this.#window.end);
		return this.#nxt <= limit + this.#segmentBytes ? this.#nxt : limit;
	}

	get largestWindow(): number {
		return this.#window.largestBytes;
	}

	get queuedBytes(): number {
		return this.queue.end - this.queue.start;
	}

	/** Segments sent again, probes aside. */
	get retransmissions(): number {
		return this.#retransmissions;
	}

	get timerAtMs(): number {
		return this.#timerAtMs;
	}

	get finAcknowledged(): boolean {
		return this.#finished && this.#una > this.queue.end;
	}

	/** FIN after all that is queued. */
	finish(): void {
		this.#finished = true;
	}

	/** Drops what is queued and every timer. */
	close(): void {
		this.queue.clear();
		this.#sacked.clear();
		this.#congestion = undefined;
		this.#timerAtMs = NEVER;
	}

	/** Takes an acknowledgment that was found valid (una − largestWindow ≤ position ≤ highest). */
	acknowledge(ack: Acknowledgment, nowMs: number): void {
		if (this.#congestion === undefined || ack.position < this.#una) return;
		const previousEnd = this.#window.end;
		const flightBytes = this.#nxt - this.#una;
		const acknowledgedBytes = ack.position - this.#una;
		if (acknowledgedBytes > 0) this.#advance(ack.position, nowMs);
		this.#window.update(ack.segmentPosition, ack.position, ack.windowBytes);
		let newlySacked = 0;
		if (this.#selectiveAcks) {
			for (const [start, end] of ack.sacked) {
				if (start > this.#una && start < end && end <= this.#nxt) newlySacked += this.#sacked.add(start, end);
			}
		}
		if (acknowledgedBytes > 0) {
			this.#duplicates = 0;
			if (this.#recovering) this.#recover(acknowledgedBytes);
			else this.#congestion.grow(acknowledgedBytes, flightBytes);
		} else if (
			flightBytes > 0 &&
			(newlySacked > 0 || (!this.#selectiveAcks && ack.bare && this.#window.end === previousEnd))
		) {
			this.#duplicates += 1;
			if (this.#recovering) this.#departedBytes += this.#selectiveAcks ? 0 : this.#segmentBytes;
		}
		this.#noticeLoss(this.#congestion);
		if (this.#window.end <= this.#una) this.#progressAtMs = nowMs;
		const opened = previousEnd <= this.#una && this.#window.end > this.#una;
		if (opened) this.roundTrip.clearBackoff();
		if (opened || acknowledgedBytes > 0) this.#timerAtMs = NEVER;
	}

	/** Sends what may be sent now, and sets the timer. */
	transmit(nowMs: number): void {
		const congestion = this.#congestion;
		if (congestion === undefined) return;
		let inFlight = this.#pipe();
		const streamEnd = this.queue.end + (this.#finished ? 1 : 0);
		while (this.#cursor < this.#lostEnd) {
			if (this.#sacked.bytes > 0) this.#cursor = this.#sacked.skip(this.#cursor);
			let limit = Math.min(this.#lostEnd, this.#window.end);
			if (this.#sacked.bytes > 0) limit = Math.min(limit, this.#sacked.nextStart(this.#cursor));
			const length = this.#segmentLength(this.#cursor, limit);
			if (length <= 0 || (inFlight + length > congestion.windowBytes && !this.#repairNow)) break;
			this.#repairNow = false;
			const position = this.#cursor;
			this.#cursor += length;
			inFlight += length;
			this.#timedPosition = 0;
			this.#retransmissions += 1;
			this.#send(position, length);
			if (this.#congestion === undefined) return;
		}
		if (this.#cursor >= this.#lostEnd) {
			const limit = Math.min(streamEnd, this.#window.end);
			while (this.#nxt < limit) {
				const length = this.#segmentLength(this.#nxt, limit);
				if (!this.#isWorthSending(length) || inFlight + length > congestion.windowBytes) break;
				const position = this.#nxt;
				this.#nxt += length;
				inFlight += length;
				if (this.#timedPosition === 0 && !this.#recovering) {
					this.#timedPosition = this.#nxt;
					this.#timedAtMs = nowMs;
				}
				this.#send(position, length);
				if (this.#congestion === undefined) return;
			}
		}
		this.#setTimer(nowMs, this.#nxt > this.#una || this.#nxt < streamEnd);
	}

	/** The timer's time has come. False: the guest has been silent for too long. */
	timeOut(nowMs: number): boolean {
		const congestion = this.#congestion;
		if (congestion === undefined || nowMs < this.#timerAtMs) return true;
		if (nowMs - this.#progressAtMs >= TCP_GIVE_UP_MS) return false;
		this.roundTrip.backOff();
		this.#timerAtMs = nowMs + this.roundTrip.timeoutMs;
		this.#timedPosition = 0;
		const closed = this.#window.end <= this.#una;
		if (this.#nxt > this.#una) this.#loseAll(congestion, !closed);
		// With room that was not worth a segment: the override of RFC 9293 3.8.6.2.1.
		if (closed) this.#probe(1);
		else if (this.#nxt === this.#una) this.#probe(this.#window.end - this.#una);
		return true;
	}

	/** Bytes believed to be on the way (RFC 6675 4). */
	#pipe(): number {
		let bytes = this.#nxt - this.#una;
		if (this.#sacked.bytes > 0) bytes -= this.#sacked.bytes;
		if (this.#cursor < this.#lostEnd) {
			bytes -= this.#lostEnd - this.#cursor - this.#sacked.bytesIn(this.#cursor, this.#lostEnd);
		}
		return Math.max(0, bytes - this.#departedBytes);
	}

	/** Of the segment from `position` on that ends at `limit` at the latest; the FIN counts one. */
	#segmentLength(position: number, limit: number): number {
		const end = this.queue.end;
		const length = Math.min(this.#segmentBytes, limit - position);
		if (position + length < end || !this.#finished) return Math.min(length, end - position);
		return Math.min(this.#segmentBytes, end - position) + (limit > end ? 1 : 0);
	}

	/** Silly window avoidance of the sender (RFC 9293 3.8.6.2.1), without Nagle's delay: the host's programs have had theirs. */
	#isWorthSending(length: number): boolean {
		return (
			length >= this.#segmentBytes || this.#nxt + length >= this.queue.end || 2 * length >= this.#window.largestBytes
		);
	}

	#send(position: number, length: number): void {
		const end = this.queue.end;
		const bytes = Math.min(length, end - position);
		const flags = (position + length > end ? TCP_FIN : 0) | (bytes > 0 && position + bytes === end ? TCP_PSH : 0);
		this.#sink.data(position, bytes > 0 ? this.queue.read(position, bytes) : NO_BYTES, flags);
	}

	/** Sends up to `limitBytes` from una on, without counting them as sent. */
	#probe(limitBytes: number): void {
		const length = this.#segmentLength(this.#una, this.#una + limitBytes);
		if (length <= 0) return;
		this.#probed = Math.max(this.#probed, this.#una + length);
		this.#send(this.#una, length);
	}

	#advance(position: number, nowMs: number): void {
		this.#una = position;
		if (this.#nxt < position) this.#nxt = position;
		if (this.#cursor < position) this.#cursor = position;
		this.#sacked.release(position);
		this.queue.release(position);
		if (this.#timedPosition > 0 && position >= this.#timedPosition) {
			this.roundTrip.sample(nowMs - this.#timedAtMs);
			this.#timedPosition = 0;
		}
		this.roundTrip.clearBackoff();
		this.#progressAtMs = nowMs;
	}

	/** New data was acknowledged while losses are repaired: all of them, or the next hole begins at una (RFC 6582 3.2). */
	#recover(acknowledgedBytes: number): void {
		if (this.#una >= this.#recoveryEnd) {
			this.#recovering = false;
			this.#departedBytes = 0;
			this.#lostEnd = 0;
		} else if (!this.#selectiveAcks) {
			this.#departedBytes = Math.max(0, this.#departedBytes - acknowledgedBytes);
			this.#repairNow = true;
			this.#cursor = this.#una;
			this.#lostEnd = Math.min(this.#nxt, this.#una + this.#segmentBytes);
		}
	}

	#noticeLoss(congestion: Congestion): void {
		const enough =
			this.#duplicates >= DUPLICATE_THRESHOLD || this.#sacked.bytes >= DUPLICATE_THRESHOLD * this.#segmentBytes;
		if (!this.#recovering && enough && this.#una >= this.#recoveryEnd && this.#nxt > this.#una) {
			this.#recovering = true;
			this.#recoveryEnd = this.#nxt;
			this.#repairNow = true;
			this.#cursor = this.#una;
			this.#lostEnd = Math.min(this.#nxt, this.#una + this.#segmentBytes);
			congestion.onLoss(this.#nxt - this.#una);
		}
		if (this.#recovering) this.#lostEnd = Math.max(this.#lostEnd, this.#sacked.end);
	}

	/** Nothing of what is in flight is believed to arrive. */
	#loseAll(congestion: Congestion, congested: boolean): void {
		if (congested) congestion.onTimeout(this.#pipe());
		// RFC 2018 8: what was selectively acknowledged may have been dropped since.
		this.#sacked.clear();
		this.#recovering = false;
		this.#duplicates = 0;
		this.#departedBytes = 0;
		this.#recoveryEnd = this.#nxt;
		this.#cursor = this.#una;
		this.#lostEnd = this.#nxt;
	}

	#setTimer(nowMs: number, needed: boolean): void {
		if (!needed) {
			this.#timerAtMs = NEVER;
		} else if (this.#timerAtMs === NEVER) {
			this.#progressAtMs = nowMs;
			this.#timerAtMs = nowMs + this.roundTrip.timeoutMs;
		}
	}
}

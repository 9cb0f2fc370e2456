import { TCP_COALESCING_BYTES, TCP_GIVE_UP_MS, TCP_MIN_SEGMENT_BYTES } from "../limits.js";
import { TCP_FIN, TCP_PSH } from "../wire/tcp.js";
import { Congestion } from "./congestion.js";
import { LossRecovery } from "./loss-recovery.js";
import { PeerWindow } from "./peer-window.js";
import { RoundTrip } from "./round-trip.js";
import { SendQueue } from "./send-queue.js";

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
	/** Selectively acknowledged ranges; unchecked. */
	readonly sacked: readonly (readonly [number, number])[];
}

export interface SegmentSink {
	data(position: number, payload: Uint8Array, flags: number): void;
}

/** What the handshake settles. */
interface Path {
	readonly segmentBytes: number;
	readonly congestion: Congestion;
	readonly losses: LossRecovery;
}

/**
 * The sending half: what is queued, what may be sent, when to send again (RFC 9293 3.8.6, RFC 6298). All positions; position 0 is
 * our SYN.
 *
 *     una ──── in flight ──── nxt ──── queued ──── end (then the FIN)
 */
export class TcpSender {
	readonly queue = new SendQueue();
	readonly roundTrip = new RoundTrip();
	readonly #window = new PeerWindow();
	readonly #sink: SegmentSink;
	readonly #budgetBytes: number;
	/** Undefined before the handshake and after the end. */
	#path: Path | undefined;
	#finished = false;
	#una = 0;
	#nxt = 1;
	/** The position after what was sent as a probe, beyond the window or in too little of it. */
	#probed = 0;
	/** The end of the segment whose round trip is being measured; 0: none is. */
	#timedPosition = 0;
	#timedAtMs = 0;
	#timerAtMs = NEVER;
	/** When the guest last showed that it takes part. */
	#progressAtMs = 0;
	#retransmissions = 0;

	constructor(budgetBytes: number, sink: SegmentSink) {
		this.#budgetBytes = budgetBytes;
		this.#sink = sink;
	}

	/** The handshake is done; its last segment, at `segmentPosition`, offered `windowBytes`. */
	open(peer: PeerLimits, segmentPosition: number, windowBytes: number): void {
		// RFC 9293 3.7.1: 536 without the option.
		const offered = Math.max(TCP_MIN_SEGMENT_BYTES, peer.maximumSegmentSize ?? 536);
		const segmentBytes = Math.min(offered, peer.pathSegmentBytes);
		this.#path = {
			segmentBytes,
			congestion: new Congestion(segmentBytes, 2 * this.#budgetBytes),
			losses: new LossRecovery(segmentBytes, peer.selectiveAcks),
		};
		this.#una = 1;
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

	/** Where a bare acknowledgment is sent: nxt, or what of it the guest still takes after it took back its window. */
	get ackPosition(): number {
		if (this.#path === undefined) return this.#nxt;
		const limit = Math.max(this.#una, this.#window.end);
		return this.#nxt <= limit + this.#path.segmentBytes ? this.#nxt : limit;
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

	/** Infinity: never. */
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

	/** Drops what is queued and the timer. */
	close(): void {
		this.queue.clear();
		this.#path = undefined;
		this.#timerAtMs = NEVER;
	}

	/** Takes an acknowledgment that was found valid (una − largestWindow ≤ position ≤ highest). */
	acknowledge(ack: Acknowledgment, nowMs: number): void {
		const path = this.#path;
		if (path === undefined || ack.position < this.#una) return;
		const bytes = ack.position - this.#una;
		const flightBytes = this.#nxt - this.#una;
		const windowEnd = this.#window.end;
		if (bytes > 0) this.#advance(path, ack.position, nowMs);
		this.#window.update(ack.segmentPosition, ack.position, ack.windowBytes);
		const newlySacked = path.losses.takeSack(ack.sacked, this.#una, this.#nxt);
		if (bytes > 0) {
			if (!path.losses.isRecovering) path.congestion.grow(bytes, flightBytes);
		} else if (flightBytes > 0) {
			path.losses.countDuplicate(ack.bare && this.#window.end === windowEnd, newlySacked);
		}
		if (path.losses.notice(this.#una, this.#nxt)) path.congestion.onLoss(this.#nxt - this.#una);
		// While the window is closed every answer to a probe counts (RFC 9293 3.8.6.1).
		if (this.#window.end <= this.#una) this.#progressAtMs = nowMs;
		const opened = windowEnd <= this.#una && this.#window.end > this.#una;
		if (opened) this.roundTrip.clearBackoff();
		if (opened || bytes > 0) this.#timerAtMs = NEVER;
	}

	/** Sends what may be sent now, lost segments first, and sets the timer. */
	transmit(nowMs: number): void {
		const path = this.#path;
		if (path === undefined) return;
		const streamEnd = this.queue.end + (this.#finished ? 1 : 0);
		const inFlight = this.#sendAgain(path, path.losses.inFlight(this.#una, this.#nxt));
		if (path.losses.next === undefined) this.#sendNew(path, inFlight, Math.min(streamEnd, this.#window.end), nowMs);
		if (this.#path !== undefined) this.#setTimer(nowMs, this.#nxt > this.#una || this.#nxt < streamEnd);
	}

	/** The timer's time has come. False: the guest has been silent for too long. */
	timeOut(nowMs: number): boolean {
		const path = this.#path;
		if (path === undefined || nowMs < this.#timerAtMs) return true;
		if (nowMs - this.#progressAtMs >= TCP_GIVE_UP_MS) return false;
		this.roundTrip.backOff();
		this.#timerAtMs = nowMs + this.roundTrip.timeoutMs;
		this.#timedPosition = 0;
		const closed = this.#window.end <= this.#una;
		if (this.#nxt > this.#una) {
			if (!closed) path.congestion.onTimeout(path.losses.inFlight(this.#una, this.#nxt));
			path.losses.loseAll(this.#una, this.#nxt);
		}
		// With room that was not worth a segment: the override of RFC 9293 3.8.6.2.1.
		if (closed) this.#probe(path, 1);
		else if (this.#nxt === this.#una) this.#probe(path, this.#window.end - this.#una);
		return true;
	}

	/** Sends lost segments, `inFlight` bytes being on the way; returns how many are afterwards. */
	#sendAgain(path: Path, inFlight: number): number {
		const { losses, congestion } = path;
		let total = inFlight;
		for (let position = losses.next; position !== undefined; position = losses.next) {
			const length = this.#segmentLength(path, position, Math.min(losses.holeEnd, this.#window.end));
			if (length <= 0 || (total + length > congestion.windowBytes && !losses.isUrgent)) break;
			losses.repaired(length);
			total += length;
			// Karn: its acknowledgment would not say which of the two it means.
			this.#timedPosition = 0;
			this.#retransmissions += 1;
			this.#send(position, length);
			if (this.#path === undefined) break;
		}
		return total;
	}

	/** Sends what was never sent and lies before `limit`. */
	#sendNew(path: Path, inFlight: number, limit: number, nowMs: number): void {
		let total = inFlight;
		while (this.#nxt < limit && this.#path !== undefined) {
			const position = this.#nxt;
			const length = this.#segmentLength(path, position, limit);
			if (total + length > path.congestion.windowBytes || !this.#isWorthSending(path, length, total)) break;
			this.#nxt += length;
			total += length;
			if (this.#timedPosition === 0 && !path.losses.isRecovering) {
				this.#timedPosition = this.#nxt;
				this.#timedAtMs = nowMs;
			}
			this.#send(position, length);
		}
	}

	/** Of the segment from `position` on that ends at `limit` at the latest; the FIN counts one. */
	#segmentLength(path: Path, position: number, limit: number): number {
		const end = this.queue.end;
		const length = Math.min(path.segmentBytes, limit - position);
		if (position + length < end || !this.#finished) return Math.min(length, end - position);
		return Math.min(path.segmentBytes, end - position) + (limit > end ? 1 : 0);
	}

	/**
	 * Silly window avoidance of the sender (RFC 9293 3.8.6.2.1). Instead of Nagle's delay, which the host's programs have had, the
	 * last bytes of the queue wait only behind much that is in flight: more will come, and acknowledgments will.
	 */
	#isWorthSending(path: Path, length: number, inFlight: number): boolean {
		if (length >= path.segmentBytes) return true;
		if (this.#nxt + length < this.queue.end) return 2 * length >= this.#window.largestBytes;
		return this.#finished || inFlight < TCP_COALESCING_BYTES;
	}

	#send(position: number, length: number): void {
		const end = this.queue.end;
		const bytes = Math.min(length, end - position);
		const flags = (position + length > end ? TCP_FIN : 0) | (bytes > 0 && position + bytes === end ? TCP_PSH : 0);
		this.#sink.data(position, bytes > 0 ? this.queue.read(position, bytes) : NO_BYTES, flags);
	}

	/** Sends up to `limitBytes` from una on, without counting them as sent. */
	#probe(path: Path, limitBytes: number): void {
		const length = this.#segmentLength(path, this.#una, this.#una + limitBytes);
		if (length <= 0) return;
		this.#probed = Math.max(this.#probed, this.#una + length);
		this.#send(this.#una, length);
	}

	#advance(path: Path, position: number, nowMs: number): void {
		const bytes = position - this.#una;
		this.#una = position;
		if (this.#nxt < position) this.#nxt = position;
		path.losses.acknowledge(position, this.#nxt, bytes);
		this.queue.release(position);
		if (this.#timedPosition > 0 && position >= this.#timedPosition) {
			this.roundTrip.sample(nowMs - this.#timedAtMs);
			this.#timedPosition = 0;
		}
		this.roundTrip.clearBackoff();
		this.#progressAtMs = nowMs;
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

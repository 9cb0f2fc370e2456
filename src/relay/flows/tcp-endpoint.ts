import { TCP_CHALLENGES_PER_SECOND, TCP_TIME_WAIT_MS } from "../limits.js";
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, type TcpSegment } from "../wire/tcp.js";
import { RateLimit } from "./rate-limit.js";
import { SegmentWriter } from "./segment-writer.js";
import { segmentLength } from "./stray-segment.js";
import type { TcpCloseReason, TcpConnectionOptions } from "./tcp-connection-options.js";
import { TcpHandshake } from "./tcp-handshake.js";
import { TcpReceiver } from "./tcp-receiver.js";
import { TcpSender } from "./tcp-sender.js";
import { positionOf, sequenceAt } from "./tcp-sequence.js";
import { mayReceiveText, type TcpState } from "./tcp-state.js";

/** IPv4 and TCP headers without options. */
const HEADERS_BYTES = 40;
const NEVER = Number.POSITIVE_INFINITY;
const NO_RANGES: readonly (readonly [number, number])[] = [];

/** The states of a connection and what arriving segments do to them (RFC 9293 3.10.7). */
export class TcpEndpoint {
	readonly sender: TcpSender;
	readonly receiver: TcpReceiver;
	readonly #options: TcpConnectionOptions;
	readonly #segmentBytes: number;
	readonly #handshake: TcpHandshake;
	readonly #writer: SegmentWriter;
	readonly #challenges = new RateLimit(TCP_CHALLENGES_PER_SECOND, 1000);
	#state: TcpState = "connecting";
	#endRequested = false;
	#timeWaitAtMs = NEVER;

	constructor(options: TcpConnectionOptions, guestPort: number, remotePort: number) {
		const { output, initialSequence, receiveBudgetBytes } = options;
		this.#options = options;
		this.#segmentBytes = options.mtu - HEADERS_BYTES;
		this.#handshake = new TcpHandshake(this.#segmentBytes, receiveBudgetBytes);
		this.receiver = new TcpReceiver(receiveBudgetBytes, this.#segmentBytes);
		const route = { guestPort, remotePort, initialSequence, output };
		this.#writer = new SegmentWriter(route, this.#handshake, this.receiver);
		this.sender = new TcpSender(options.sendBudgetBytes, this.#writer);
	}

	get state(): TcpState {
		return this.#state;
	}

	/** Infinity: never. */
	get timerAtMs(): number {
		return Math.min(this.#handshake.timerAtMs, this.#timeWaitAtMs, this.sender.timerAtMs, this.receiver.ackAtMs);
	}

	/** The highest sequence number that was sent. */
	get lastSequence(): number {
		return sequenceAt(this.#options.initialSequence, this.sender.highest - 1);
	}

	get isEndRequested(): boolean {
		return this.#endRequested;
	}

	/** The guest opens. */
	takeSyn(syn: TcpSegment): void {
		this.#handshake.takeSyn(syn);
	}

	/** We open, or answer the guest's SYN. */
	sendSyn(nowMs: number): void {
		const opening = this.#handshake.syn === undefined;
		this.#state = opening ? "syn-sent" : "syn-received";
		this.#handshake.start(nowMs, this.sender.roundTrip);
		this.#writer.syn(!opening);
	}

	end(): void {
		this.#endRequested = true;
		this.sender.finish();
		this.#applyEnd();
	}

	abort(reason: TcpCloseReason): void {
		if (this.#state === "time-wait") {
			this.#close("finished");
			return;
		}
		const syn = this.#handshake.syn;
		if (this.#state !== "connecting") this.#writer.reset(this.sender.nxt, this.#state !== "syn-sent");
		else if (syn !== undefined) this.#writer.resetStray(syn);
		this.#close(reason);
	}

	/** Does what is due. */
	tick(nowMs: number): void {
		if (nowMs >= this.#timeWaitAtMs) {
			this.#close("finished");
		} else if (nowMs < this.#handshake.timerAtMs) {
			if (!this.sender.timeOut(nowMs)) this.abort("timed-out");
		} else if (this.#handshake.repeat(nowMs, this.sender.roundTrip)) {
			this.#writer.syn(this.#state === "syn-received");
		} else {
			this.abort("timed-out");
		}
	}

	/** Sends what may be sent, and an acknowledgment if one is due. */
	transmit(nowMs: number): void {
		this.sender.transmit(nowMs);
		switch (this.#state) {
			case "connecting":
			case "syn-sent":
			case "syn-received":
			case "closed":
				return;
			default:
				if (this.receiver.isAckDue(nowMs)) this.#writer.acknowledgment(this.sender.ackPosition);
		}
	}

	arrive(segment: TcpSegment, nowMs: number): void {
		if (this.#state === "connecting") this.#arriveConnecting(segment);
		else if (this.#state === "syn-sent") this.#arriveSynSent(segment, nowMs);
		else if (segment.flags & TCP_RST) this.#arriveReset(segment, nowMs);
		else if (segment.flags & TCP_SYN) this.#arriveSyn(segment, nowMs);
		else this.#arriveSynchronized(segment, nowMs);
	}

	/** Whether `segment` may open the connection anew, this one being in TIME-WAIT (RFC 9293 3.6.1). */
	canBeReplacedBy(segment: TcpSegment): boolean {
		if (this.#state !== "time-wait" || (segment.flags & (TCP_SYN | TCP_ACK | TCP_RST)) !== TCP_SYN) return false;
		return this.#guestPosition(segment.sequence) >= this.receiver.nxt;
	}

	/** The same SYN again says nothing new; another one replaces it, as nothing has been sent. */
	#arriveConnecting(segment: TcpSegment): void {
		const flags = segment.flags & (TCP_SYN | TCP_ACK | TCP_RST);
		if (flags === TCP_SYN && segment.sequence !== this.#handshake.guestSequence) this.#handshake.takeSyn(segment);
		if ((flags & TCP_RST) === 0 || this.#guestPosition(segment.sequence) !== this.receiver.nxt) return;
		this.#close("reset-by-guest");
	}

	#arriveSynSent(segment: TcpSegment, nowMs: number): void {
		const acknowledging = (segment.flags & TCP_ACK) !== 0;
		if (acknowledging && this.#ownPosition(segment.acknowledgment) !== 1) {
			this.#writer.resetStray(segment);
		} else if (segment.flags & TCP_RST) {
			if (acknowledging) this.#close("reset-by-guest");
		} else if (segment.flags & TCP_SYN) {
			this.#handshake.takeSyn(segment);
			if (acknowledging) {
				this.receiver.requestAck();
				this.#establish(0, segment.window, nowMs);
			} else {
				// Both have opened at once (RFC 9293 3.5).
				this.#state = "syn-received";
				this.#writer.syn(true);
			}
		}
	}

	/** RFC 5961 3.2: only the exact number resets. */
	#arriveReset(segment: TcpSegment, nowMs: number): void {
		const position = this.#guestPosition(segment.sequence);
		if (position === this.receiver.nxt) this.#close(this.#state === "time-wait" ? "finished" : "reset-by-guest");
		else if (this.receiver.isInWindow(position)) this.#challenge(nowMs);
	}

	/** RFC 5961 4.2: a SYN never resets. In SYN-RECEIVED the guest's own SYN again says that our answer was lost. */
	#arriveSyn(segment: TcpSegment, nowMs: number): void {
		if (this.#state !== "syn-received" || segment.sequence !== this.#handshake.guestSequence) {
			this.#challenge(nowMs);
		} else if ((segment.flags & TCP_ACK) === 0) {
			if (this.#challenges.allows(nowMs)) this.#writer.syn(true);
		} else if (this.#ownPosition(segment.acknowledgment) === 1) {
			// The other half of a simultaneous open.
			this.receiver.requestAck();
			this.#establish(0, segment.window, nowMs);
		}
	}

	#arriveSynchronized(segment: TcpSegment, nowMs: number): void {
		const start = this.#guestPosition(segment.sequence);
		const length = segmentLength(segment);
		if (!this.receiver.accepts(start, length)) {
			this.#answerUnacceptable(segment, length, nowMs);
			return;
		}
		if ((segment.flags & TCP_ACK) === 0 || !this.#takeAcknowledgment(segment, start, length, nowMs)) return;
		if (length === 0 || !mayReceiveText(this.#state)) return;
		const fin = (segment.flags & TCP_FIN) !== 0;
		const ended = this.receiver.receive(start, segment.payload, fin, nowMs, this.#options.output);
		if (ended && mayReceiveText(this.#state)) this.#guestEnded(nowMs);
	}

	/** RFC 9293 3.10.7.4, first check: an acknowledgment tells the guest where we are. */
	#answerUnacceptable(segment: TcpSegment, length: number, nowMs: number): void {
		if (this.#state === "time-wait" && segment.flags & TCP_FIN) this.#startTimeWait(nowMs);
		if (length > 0 && this.#state !== "syn-received") this.receiver.requestAck();
		else this.#challenge(nowMs);
	}

	/** RFC 9293 3.10.7.4, fifth check, and RFC 5961 5.2. False: the segment is dropped. */
	#takeAcknowledgment(segment: TcpSegment, start: number, length: number, nowMs: number): boolean {
		const position = this.#ownPosition(segment.acknowledgment);
		const windowBytes = segment.window * this.#handshake.guestWindowUnit;
		const sender = this.sender;
		if (this.#state === "syn-received") {
			if (position === 1) this.#establish(start, windowBytes, nowMs);
			else this.#writer.resetStray(segment);
			return position === 1;
		}
		if (position > sender.highest || position < sender.una - sender.largestWindow) {
			this.#challenge(nowMs);
			return false;
		}
		const sack = segment.options.sack;
		const sacked = sack === undefined ? NO_RANGES : this.#ownRanges(sack);
		sender.acknowledge({ position, segmentPosition: start, windowBytes, bare: length === 0, sacked }, nowMs);
		if (sender.finAcknowledged) this.#endAcknowledged(nowMs);
		return true;
	}

	#establish(position: number, windowBytes: number, nowMs: number): void {
		const handshake = this.#handshake;
		handshake.finish(nowMs, this.sender.roundTrip);
		this.receiver.scaleWindow(handshake.windowShift);
		const peer = {
			maximumSegmentSize: handshake.guestSegmentBytes,
			pathSegmentBytes: this.#segmentBytes,
			selectiveAcks: handshake.isSackPermitted,
		};
		this.sender.open(peer, position, windowBytes);
		this.#state = "established";
		this.#applyEnd();
		this.#options.output.established();
	}

	/** The host has ended (RFC 9293 3.10.4). */
	#applyEnd(): void {
		if (!this.#endRequested) return;
		if (this.#state === "established") this.#state = "fin-wait-1";
		else if (this.#state === "close-wait") this.#state = "last-ack";
	}

	#endAcknowledged(nowMs: number): void {
		if (this.#state === "fin-wait-1") this.#state = "fin-wait-2";
		else if (this.#state === "closing") this.#startTimeWait(nowMs);
		else if (this.#state === "last-ack") this.#close("finished");
	}

	#guestEnded(nowMs: number): void {
		if (this.#state === "established") this.#state = "close-wait";
		else if (this.#state === "fin-wait-1") this.#state = "closing";
		else this.#startTimeWait(nowMs);
		this.#options.output.end();
	}

	#startTimeWait(nowMs: number): void {
		this.#timeWaitAtMs = nowMs + TCP_TIME_WAIT_MS;
		if (this.#state === "time-wait") return;
		this.#state = "time-wait";
		this.#options.output.timeWait();
	}

	/** An ACK that lets an honest guest prove itself (RFC 5961 7: rate-limited). */
	#challenge(nowMs: number): void {
		if (this.#challenges.allows(nowMs)) this.#writer.acknowledgment(this.sender.ackPosition);
	}

	#close(reason: TcpCloseReason): void {
		this.#state = "closed";
		this.#handshake.close();
		this.#timeWaitAtMs = NEVER;
		this.sender.close();
		this.receiver.close();
		this.#options.output.closed(reason);
	}

	#guestPosition(sequence: number): number {
		return positionOf(sequence, this.#handshake.guestSequence, this.receiver.nxt);
	}

	#ownPosition(sequence: number): number {
		return positionOf(sequence, this.#options.initialSequence, this.sender.una);
	}

	#ownRanges(sack: readonly (readonly [number, number])[]): [number, number][] {
		return sack.map(([left, right]) => [this.#ownPosition(left), this.#ownPosition(right)]);
	}
}

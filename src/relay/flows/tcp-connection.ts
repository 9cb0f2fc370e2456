import { TCP_CHALLENGES_PER_SECOND, TCP_HANDSHAKE_MS, TCP_TIME_WAIT_MS } from "../limits.js";
import { NO_TCP_OPTIONS, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, type TcpOptions, type TcpSegment } from "../wire/tcp.js";
import { RateLimit } from "./rate-limit.js";
import { rstForStray, segmentLength } from "./stray-segment.js";
import { TcpReceiver, windowShiftFor } from "./tcp-receiver.js";
import { TcpSender } from "./tcp-sender.js";
import { positionOf, sequenceAt } from "./tcp-sequence.js";
import { mayReceiveText, type TcpState } from "./tcp-state.js";

/** IPv4 and TCP headers without options. */
const HEADERS_BYTES = 40;
const NEVER = Number.POSITIVE_INFINITY;
const NO_BYTES = new Uint8Array(0);
const NO_RANGES: readonly (readonly [number, number])[] = [];

/** "finished": both sides have sent their FIN and everything was acknowledged. */
export type TcpCloseReason = "finished" | "reset-by-guest" | "timed-out" | "aborted";

/** Told synchronously, from inside the event methods; must not throw. */
export interface TcpConnectionOutput {
	/**
	 * A segment to the guest, complete but for addresses. Its payload may be a view of bytes that are used again: serialize it
	 * before anything else. Raise no event of any connection from in here.
	 */
	segment(segment: TcpSegment): void;
	/** The stream's next bytes; a view that is valid until the call returns. */
	data(bytes: Uint8Array): void;
	/** The guest's FIN, after all its data. */
	end(): void;
	/** After a `send` that returned false: half of the send budget is free again. */
	writable(): void;
	/** The handshake is done. */
	established(): void;
	/** Once, and last: nothing is sent, called or timed any more. */
	closed(reason: TcpCloseReason): void;
}

export interface TcpConnectionOptions {
	/** Monotonic, ms. */
	readonly nowMs: () => number;
	/** By RFC 6528; see InitialSequence. */
	readonly initialSequence: number;
	/** Of the link, bytes: an IPv4 packet at most. */
	readonly mtu: number;
	readonly output: TcpConnectionOutput;
	/** What the host's side takes at most, bytes; decides the window's scale. The window starts with all of it. */
	readonly receiveBudgetBytes: number;
	/** Bytes queued for the guest, sent or not, from which on `send` returns false. */
	readonly sendBudgetBytes: number;
}

/**
 * One TCP connection with the guest (RFC 9293), without sockets, timers or addresses. Window scaling (RFC 7323), selective
 * acknowledgments (RFC 2018) and the checks of RFC 5961; no timestamps, no Nagle's delay, urgent data inline.
 *
 * Every method may be called from inside `data`, `end`, `writable` and `established`, and is a no-op after `closed`.
 */
export class TcpConnection {
	readonly remotePort: number;
	readonly guestPort: number;
	readonly #options: TcpConnectionOptions;
	readonly #output: TcpConnectionOutput;
	readonly #sender: TcpSender;
	readonly #receiver: TcpReceiver;
	readonly #challenges = new RateLimit(TCP_CHALLENGES_PER_SECOND, 1000);
	readonly #segmentBytes: number;
	#state: TcpState;
	/** The guest's SYN, once it is here. */
	#syn: TcpSegment | undefined;
	#guestInitialSequence = 0;
	/** What the guest's window field is shifted by. */
	#guestWindowShift = 0;
	#selectiveAcks = false;
	#endRequested = false;
	#writableOwed = false;
	#depth = 0;
	#nowMs: number;
	/** Retransmission of the SYN or SYN-ACK. */
	#handshakeAtMs = NEVER;
	#handshakeSinceMs = 0;
	#handshakeRepeated = false;
	#timeWaitAtMs = NEVER;

	private constructor(options: TcpConnectionOptions, guestPort: number, remotePort: number, state: TcpState) {
		this.#options = options;
		this.#output = options.output;
		this.guestPort = guestPort;
		this.remotePort = remotePort;
		this.#state = state;
		this.#nowMs = options.nowMs();
		this.#segmentBytes = options.mtu - HEADERS_BYTES;
		this.#sender = new TcpSender(options.sendBudgetBytes, (position, payload, flags) =>
			this.#emit(position, payload, flags),
		);
		this.#receiver = new TcpReceiver(options.receiveBudgetBytes, this.#segmentBytes, {
			data: (bytes) => this.#output.data(bytes),
			end: () => this.#guestEnded(),
			isClosed: () => this.#state === "closed",
		});
	}

	/** The guest opens with `syn`. Nothing is sent until hostConnected() or hostRefused(). */
	static accept(syn: TcpSegment, options: TcpConnectionOptions): TcpConnection {
		const connection = new TcpConnection(options, syn.sourcePort, syn.destinationPort, "connecting");
		connection.#takeSyn(syn);
		return connection;
	}

	/** We open towards the guest: sends a SYN at once. */
	static connect(
		options: TcpConnectionOptions & { readonly guestPort: number; readonly remotePort: number },
	): TcpConnection {
		const connection = new TcpConnection(options, options.guestPort, options.remotePort, "syn-sent");
		connection.#startHandshake();
		return connection;
	}

	get state(): TcpState {
		return this.#state;
	}

	/** Bytes from the host that the guest has not acknowledged. */
	get queuedBytes(): number {
		return this.#sender.queuedBytes;
	}

	/** Segments with data sent more than once. */
	get retransmissions(): number {
		return this.#sender.retransmissions;
	}

	/** When tick() has something to do, on the scale of nowMs(). It moves with every event; being late or early does no harm. */
	get nextTimerMs(): number | undefined {
		const at = Math.min(this.#handshakeAtMs, this.#timeWaitAtMs, this.#sender.timerAtMs, this.#receiver.ackAtMs);
		return at === NEVER ? undefined : at;
	}

	/** The host accepted: answers the guest's SYN. */
	hostConnected(): void {
		if (this.#state !== "connecting") return;
		this.#enter();
		this.#state = "syn-received";
		this.#startHandshake();
		this.#leave();
	}

	/** The host refused: the guest's SYN is answered with RST (RFC 9293 3.10.7.1). */
	hostRefused(): void {
		if (this.#state === "connecting") this.abort();
	}

	/** A segment of this connection came from the guest. */
	receive(segment: TcpSegment): void {
		if (this.#state === "closed") return;
		this.#enter();
		if (this.#state === "connecting") this.#arriveConnecting(segment);
		else if (this.#state === "syn-sent") this.#arriveSynSent(segment);
		else this.#arriveSynchronized(segment);
		this.#leave();
	}

	/**
	 * The end of a batch of received segments: two or more of them are acknowledged with one segment. Call it whenever no more
	 * segments are at hand; what it leaves, or a missing call, the delayed-ACK timer picks up.
	 */
	flush(): void {
		if (this.#state === "closed") return;
		this.#enter();
		this.#receiver.endBatch();
		this.#leave();
	}

	/** Bytes from the host; they belong to the connection afterwards. False: stop reading until writable(). Never drops. */
	send(bytes: Uint8Array): boolean {
		if (this.#state === "closed" || this.#endRequested) return true;
		this.#enter();
		this.#sender.queue.append(bytes);
		this.#leave();
		if (this.queuedBytes < this.#options.sendBudgetBytes) return true;
		this.#writableOwed = true;
		return false;
	}

	/** The host's FIN, sent after everything that is queued. */
	end(): void {
		if (this.#state === "closed" || this.#endRequested) return;
		this.#enter();
		this.#endRequested = true;
		this.#sender.finish();
		this.#applyEnd();
		this.#leave();
	}

	/** RST to the guest, and closed("aborted"); in TIME-WAIT, where all is said, only closed("finished"). */
	abort(): void {
		if (this.#state === "closed") return;
		if (this.#state === "time-wait") {
			this.#close("finished");
			return;
		}
		this.#reset();
		this.#close("aborted");
	}

	/** The room towards the host, bytes: budget − what its socket still holds. May send a window update. */
	setReceiveBudget(freeBytes: number): void {
		if (this.#state === "closed") return;
		this.#enter();
		this.#receiver.setFreeBytes(freeBytes);
		this.#leave();
	}

	/** Does what is due; call it when nextTimerMs is reached. */
	tick(): void {
		if (this.#state === "closed") return;
		this.#enter();
		if (this.#nowMs >= this.#timeWaitAtMs) this.#close("finished");
		else if (this.#nowMs >= this.#handshakeAtMs) this.#repeatHandshake();
		else if (!this.#sender.timeOut(this.#nowMs)) this.#giveUp();
		this.#leave();
	}

	/**
	 * Whether `segment` is a SYN that may open the connection anew, this one being in TIME-WAIT (RFC 9293 3.6.1): abort() this one
	 * and accept() the SYN with an initial sequence above lastSequence (mod 2^32).
	 */
	canBeReplacedBy(segment: TcpSegment): boolean {
		if (this.#state !== "time-wait" || (segment.flags & (TCP_SYN | TCP_ACK | TCP_RST)) !== TCP_SYN) return false;
		return this.#guestPosition(segment.sequence) >= this.#receiver.nxt;
	}

	/** The highest sequence number that was sent. */
	get lastSequence(): number {
		return sequenceAt(this.#options.initialSequence, this.#sender.highest - 1);
	}

	#enter(): void {
		if (this.#depth++ === 0) this.#nowMs = this.#options.nowMs();
	}

	/** The outermost event's end: sends what the events have made possible. */
	#leave(): void {
		if (this.#depth === 1) this.#settle();
		this.#depth -= 1;
	}

	#settle(): void {
		while (this.#state !== "closed") {
			this.#sender.transmit(this.#nowMs);
			if (this.#isSynchronized() && this.#receiver.isAckDue(this.#nowMs)) this.#emitAck();
			if (!this.#writableOwed || 2 * this.queuedBytes > this.#options.sendBudgetBytes) return;
			this.#writableOwed = false;
			this.#output.writable();
		}
	}

	#isSynchronized(): boolean {
		return this.#state !== "connecting" && this.#state !== "syn-sent" && this.#state !== "syn-received";
	}

	#guestPosition(sequence: number): number {
		return positionOf(sequence, this.#guestInitialSequence, this.#receiver.nxt);
	}

	#takeSyn(syn: TcpSegment): void {
		const { windowScale, sackPermitted } = syn.options;
		this.#syn = { ...syn, payload: NO_BYTES };
		this.#guestInitialSequence = syn.sequence;
		this.#guestWindowShift = windowScale === undefined ? 0 : Math.min(14, windowScale);
		this.#selectiveAcks = sackPermitted === true;
	}

	// Handshake

	#startHandshake(): void {
		this.#handshakeSinceMs = this.#nowMs;
		this.#handshakeAtMs = this.#nowMs + this.#sender.roundTrip.timeoutMs;
		this.#emitSyn();
	}

	#repeatHandshake(): void {
		if (this.#nowMs - this.#handshakeSinceMs >= TCP_HANDSHAKE_MS) {
			this.#giveUp();
			return;
		}
		this.#handshakeRepeated = true;
		this.#sender.roundTrip.backOff();
		this.#handshakeAtMs = this.#nowMs + this.#sender.roundTrip.timeoutMs;
		this.#emitSyn();
	}

	/** The handshake's last segment is here; the window it offers is `windowBytes`. */
	#establish(segment: TcpSegment, position: number, windowBytes: number): void {
		this.#handshakeAtMs = NEVER;
		this.#sender.roundTrip.clearBackoff();
		if (!this.#handshakeRepeated) this.#sender.roundTrip.sample(this.#nowMs - this.#handshakeSinceMs);
		const options = this.#syn?.options ?? segment.options;
		if (options.windowScale !== undefined) this.#receiver.scaleWindow(windowShiftFor(this.#options.receiveBudgetBytes));
		const peer = {
			maximumSegmentSize: options.maximumSegmentSize,
			pathSegmentBytes: this.#segmentBytes,
			selectiveAcks: this.#selectiveAcks,
		};
		this.#sender.open(peer, position, windowBytes);
		this.#state = "established";
		this.#applyEnd();
		this.#output.established();
	}

	/** The host has ended: the states behind (RFC 9293 3.10.4). */
	#applyEnd(): void {
		if (!this.#endRequested) return;
		if (this.#state === "established") this.#state = "fin-wait-1";
		else if (this.#state === "close-wait") this.#state = "last-ack";
	}

	// Arrival (RFC 9293 3.10.7)

	/** The host is being asked. The same SYN again says nothing new; another one replaces it, nothing having been sent. */
	#arriveConnecting(segment: TcpSegment): void {
		const flags = segment.flags & (TCP_SYN | TCP_ACK | TCP_RST);
		if (flags === TCP_SYN && segment.sequence !== this.#guestInitialSequence) this.#takeSyn(segment);
		if (flags & TCP_RST && this.#receiver.isInWindow(this.#guestPosition(segment.sequence)))
			this.#close("reset-by-guest");
	}

	#arriveSynSent(segment: TcpSegment): void {
		const acknowledging = (segment.flags & TCP_ACK) !== 0;
		const acknowledged = positionOf(segment.acknowledgment, this.#options.initialSequence, 0) === 1;
		if (acknowledging && !acknowledged) {
			this.#answerStray(segment);
			return;
		}
		if (segment.flags & TCP_RST) {
			if (acknowledging) this.#close("reset-by-guest");
			return;
		}
		if ((segment.flags & TCP_SYN) === 0) return;
		this.#takeSyn(segment);
		if (acknowledging) {
			this.#receiver.requestAck();
			this.#establish(segment, 0, segment.window);
		} else {
			// Both have opened at once (RFC 9293 3.5).
			this.#state = "syn-received";
			this.#emitSyn();
		}
	}

	#arriveSynchronized(segment: TcpSegment): void {
		const start = this.#guestPosition(segment.sequence);
		const length = segmentLength(segment);
		if (segment.flags & TCP_RST) {
			this.#arriveReset(start);
			return;
		}
		if (segment.flags & TCP_SYN) {
			this.#arriveSyn(segment);
			return;
		}
		if (!this.#receiver.accepts(start, length)) {
			if (this.#state === "time-wait" && segment.flags & TCP_FIN) this.#startTimeWait();
			if (length > 0 && this.#state !== "syn-received") this.#receiver.requestAck();
			else this.#challenge();
			return;
		}
		if ((segment.flags & TCP_ACK) === 0) return;
		const acknowledged = positionOf(segment.acknowledgment, this.#options.initialSequence, this.#sender.una);
		const windowBytes = segment.window * 2 ** this.#guestWindowShift;
		if (this.#state === "syn-received") {
			if (acknowledged !== 1) {
				this.#answerStray(segment);
				return;
			}
			this.#establish(segment, start, windowBytes);
		} else if (acknowledged > this.#sender.highest || acknowledged < this.#sender.una - this.#sender.largestWindow) {
			// RFC 5961 5.2.
			this.#challenge();
			return;
		} else {
			this.#sender.acknowledge(
				{
					position: acknowledged,
					segmentPosition: start,
					windowBytes,
					bare: length === 0,
					sacked: segment.options.sack === undefined ? NO_RANGES : this.#sackedPositions(segment.options.sack),
				},
				this.#nowMs,
			);
			this.#ourFinAcknowledged();
		}
		if (length > 0 && mayReceiveText(this.#state)) {
			this.#receiver.receive(start, segment.payload, (segment.flags & TCP_FIN) !== 0, this.#nowMs);
		}
	}

	#sackedPositions(sack: readonly (readonly [number, number])[]): [number, number][] {
		const initial = this.#options.initialSequence;
		const una = this.#sender.una;
		return sack.map(([left, right]) => [positionOf(left, initial, una), positionOf(right, initial, una)]);
	}

	/** RFC 5961 3.2: only the exact number resets. */
	#arriveReset(position: number): void {
		if (position === this.#receiver.nxt) this.#close(this.#state === "time-wait" ? "finished" : "reset-by-guest");
		else if (this.#receiver.isInWindow(position)) this.#challenge();
	}

	/** RFC 5961 4.2: never resets. In SYN-RECEIVED the guest's own SYN again says that our answer was lost. */
	#arriveSyn(segment: TcpSegment): void {
		if (this.#state !== "syn-received" || segment.sequence !== this.#guestInitialSequence) {
			this.#challenge();
			return;
		}
		if ((segment.flags & TCP_ACK) === 0) {
			if (this.#challenges.allows(this.#nowMs)) this.#emitSyn();
		} else if (positionOf(segment.acknowledgment, this.#options.initialSequence, 0) === 1) {
			// The other half of a simultaneous open.
			this.#receiver.requestAck();
			this.#establish(segment, 0, segment.window);
		}
	}

	#ourFinAcknowledged(): void {
		if (!this.#sender.finAcknowledged) return;
		if (this.#state === "fin-wait-1") this.#state = "fin-wait-2";
		else if (this.#state === "closing") this.#startTimeWait();
		else if (this.#state === "last-ack") this.#close("finished");
	}

	#guestEnded(): void {
		if (this.#state === "established") this.#state = "close-wait";
		else if (this.#state === "fin-wait-1") this.#state = "closing";
		else if (this.#state === "fin-wait-2") this.#startTimeWait();
		this.#output.end();
	}

	#startTimeWait(): void {
		this.#state = "time-wait";
		this.#timeWaitAtMs = this.#nowMs + TCP_TIME_WAIT_MS;
	}

	/** An ACK that lets an honest guest prove itself (RFC 5961 7: rate-limited). */
	#challenge(): void {
		if (this.#challenges.allows(this.#nowMs)) this.#emitAck();
	}

	// Endings

	#giveUp(): void {
		this.#reset();
		this.#close("timed-out");
	}

	#close(reason: TcpCloseReason): void {
		this.#state = "closed";
		this.#handshakeAtMs = NEVER;
		this.#timeWaitAtMs = NEVER;
		this.#writableOwed = false;
		this.#sender.close();
		this.#receiver.close();
		this.#output.closed(reason);
	}

	#reset(): void {
		if (this.#state === "connecting") {
			if (this.#syn !== undefined) this.#answerStray(this.#syn);
		} else if (this.#state === "syn-sent") {
			this.#emitRaw(1, TCP_RST, NO_TCP_OPTIONS, NO_BYTES);
		} else {
			this.#emitRaw(this.#sender.nxt, TCP_RST | TCP_ACK, NO_TCP_OPTIONS, NO_BYTES);
		}
	}

	// Segments

	#answerStray(segment: TcpSegment): void {
		const answer = rstForStray(segment);
		if (answer !== undefined) this.#output.segment(answer);
	}

	#emitSyn(): void {
		const opening = this.#state === "syn-sent";
		const offered = this.#syn?.options;
		this.#emitRaw(
			0,
			opening ? TCP_SYN : TCP_SYN | TCP_ACK,
			{
				maximumSegmentSize: this.#segmentBytes,
				...((opening || offered?.windowScale !== undefined) && {
					windowScale: windowShiftFor(this.#options.receiveBudgetBytes),
				}),
				...((opening || this.#selectiveAcks) && { sackPermitted: true as const }),
			},
			NO_BYTES,
		);
	}

	#emitAck(): void {
		const holes = this.#selectiveAcks && this.#receiver.hasHoles;
		this.#receiver.acknowledged();
		this.#emitRaw(this.#sender.nxt, TCP_ACK, holes ? { sack: this.#sackOption() } : NO_TCP_OPTIONS, NO_BYTES);
	}

	#sackOption(): [number, number][] {
		const initial = this.#guestInitialSequence;
		return this.#receiver.sackRanges().map(([start, end]) => [sequenceAt(initial, start), sequenceAt(initial, end)]);
	}

	/** The sender's segments. They carry an acknowledgment; over holes the bare one, which counts as a duplicate, is sent as well. */
	#emit(position: number, payload: Uint8Array, flags: number): void {
		if (!this.#receiver.hasHoles) this.#receiver.acknowledged();
		this.#emitRaw(position, flags | TCP_ACK, NO_TCP_OPTIONS, payload);
	}

	#emitRaw(position: number, flags: number, options: TcpOptions, payload: Uint8Array): void {
		const acknowledging = (flags & TCP_ACK) !== 0;
		this.#output.segment({
			sourcePort: this.remotePort,
			destinationPort: this.guestPort,
			sequence: sequenceAt(this.#options.initialSequence, position),
			acknowledgment: acknowledging ? sequenceAt(this.#guestInitialSequence, this.#receiver.nxt) : 0,
			flags,
			window: flags & TCP_RST ? 0 : this.#receiver.advertise(),
			options,
			payload,
		});
	}
}

import type { TcpSegment } from "../wire/tcp.js";
import type { TcpConnectionOptions } from "./tcp-connection-options.js";
import { TcpEndpoint } from "./tcp-endpoint.js";
import type { TcpState } from "./tcp-state.js";

export type { TcpCloseReason, TcpConnectionOptions, TcpConnectionOutput } from "./tcp-connection-options.js";

/**
 * One TCP connection with the guest (RFC 9293), without sockets, timers or addresses. Window scaling (RFC 7323), selective
 * acknowledgments (RFC 2018) and the checks of RFC 5961; no timestamps, no Nagle's delay, urgent data inline.
 *
 * Every method may be called from inside the output's `data`, `end`, `writable` and `established`; what they make possible to send
 * is sent when the outermost one ends. After `closed` they do nothing.
 */
export class TcpConnection {
	readonly guestPort: number;
	readonly remotePort: number;
	readonly #options: TcpConnectionOptions;
	readonly #endpoint: TcpEndpoint;
	/** How many events are going on, one inside the other. */
	#depth = 0;
	/** The time of the outermost event. */
	#nowMs = 0;
	/** `send` returned false, and writable() has not been called since. */
	#writableOwed = false;

	private constructor(options: TcpConnectionOptions, guestPort: number, remotePort: number) {
		this.#options = options;
		this.guestPort = guestPort;
		this.remotePort = remotePort;
		this.#endpoint = new TcpEndpoint(options, guestPort, remotePort);
	}

	/** The guest opens with `syn`. Nothing is sent until hostConnected() or hostRefused(). */
	static accept(syn: TcpSegment, options: TcpConnectionOptions): TcpConnection {
		const connection = new TcpConnection(options, syn.sourcePort, syn.destinationPort);
		connection.#endpoint.takeSyn(syn);
		return connection;
	}

	/** We open towards the guest: sends a SYN at once. */
	static connect(
		options: TcpConnectionOptions & { readonly guestPort: number; readonly remotePort: number },
	): TcpConnection {
		const connection = new TcpConnection(options, options.guestPort, options.remotePort);
		connection.#endpoint.sendSyn(options.nowMs());
		return connection;
	}

	get state(): TcpState {
		return this.#endpoint.state;
	}

	/** Bytes from the host that the guest has not acknowledged. */
	get queuedBytes(): number {
		return this.#endpoint.sender.queuedBytes;
	}

	/** Segments that were sent again. */
	get retransmissions(): number {
		return this.#endpoint.sender.retransmissions;
	}

	/** The highest sequence number that was sent. */
	get lastSequence(): number {
		return this.#endpoint.lastSequence;
	}

	/**
	 * When tick() has something to do, on the scale of nowMs(). It moves with every event; a tick that comes early does nothing, so
	 * a timer that is set need not be moved back.
	 */
	get nextTimerMs(): number | undefined {
		const atMs = this.#endpoint.timerAtMs;
		return atMs === Number.POSITIVE_INFINITY ? undefined : atMs;
	}

	/** The host accepted: answers the guest's SYN. */
	hostConnected(): void {
		if (this.state !== "connecting") return;
		this.#enter();
		this.#endpoint.sendSyn(this.#nowMs);
		this.#leave();
	}

	/** The host refused: the guest's SYN is answered with RST (RFC 9293 3.10.7.1). */
	hostRefused(): void {
		if (this.state === "connecting") this.#endpoint.abort("aborted");
	}

	/** A segment of this connection came from the guest. */
	receive(segment: TcpSegment): void {
		if (this.state === "closed") return;
		this.#enter();
		this.#endpoint.arrive(segment, this.#nowMs);
		this.#leave();
	}

	/**
	 * The end of a batch of received segments: two or more of them are acknowledged with one segment. Call it whenever no more
	 * segments are at hand, be the batch a single one; what is not flushed waits for the delayed-ACK timer.
	 */
	flush(): void {
		if (this.state === "closed") return;
		this.#enter();
		this.#endpoint.receiver.endBatch();
		this.#leave();
	}

	/** Bytes from the host; they belong to the connection afterwards. False: stop reading until writable(). Never drops. */
	send(bytes: Uint8Array): boolean {
		if (this.state === "closed" || this.#endpoint.isEndRequested) return true;
		this.#enter();
		this.#endpoint.sender.queue.append(bytes);
		this.#leave();
		if (this.queuedBytes < this.#options.sendBudgetBytes) return true;
		this.#writableOwed = true;
		return false;
	}

	/** The host's FIN, sent after everything that is queued. */
	end(): void {
		if (this.state === "closed" || this.#endpoint.isEndRequested) return;
		this.#enter();
		this.#endpoint.end();
		this.#leave();
	}

	/** RST to the guest, and closed("aborted"); in TIME-WAIT, where all is said, only closed("finished"). */
	abort(): void {
		if (this.state !== "closed") this.#endpoint.abort("aborted");
	}

	/** The room towards the host, bytes: budget − what its socket still holds. May send a window update. */
	setReceiveBudget(freeBytes: number): void {
		if (this.state === "closed") return;
		this.#enter();
		this.#endpoint.receiver.setFreeBytes(freeBytes);
		this.#leave();
	}

	/** Does what is due; call it when nextTimerMs is reached. */
	tick(): void {
		if (this.state === "closed") return;
		this.#enter();
		this.#endpoint.tick(this.#nowMs);
		this.#leave();
	}

	/**
	 * Whether `segment` is a SYN that may open the connection anew, this one being in TIME-WAIT (RFC 9293 3.6.1): then abort() this
	 * one and accept() the SYN, with an initial sequence above lastSequence (mod 2^32).
	 */
	canBeReplacedBy(segment: TcpSegment): boolean {
		return this.#endpoint.canBeReplacedBy(segment);
	}

	#enter(): void {
		if (this.#depth === 0) this.#nowMs = this.#options.nowMs();
		this.#depth += 1;
	}

	#leave(): void {
		if (this.#depth === 1) this.#settle();
		this.#depth -= 1;
	}

	/** Sends what the events have made possible. */
	#settle(): void {
		while (this.state !== "closed") {
			this.#endpoint.transmit(this.#nowMs);
			if (!this.#writableOwed || 2 * this.queuedBytes > this.#options.sendBudgetBytes) return;
			this.#writableOwed = false;
			this.#options.output.writable();
		}
	}
}

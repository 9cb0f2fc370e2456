import type { Ipv4 } from "../addresses.js";
import type { Bandwidth } from "../bandwidth.js";
import type { Clock } from "../clock.js";
import type { GuestWire } from "../guest-wire.js";
import { TCP_CONNECT_MS, TCP_ESTABLISHED_IDLE_MS, TCP_LINGER_MS, TCP_TRANSITORY_IDLE_MS } from "../limits.js";
import type { TcpSegment } from "../wire/tcp.js";
import type { ByteQuota } from "./byte-quota.js";
import type { Deadlines, Waiting } from "./deadlines.js";
import type { FarEnd, FarEndEvents } from "./far-end.js";
import type { FlowKey } from "./flow-table.js";
import type { TcpCloseReason, TcpConnection, TcpConnectionOutput } from "./tcp-connection.js";

/** Why a flow ended: by the connection's own rules, or by one of ours. */
export type TcpFlowEnd = TcpCloseReason | "limit" | "idle" | "denied" | "refused" | "unreachable" | "host-failed";

/** What all TCP flows of a network share. */
export interface TcpFlowContext {
	readonly clock: Clock;
	readonly wire: GuestWire;
	readonly deadlines: Deadlines;
	readonly toGuest: Bandwidth | undefined;
	readonly fromGuest: Bandwidth | undefined;
	readonly quota: ByteQuota;
	readonly maxFlowBytes: number;
	/** The flow has work left for the end of the batch. */
	touched(flow: TcpFlow): void;
	/** The handshake with the guest is done. */
	established(flow: TcpFlow): void;
	/** Nothing but TIME-WAIT is left of the guest's side; at most once. */
	timeWait(flow: TcpFlow): void;
	/** The guest's side is over; once. `detail`: an errno or a rule, where there is one. */
	ended(flow: TcpFlow, end: TcpFlowEnd, detail: string | undefined): void;
	/** Nothing of the flow is left, on the host either; once, after `ended`. */
	gone(flow: TcpFlow): void;
}

export interface TcpFlowOptions extends FlowKey {
	readonly inbound: boolean;
	readonly receiveBudgetBytes: number;
	/** Makes the connection with the flow as its output. */
	readonly connection: (flow: TcpFlow) => TcpConnection;
	/** An established flow without traffic ends after this. */
	readonly establishedIdleMs?: number;
}

/** Why the far end is not being read. */
const PAUSED_BY_QUEUE = 1;
const PAUSED_BY_LINK = 2;
const PAUSED_BY_BANDWIDTH = 4;

/** One TCP connection of the guest, joined to its far end: bytes, ends and back-pressure both ways. */
export class TcpFlow implements TcpConnectionOutput, FarEndEvents, FlowKey, Waiting {
	readonly guestPort: number;
	readonly remoteAddress: Ipv4;
	readonly remotePort: number;
	/** Opened by the host, through a forward. */
	readonly inbound: boolean;
	heapIndex = -1;
	heapMs = 0;
	/** True while the end of the batch is to visit the flow. */
	isTouched = false;
	/** From the guest. */
	bytesOut = 0;
	/** To the guest. */
	bytesIn = 0;
	readonly connection: TcpConnection;
	readonly #context: TcpFlowContext;
	readonly #receiveBudgetBytes: number;
	#far: FarEnd | undefined;
	#pausedBy = 0;
	#withheld = false;
	#established = false;
	#end: TcpFlowEnd | undefined;
	#gone = false;
	#activeMs: number;
	readonly #openedMs: number;
	readonly #establishedIdleMs: number;

	constructor(context: TcpFlowContext, options: TcpFlowOptions) {
		this.#context = context;
		this.guestPort = options.guestPort;
		this.remoteAddress = options.remoteAddress;
		this.remotePort = options.remotePort;
		this.inbound = options.inbound;
		this.#receiveBudgetBytes = options.receiveBudgetBytes;
		this.#activeMs = context.clock.nowMs();
		this.#openedMs = this.#activeMs;
		this.#establishedIdleMs = options.establishedIdleMs ?? TCP_ESTABLISHED_IDLE_MS;
		this.connection = options.connection(this);
		context.deadlines.update(this);
	}

	get isEstablished(): boolean {
		return this.#established;
	}

	/** The guest's side has still something to say or to hear. */
	get isLive(): boolean {
		return this.#end === undefined && this.connection.state !== "time-wait";
	}

	/** Where the flow ends on the other side; before anything else. */
	join(far: FarEnd): void {
		this.#far = far;
	}

	/** The far end takes bytes: an outbound flow's handshake goes on, an inbound one is read. */
	farReady(): void {
		if (this.#end !== undefined) return;
		this.connection.hostConnected();
		this.#far?.resume();
		this.#context.deadlines.update(this);
	}

	/** A segment of the guest. Call endBatch() once no more are at hand. */
	receive(segment: TcpSegment): void {
		this.connection.receive(segment);
		this.#touch();
	}

	endBatch(): void {
		this.isTouched = false;
		if (this.#end !== undefined) return;
		this.#activeMs = this.#context.clock.nowMs();
		this.#far?.flush();
		this.#updateBudget();
		this.connection.flush();
		this.#context.deadlines.update(this);
	}

	/** Ends the flow with a RST to the guest and one to the host. */
	abort(end: TcpFlowEnd, detail?: string): void {
		if (this.#end !== undefined) return;
		this.#finish(end, detail);
		this.connection.abort();
	}

	/** Forgets the flow without a word to the guest; the host's side is reset, also where it lingers. */
	drop(): void {
		this.#finish("aborted", undefined);
		if (this.#gone) return;
		this.#far?.close(true);
		this.#becomeGone();
	}

	// What the connection tells (TcpConnectionOutput)

	segment(segment: TcpSegment): void {
		this.#context.wire.sendTcp(segment, this.remoteAddress);
	}

	data(bytes: Uint8Array): void {
		if (!this.#count(bytes.length)) return;
		this.bytesOut += bytes.length;
		const { fromGuest } = this.#context;
		if (fromGuest !== undefined && !fromGuest.take(bytes.length)) {
			this.#withheld = true;
			fromGuest.wait(this.#grant);
		}
		this.#far?.write(bytes);
	}

	end(): void {
		this.#far?.end();
	}

	writable(): void {
		this.#unpause(PAUSED_BY_QUEUE);
	}

	established(): void {
		this.#established = true;
		this.#context.established(this);
	}

	timeWait(): void {
		this.#context.timeWait(this);
	}

	closed(reason: TcpCloseReason): void {
		this.#finish(reason, undefined);
	}

	// What the far end tells (FarEndEvents); it may still speak after the flow's end

	farData(bytes: Uint8Array): void {
		if (this.#end !== undefined || !this.#count(bytes.length)) return;
		const { clock, deadlines, toGuest, wire } = this.#context;
		this.bytesIn += bytes.length;
		this.#activeMs = clock.nowMs();
		if (toGuest !== undefined && !toGuest.take(bytes.length)) {
			this.#pause(PAUSED_BY_BANDWIDTH);
			toGuest.wait(this.#bandwidthBack);
		}
		if (!this.connection.send(bytes)) this.#pause(PAUSED_BY_QUEUE);
		if (wire.isCongested) {
			this.#pause(PAUSED_BY_LINK);
			wire.wait(this.#linkBack);
		}
		deadlines.update(this);
	}

	farEnded(): void {
		if (this.#end !== undefined) return;
		this.connection.end();
		this.#context.deadlines.update(this);
	}

	farDrained(): void {
		if (this.#end !== undefined) return;
		this.#updateBudget();
		this.#context.deadlines.update(this);
	}

	farFailed(reason: string): void {
		if (this.connection.state !== "connecting") this.abort("host-failed", reason);
		else if (reason === "ECONNREFUSED") this.abort("refused", reason);
		else this.abort("unreachable", reason);
	}

	farGone(): void {
		if (this.#end === undefined) {
			// Both directions ended on the host; what is queued for the guest still goes its way.
			this.#far = undefined;
			return;
		}
		this.#becomeGone();
	}

	// Time (Waiting)

	deadlineMs(): number | undefined {
		if (this.#gone) return undefined;
		const limitMs = this.#limitMs();
		if (this.#end !== undefined) return limitMs;
		return Math.min(limitMs, this.connection.nextTimerMs ?? limitMs);
	}

	expire(nowMs: number): void {
		if (nowMs >= this.#limitMs()) this.#outOfTime();
		else this.connection.tick();
	}

	/** When the flow has been idle, connecting or lingering for too long. */
	#limitMs(): number {
		if (this.#end !== undefined) return this.#activeMs + TCP_LINGER_MS;
		switch (this.connection.state) {
			case "connecting":
				return this.#openedMs + TCP_CONNECT_MS;
			case "established":
				return this.#activeMs + this.#establishedIdleMs;
			default:
				return this.#activeMs + TCP_TRANSITORY_IDLE_MS;
		}
	}

	#outOfTime(): void {
		if (this.#end !== undefined) {
			this.#far?.close(true);
			this.#becomeGone();
		} else if (this.connection.state === "connecting") {
			this.abort("unreachable", "ETIMEDOUT");
		} else {
			this.abort("idle");
		}
	}

	#finish(end: TcpFlowEnd, detail: string | undefined): void {
		if (this.#end !== undefined) return;
		const { clock, deadlines, fromGuest, toGuest, wire } = this.#context;
		this.#end = end;
		this.#activeMs = clock.nowMs();
		wire.forget(this.#linkBack);
		toGuest?.forget(this.#bandwidthBack);
		fromGuest?.forget(this.#grant);
		this.#far?.close(end !== "finished");
		this.#context.ended(this, end, detail);
		if (this.#far === undefined || !this.#far.open) this.#becomeGone();
		else deadlines.update(this);
	}

	#becomeGone(): void {
		if (this.#gone) return;
		this.#gone = true;
		this.#far = undefined;
		this.#context.deadlines.remove(this);
		this.#context.gone(this);
	}

	/** False: the flow has used up what it or the network may carry, and is ended. */
	#count(bytes: number): boolean {
		const withinFlow = this.bytesOut + this.bytesIn + bytes <= this.#context.maxFlowBytes;
		if (withinFlow && this.#context.quota.take(bytes)) return true;
		this.abort("limit", withinFlow ? "bytes of the machine" : "bytes of the flow");
		return false;
	}

	#updateBudget(): void {
		if (this.#withheld) return;
		this.connection.setReceiveBudget(Math.max(0, this.#receiveBudgetBytes - (this.#far?.bufferedBytes ?? 0)));
	}

	#pause(reason: number): void {
		if (this.#pausedBy === 0) this.#far?.pause();
		this.#pausedBy |= reason;
	}

	#unpause(reason: number): void {
		if (this.#pausedBy === 0) return;
		this.#pausedBy &= ~reason;
		if (this.#pausedBy === 0) this.#far?.resume();
	}

	readonly #linkBack = (): void => this.#unpause(PAUSED_BY_LINK);
	readonly #bandwidthBack = (): void => this.#unpause(PAUSED_BY_BANDWIDTH);
	readonly #grant = (): void => {
		this.#withheld = false;
		this.farDrained();
	};

	#touch(): void {
		if (this.isTouched || this.#end !== undefined) return;
		this.isTouched = true;
		this.#context.touched(this);
	}
}

import { TCP_HANDSHAKE_MS } from "../limits.js";
import type { TcpOptions, TcpSegment } from "../wire/tcp.js";
import type { RoundTrip } from "./round-trip.js";
import { MAX_WINDOW_SHIFT, windowShiftFor } from "./tcp-receiver.js";

const NEVER = Number.POSITIVE_INFINITY;
const NO_BYTES = new Uint8Array(0);

/** What the two SYNs agree on, and when ours is sent again. */
export class TcpHandshake {
	readonly #segmentBytes: number;
	readonly #windowShift: number;
	#syn: TcpSegment | undefined;
	#timerAtMs = NEVER;
	#sinceMs = 0;
	#repeated = false;

	/** `segmentBytes`: the largest segment that we take. */
	constructor(segmentBytes: number, receiveBudgetBytes: number) {
		this.#segmentBytes = segmentBytes;
		this.#windowShift = windowShiftFor(receiveBudgetBytes);
	}

	/** The guest's SYN, without its data: it sends that again. */
	get syn(): TcpSegment | undefined {
		return this.#syn;
	}

	get guestSequence(): number {
		return this.#syn?.sequence ?? 0;
	}

	/** Window scaling is on only if both SYNs offer it (RFC 7323 2.2); ours does if the guest's does. */
	get isScaling(): boolean {
		return this.#syn?.options.windowScale !== undefined;
	}

	/** What our window field is shifted by. */
	get windowShift(): number {
		return this.isScaling ? this.#windowShift : 0;
	}

	/** What the guest's window field is multiplied with. */
	get guestWindowUnit(): number {
		return 2 ** Math.min(MAX_WINDOW_SHIFT, this.#syn?.options.windowScale ?? 0);
	}

	get isSackPermitted(): boolean {
		return this.#syn?.options.sackPermitted === true;
	}

	get guestSegmentBytes(): number | undefined {
		return this.#syn?.options.maximumSegmentSize;
	}

	get timerAtMs(): number {
		return this.#timerAtMs;
	}

	takeSyn(syn: TcpSegment): void {
		this.#syn = { ...syn, payload: NO_BYTES };
	}

	/** Of our SYN: everything if we open, what the guest offered if we answer. */
	options(): TcpOptions {
		const opening = this.#syn === undefined;
		return {
			maximumSegmentSize: this.#segmentBytes,
			...((opening || this.isScaling) && { windowScale: this.#windowShift }),
			...((opening || this.isSackPermitted) && { sackPermitted: true as const }),
		};
	}

	/** Our SYN is being sent. */
	start(nowMs: number, roundTrip: RoundTrip): void {
		this.#sinceMs = nowMs;
		this.#timerAtMs = nowMs + roundTrip.timeoutMs;
	}

	/** The timer's time has come: whether to send our SYN again, or to give up. */
	repeat(nowMs: number, roundTrip: RoundTrip): boolean {
		if (nowMs - this.#sinceMs >= TCP_HANDSHAKE_MS) return false;
		this.#repeated = true;
		roundTrip.backOff();
		this.#timerAtMs = nowMs + roundTrip.timeoutMs;
		return true;
	}

	finish(nowMs: number, roundTrip: RoundTrip): void {
		this.#timerAtMs = NEVER;
		roundTrip.clearBackoff();
		if (!this.#repeated) roundTrip.sample(nowMs - this.#sinceMs);
	}

	close(): void {
		this.#timerAtMs = NEVER;
	}
}

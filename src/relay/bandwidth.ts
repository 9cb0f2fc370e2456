import type { Clock } from "./clock.js";
import type { Deadlines, Waiting } from "./flows/deadlines.js";

/** Bytes per second each way; undefined: no limit. */
export interface BandwidthLimits {
	readonly toGuestBytesPerSecond?: number;
	readonly fromGuestBytesPerSecond?: number;
}

/** The bucket holds what flows in this time, s: as long as a burst may run ahead. */
const BURST_SECONDS = 0.1;

/**
 * One direction's token bucket. What can wait (TCP) takes bytes after the fact, which may leave a debt, and stops
 * producing until `resume`; what can't (UDP) asks first and is dropped.
 */
export class Bandwidth implements Waiting {
	heapIndex = -1;
	heapMs = 0;
	readonly #clock: Clock;
	readonly #deadlines: Deadlines;
	readonly #bytesPerMs: number;
	readonly #burstBytes: number;
	#tokens: number;
	#filledMs: number;
	readonly #waiting = new Set<() => void>();

	constructor(bytesPerSecond: number, clock: Clock, deadlines: Deadlines) {
		this.#clock = clock;
		this.#deadlines = deadlines;
		this.#bytesPerMs = bytesPerSecond / 1000;
		this.#burstBytes = bytesPerSecond * BURST_SECONDS;
		this.#tokens = this.#burstBytes;
		this.#filledMs = clock.nowMs();
	}

	/** Takes `bytes` that have been sent already. True: more may follow at once. */
	take(bytes: number): boolean {
		this.#fill();
		this.#tokens -= bytes;
		return this.#tokens > 0;
	}

	get exhausted(): boolean {
		this.#fill();
		return this.#tokens <= 0;
	}

	/** Takes `bytes` if they are there (or the bucket is full: a datagram larger than it is not stuck for ever). */
	tryTake(bytes: number): boolean {
		this.#fill();
		if (this.#tokens < Math.min(bytes, this.#burstBytes)) return false;
		this.#tokens -= bytes;
		return true;
	}

	/** Calls `resume` once the debt is paid; each function waits but once. */
	wait(resume: () => void): void {
		this.#waiting.add(resume);
		this.#deadlines.update(this);
	}

	forget(resume: () => void): void {
		this.#waiting.delete(resume);
	}

	deadlineMs(): number | undefined {
		if (this.#waiting.size === 0) return undefined;
		return this.#filledMs + Math.max(0, 1 - this.#tokens) / this.#bytesPerMs;
	}

	expire(): void {
		this.#fill();
		const resumed = [...this.#waiting];
		this.#waiting.clear();
		for (const resume of resumed) resume();
	}

	#fill(): void {
		const nowMs = this.#clock.nowMs();
		this.#tokens = Math.min(this.#burstBytes, this.#tokens + (nowMs - this.#filledMs) * this.#bytesPerMs);
		this.#filledMs = nowMs;
	}
}

import type { Clock, Timer } from "./clock.js";

interface PendingTimer {
	/** On this clock's scale. */
	readonly atMs: number;
	readonly callback: () => void;
	timer: Timer | undefined;
}

/** A clock that can be stopped: what is timed by it then waits as long as whoever it is about does. */
export class PausableClock implements Clock {
	readonly #base: Clock;
	readonly #pending = new Set<PendingTimer>();
	/** The base's time at which this clock was stopped. */
	#stoppedMs: number | undefined;
	/** What this clock is behind its base, because it was stopped. */
	#behindMs = 0;

	constructor(base: Clock) {
		this.#base = base;
	}

	nowMs(): number {
		return (this.#stoppedMs ?? this.#base.nowMs()) - this.#behindMs;
	}

	setTimer(delayMs: number, callback: () => void): Timer {
		const pending: PendingTimer = { atMs: this.nowMs() + delayMs, callback, timer: undefined };
		this.#pending.add(pending);
		if (this.#stoppedMs === undefined) this.#arm(pending);
		return {
			cancel: () => {
				pending.timer?.cancel();
				this.#pending.delete(pending);
			},
		};
	}

	pause(): void {
		if (this.#stoppedMs !== undefined) return;
		this.#stoppedMs = this.#base.nowMs();
		for (const { timer } of this.#pending) timer?.cancel();
	}

	resume(): void {
		if (this.#stoppedMs === undefined) return;
		this.#behindMs += this.#base.nowMs() - this.#stoppedMs;
		this.#stoppedMs = undefined;
		for (const pending of this.#pending) this.#arm(pending);
	}

	#arm(pending: PendingTimer): void {
		pending.timer = this.#base.setTimer(Math.max(0, pending.atMs - this.nowMs()), () => {
			this.#pending.delete(pending);
			pending.callback();
		});
	}
}

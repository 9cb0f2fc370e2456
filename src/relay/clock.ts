/** Time, injected: the relay's state machines never ask the system. */

export interface Timer {
	cancel(): void;
}

export interface Clock {
	/** Monotonic, ms. */
	nowMs(): number;
	/** Calls back once, after `delayMs` or later. */
	setTimer(delayMs: number, callback: () => void): Timer;
}

/** The system's clock; its timers don't keep the process alive. */
export const systemClock: Clock = {
	nowMs: () => performance.now(),
	setTimer(delayMs, callback) {
		const timer = setTimeout(callback, delayMs);
		timer.unref();
		return { cancel: () => clearTimeout(timer) };
	},
};

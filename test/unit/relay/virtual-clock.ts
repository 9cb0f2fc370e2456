import type { Clock, Timer } from "../../../src/relay/clock.js";

/** A clock that only moves when it is told to; timers fire in order of their time, then of their setting. */
export class VirtualClock implements Clock {
	#nowMs = 0;
	#serial = 0;
	readonly #timers = new Map<number, { readonly atMs: number; readonly callback: () => void }>();

	nowMs(): number {
		return this.#nowMs;
	}

	setTimer(delayMs: number, callback: () => void): Timer {
		const id = ++this.#serial;
		this.#timers.set(id, { atMs: this.#nowMs + Math.max(0, delayMs), callback });
		return { cancel: () => void this.#timers.delete(id) };
	}

	get pendingTimers(): number {
		return this.#timers.size;
	}

	/** Moves on by `ms`, firing what comes due on the way. */
	advance(ms: number): void {
		const end = this.#nowMs + ms;
		for (let next = this.#next(); next !== undefined && next.atMs <= end; next = this.#next()) {
			this.#timers.delete(next.id);
			this.#nowMs = Math.max(this.#nowMs, next.atMs);
			next.callback();
		}
		this.#nowMs = end;
	}

	/** Fires the next timer, wherever it is; false if there is none. */
	step(): boolean {
		const next = this.#next();
		if (next === undefined) return false;
		this.advance(Math.max(0, next.atMs - this.#nowMs));
		return true;
	}

	#next(): { id: number; atMs: number; callback: () => void } | undefined {
		let found: { id: number; atMs: number; callback: () => void } | undefined;
		for (const [id, timer] of this.#timers) {
			if (found === undefined || timer.atMs < found.atMs) found = { id, ...timer };
		}
		return found;
	}
}

import type { Clock, Timer } from "../clock.js";

/** Something with a point in time at which it wants to be called. Subclasses of flows carry their own place in the heap. */
export interface Waiting {
	/** ms on the clock's scale; undefined while nothing is pending. */
	deadlineMs(): number | undefined;
	/** The deadline is reached. */
	expire(nowMs: number): void;
	/** Written by Deadlines alone: the index in its heap (-1: not in it) and the time that it stands there with. */
	heapIndex: number;
	heapMs: number;
}

/** Timers are not set finer than this, ms: deadlines that lie closer together are served by one. */
const RESOLUTION_MS = 1;

/**
 * The deadlines of all flows of a network behind one timer. A binary heap that is lazy: a deadline that moves away costs
 * nothing (it is looked at again when its old time comes), one that comes nearer moves up.
 */
export class Deadlines {
	readonly #clock: Clock;
	readonly #heap: Waiting[] = [];
	#timer: Timer | undefined;
	#timerMs = Number.POSITIVE_INFINITY;

	constructor(clock: Clock) {
		this.#clock = clock;
	}

	get size(): number {
		return this.#heap.length;
	}

	/** To be called after everything that may have brought the item's deadline nearer. */
	update(item: Waiting): void {
		const deadlineMs = item.deadlineMs();
		if (deadlineMs === undefined || (item.heapIndex >= 0 && item.heapMs <= deadlineMs)) return;
		item.heapMs = deadlineMs;
		if (item.heapIndex < 0) {
			item.heapIndex = this.#heap.length;
			this.#heap.push(item);
		}
		this.#moveUp(item);
		this.#arm();
	}

	remove(item: Waiting): void {
		const at = item.heapIndex;
		if (at < 0) return;
		this.#takeOut(at);
		if (this.#heap.length === 0) this.#disarm();
	}

	clear(): void {
		for (const item of this.#heap) item.heapIndex = -1;
		this.#heap.length = 0;
		this.#disarm();
	}

	#expireDue(): void {
		this.#timer = undefined;
		this.#timerMs = Number.POSITIVE_INFINITY;
		const nowMs = this.#clock.nowMs();
		const due: Waiting[] = [];
		for (let top = this.#heap[0]; top !== undefined && top.heapMs <= nowMs; top = this.#heap[0]) {
			this.#takeOut(0);
			due.push(top);
		}
		for (const item of due) {
			const deadlineMs = item.deadlineMs();
			if (deadlineMs !== undefined && deadlineMs <= nowMs) item.expire(nowMs);
			this.update(item);
		}
		this.#arm();
	}

	#arm(): void {
		const top = this.#heap[0];
		if (top === undefined || this.#timerMs <= top.heapMs) return;
		this.#timer?.cancel();
		this.#timerMs = top.heapMs;
		const delayMs = Math.max(RESOLUTION_MS, Math.ceil(top.heapMs - this.#clock.nowMs()));
		this.#timer = this.#clock.setTimer(delayMs, () => this.#expireDue());
	}

	#disarm(): void {
		this.#timer?.cancel();
		this.#timer = undefined;
		this.#timerMs = Number.POSITIVE_INFINITY;
	}

	#takeOut(at: number): void {
		const item = this.#heap[at];
		const last = this.#heap.pop();
		if (item === undefined || last === undefined) return;
		item.heapIndex = -1;
		if (last === item) return;
		this.#heap[at] = last;
		last.heapIndex = at;
		this.#moveUp(last);
		this.#moveDown(last);
	}

	#moveUp(item: Waiting): void {
		while (item.heapIndex > 0) {
			const parentAt = (item.heapIndex - 1) >> 1;
			const parent = this.#heap[parentAt];
			if (parent === undefined || parent.heapMs <= item.heapMs) return;
			this.#swap(parent, item);
		}
	}

	#moveDown(item: Waiting): void {
		for (;;) {
			const left = this.#heap[2 * item.heapIndex + 1];
			const right = this.#heap[2 * item.heapIndex + 2];
			const least = right !== undefined && left !== undefined && right.heapMs < left.heapMs ? right : left;
			if (least === undefined || least.heapMs >= item.heapMs) return;
			this.#swap(item, least);
		}
	}

	#swap(upper: Waiting, lower: Waiting): void {
		const at = upper.heapIndex;
		upper.heapIndex = lower.heapIndex;
		lower.heapIndex = at;
		this.#heap[at] = lower;
		this.#heap[upper.heapIndex] = upper;
	}
}

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Deadlines, type Waiting } from "../../../../src/relay/flows/deadlines.js";
import { VirtualClock } from "../virtual-clock.js";

class Item implements Waiting {
	heapIndex = -1;
	heapMs = 0;
	atMs: number | undefined;
	readonly firedMs: number[] = [];

	deadlineMs(): number | undefined {
		return this.atMs;
	}

	expire(nowMs: number): void {
		this.firedMs.push(nowMs);
		this.atMs = undefined;
	}
}

describe("deadlines", () => {
	it("fire in the order of their time behind a single timer", () => {
		const clock = new VirtualClock();
		const deadlines = new Deadlines(clock);
		const items = [300, 100, 200].map((atMs) => Object.assign(new Item(), { atMs }));
		for (const item of items) deadlines.update(item);
		expect(clock.pendingTimers).toBe(1);
		clock.advance(1000);
		expect(items.map((item) => item.firedMs)).toEqual([[300], [100], [200]]);
		expect(clock.pendingTimers).toBe(0);
	});

	it("a deadline that moves away is looked at again when its old time comes, and fires at its new one", () => {
		const clock = new VirtualClock();
		const deadlines = new Deadlines(clock);
		const item = Object.assign(new Item(), { atMs: 100 });
		deadlines.update(item);
		item.atMs = 250;
		deadlines.update(item);
		clock.advance(249);
		expect(item.firedMs).toEqual([]);
		clock.advance(1);
		expect(item.firedMs).toEqual([250]);
	});

	it("one that comes nearer fires earlier", () => {
		const clock = new VirtualClock();
		const deadlines = new Deadlines(clock);
		const item = Object.assign(new Item(), { atMs: 1000 });
		deadlines.update(item);
		item.atMs = 10;
		deadlines.update(item);
		clock.advance(10);
		expect(item.firedMs).toEqual([10]);
		expect(clock.pendingTimers).toBe(0);
	});

	it("removing the last one leaves no timer", () => {
		const clock = new VirtualClock();
		const deadlines = new Deadlines(clock);
		const item = Object.assign(new Item(), { atMs: 1000 });
		deadlines.update(item);
		deadlines.remove(item);
		expect(clock.pendingTimers).toBe(0);
		expect(deadlines.size).toBe(0);
	});

	it("under any sequence of changes each item fires at its last deadline, or a step later", () => {
		const change = fc.record({
			item: fc.nat(7),
			delay: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
			remove: fc.boolean(),
			advance: fc.nat(40),
		});
		fc.assert(
			fc.property(fc.array(change, { maxLength: 200 }), (changes) => {
				const clock = new VirtualClock();
				const deadlines = new Deadlines(clock);
				const items = Array.from({ length: 8 }, () => new Item());
				const expected = new Map<Item, number>();
				for (const { item: at, delay, remove, advance } of changes) {
					const item = items[at];
					if (item === undefined) continue;
					if (remove) {
						item.atMs = undefined;
						deadlines.remove(item);
					} else {
						item.atMs = delay === undefined ? undefined : clock.nowMs() + delay;
						deadlines.update(item);
					}
					if (item.atMs === undefined) expected.delete(item);
					else expected.set(item, item.atMs);
					clock.advance(advance);
					for (const [waiting, atMs] of expected) {
						if (atMs > clock.nowMs()) continue;
						expect(waiting.firedMs.at(-1)).toBe(atMs);
						expected.delete(waiting);
					}
					expect(clock.pendingTimers).toBeLessThanOrEqual(1);
				}
				clock.advance(1000);
				expect(clock.pendingTimers).toBe(0);
				expect(deadlines.size).toBe(0);
			}),
			{ seed: 86, numRuns: 300 },
		);
	});
});

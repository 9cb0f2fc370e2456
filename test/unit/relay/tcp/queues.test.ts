import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReceiveQueue } from "../../../../src/relay/flows/receive-queue.js";
import { Scoreboard } from "../../../../src/relay/flows/scoreboard.js";
import { SendQueue } from "../../../../src/relay/flows/send-queue.js";
import { positionOf, sequenceAt } from "../../../../src/relay/flows/tcp-sequence.js";
import { TCP_MAX_SACKED_RANGES } from "../../../../src/relay/limits.js";

const SEED = { seed: 86, numRuns: 300 };

describe("a position", () => {
	it("comes back from its sequence number, wherever the numbers wrap", () => {
		const anyInitial = fc.integer({ min: 0, max: 0xffffffff });
		const anyNear = fc.integer({ min: 0, max: 2 ** 45 });
		fc.assert(
			fc.property(anyInitial, anyNear, fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (initial, near, offset) => {
				expect(positionOf(sequenceAt(initial, near + offset), initial, near)).toBe(near + offset);
			}),
			SEED,
		);
	});
});

describe("the send queue", () => {
	it("gives back any range of what was put in, whatever the chunks", () => {
		const chunk = fc.oneof(fc.integer({ min: 0, max: 10 }), fc.integer({ min: 0, max: 6000 }));
		fc.assert(
			fc.property(fc.array(chunk, { maxLength: 60 }), fc.array(fc.nat(9999), { maxLength: 60 }), (sizes, numbers) => {
				const queue = new SendQueue();
				let all = Buffer.alloc(0);
				sizes.forEach((size, index) => {
					const bytes = Buffer.alloc(size, index);
					all = Buffer.concat([all, bytes]);
					queue.append(bytes);
					const number = numbers[index % Math.max(1, numbers.length)] ?? 0;
					queue.release(queue.start + (number % (1 + queue.end - queue.start)) / 3);
					queue.release(Math.floor(queue.start));
					const start = Math.ceil(queue.start);
					if (start >= queue.end) return;
					const from = start + (number % (queue.end - start));
					const length = 1 + (number % (queue.end - from));
					const read = Buffer.from(queue.read(from, length));
					expect(read.equals(all.subarray(from - 1, from - 1 + length))).toBe(true);
				});
				expect(queue.end).toBe(1 + all.length);
			}),
			SEED,
		);
	});
});

describe("the receive queue", () => {
	it("gives out each byte once, in order, as it first came", () => {
		const piece = fc.record({ start: fc.nat(80), length: fc.nat(30) });
		fc.assert(
			fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
				const queue = new ReceiveQueue();
				const model = new Map<number, number>();
				pieces.forEach(({ start, length }, mark) => {
					queue.add(10 + start, new Uint8Array(length).fill(mark));
					for (let at = 10 + start; at < 10 + start + length; at++) if (!model.has(at)) model.set(at, mark);
				});
				const covered = queue
					.ranges(1000)
					.flatMap(([start, end]) => Array.from({ length: end - start }, (_, at) => start + at));
				expect(covered.sort((a, b) => a - b)).toEqual([...model.keys()].sort((a, b) => a - b));
				for (let position = 10; position < 130; ) {
					const taken = queue.take(position);
					if (taken === undefined) {
						expect(model.has(position)).toBe(false);
						position += 1;
					} else {
						for (const mark of taken) expect(mark).toBe(model.get(position++));
					}
				}
				expect(queue.isEmpty).toBe(true);
			}),
			SEED,
		);
	});
});

describe("the scoreboard", () => {
	it("agrees with a set of bytes", () => {
		const step = fc.record({ start: fc.nat(100), length: fc.integer({ min: 1, max: 30 }), release: fc.boolean() });
		fc.assert(
			fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
				const board = new Scoreboard();
				const model = new Set<number>();
				for (const { start, length, release } of steps) {
					if (release) {
						board.release(start);
						for (const at of model) if (at < start) model.delete(at);
					} else {
						const before = model.size;
						for (let at = start; at < start + length; at++) model.add(at);
						expect(board.add(start, start + length)).toBe(model.size - before);
					}
					expect(board.bytes).toBe(model.size);
					expect(board.end).toBe(model.size === 0 ? 0 : Math.max(...model) + 1);
					const inside = [...model].filter((at) => at >= start && at < start + length).length;
					expect(board.bytesIn(start, start + length)).toBe(inside);
					const free = board.skip(start);
					let expected = start;
					while (model.has(expected)) expected += 1;
					expect(free).toBe(expected);
					const later = [...model].filter((at) => at > free);
					expect(board.nextStart(free)).toBe(later.length === 0 ? Number.POSITIVE_INFINITY : Math.min(...later));
				}
			}),
			SEED,
		);
	});

	it("remembers a bounded number of ranges", () => {
		const board = new Scoreboard();
		for (let range = 0; range < 1000; range++) board.add(10 + 2 * range, 11 + 2 * range);
		expect(board.bytes).toBe(TCP_MAX_SACKED_RANGES);
	});
});

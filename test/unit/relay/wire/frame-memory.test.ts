import fc from "fast-check";
import { expect, test } from "vitest";
import { frameMemory } from "../../../../src/relay/wire/frame-memory.js";

test("every frame has memory of its own, whatever the sizes", () => {
	fc.assert(
		fc.property(fc.array(fc.oneof(fc.nat(2000), fc.nat(70_000)), { maxLength: 100 }), (sizes) => {
			const frames = sizes.map((size) => frameMemory(size));
			for (const [at, frame] of frames.entries()) frame.fill(at);
			expect(frames.map((frame) => frame.length)).toEqual(sizes);
			for (const [at, frame] of frames.entries()) expect(frame.every((byte) => byte === at)).toBe(true);
		}),
		{ seed: 86, numRuns: 50 },
	);
});

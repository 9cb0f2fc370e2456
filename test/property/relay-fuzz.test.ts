import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { guestFrames } from "../fuzz/capture-frames.js";
import { fuzzRelay } from "../fuzz/relay-fuzzer.js";

const FRAMES = 100_000;

describe("the relay under frames grown from captures", () => {
	it("never throws, stays in bounds, and leaves nothing behind", async () => {
		const captured = guestFrames(join(import.meta.dirname, "../captures"));
		expect(captured.length).toBeGreaterThan(100);
		const report = await fuzzRelay(captured, FRAMES, 86);
		// It got past the first look: connections were made, and carried data.
		expect(report.contacts).toBeGreaterThan(100);
		expect(report.carriedBytes).toBeGreaterThan(100_000);
	}, 120_000);
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { OutputCapture } from "../../src/vm/output-capture.js";

describe("output capture", () => {
	it("keeps everything up to its bound, then the first and the last half, and counts the rest", () => {
		fc.assert(
			fc.property(fc.integer({ min: 2, max: 64 }), fc.array(fc.uint8Array({ maxLength: 40 })), (bound, chunks) => {
				const capture = new OutputCapture(bound);
				for (const chunk of chunks) capture.push(chunk);
				const whole = Buffer.concat(chunks);
				const { head, tail, omittedBytes } = capture.result();
				expect(head.length + omittedBytes + tail.length).toBe(whole.length);
				expect(Buffer.from(head).equals(whole.subarray(0, head.length))).toBe(true);
				expect(Buffer.from(tail).equals(whole.subarray(whole.length - tail.length))).toBe(true);
				expect(omittedBytes).toBe(Math.max(0, whole.length - bound));
			}),
		);
	});
});

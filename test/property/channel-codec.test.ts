import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAX_PAYLOAD_BYTES, parseFrame, serializeFrame } from "../../src/vm/channel/frame.js";
import {
	parseCount,
	parseFailure,
	parseHello,
	parseReadDone,
	parseRunDone,
	parseWriteDone,
} from "../../src/vm/channel/messages.js";

const u32 = fc.integer({ min: 0, max: 0xffffffff });

describe("channel codec", () => {
	it("parses back what it serialized", () => {
		fc.assert(
			fc.property(
				fc.integer({ min: 0, max: 255 }),
				u32,
				u32,
				fc.uint8Array({ maxLength: 2000 }),
				(type, call, consumed, payload) => {
					const parsed = parseFrame(serializeFrame(type, call, payload, consumed));
					expect(parsed).toEqual({ ok: true, value: { type, call, consumed, payload } });
				},
			),
		);
		const largest = new Uint8Array(MAX_PAYLOAD_BYTES).fill(7);
		expect(parseFrame(serializeFrame(1, 2, largest))).toEqual({
			ok: true,
			value: { type: 1, call: 2, consumed: 0, payload: largest },
		});
	});

	it("never throws on random bytes", () => {
		const parsers = [parseFrame, parseHello, parseRunDone, parseReadDone, parseWriteDone, parseFailure, parseCount];
		fc.assert(
			fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
				for (const parse of parsers) expect(typeof parse(bytes).ok).toBe("boolean");
			}),
		);
	});
});

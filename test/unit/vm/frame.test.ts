import { describe, expect, it } from "vitest";
import { HEADER_BYTES, MAX_PAYLOAD_BYTES, parseFrame, serializeFrame } from "../../../src/vm/channel/frame.js";

describe("frame codec", () => {
	it("puts type, call, length and count where the format says", () => {
		expect([...serializeFrame(0x82, 0x01020304, Uint8Array.of(9, 8), 0x0506)]).toEqual([
			0x82, 0, 0, 0, 4, 3, 2, 1, 2, 0, 0, 0, 6, 5, 0, 0, 9, 8,
		]);
	});

	it("refuses to make a frame above the payload bound", () => {
		expect(() => serializeFrame(1, 1, new Uint8Array(MAX_PAYLOAD_BYTES + 1))).toThrow(/at most 16384/);
	});

	it.each([
		["shorter than a header", new Uint8Array(15), /shorter than its header/],
		["reserved bytes set", header({ 1: 1 }), /reserved/],
		["a reserved word set", header({ 2: 1 }), /reserved/],
		["a length beyond the bound", header({ 8: 1, 9: 0x40 }), /exceeds/],
		["a length that the bytes do not have", header({ 8: 1 }), /0 came/],
	])("answers %s with a reason instead of throwing", (_what, bytes, reason) => {
		const parsed = parseFrame(bytes);
		expect(parsed).toEqual({ ok: false, reason: expect.stringMatching(reason) });
	});
});

/** A header of an OUT frame for call 0 without payload, with these bytes changed. */
function header(changed: Record<number, number>): Uint8Array {
	return Uint8Array.from({ ...changed, 0: 0x82, length: HEADER_BYTES }, (byte) => byte ?? 0);
}

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PREAMBLE_BYTES, parseHeader, parsePreamble, serializeHeader } from "../../src/vm/snapshot/format.js";

const hex = (length: number) =>
	fc.string({ unit: fc.constantFrom(..."0123456789abcdef"), minLength: length, maxLength: length });
const header = fc.record(
	{
		id: hex(8).map((digits) => `s-20260102-030405-${digits}`),
		name: fc.stringMatching(/^[A-Za-z0-9._-]{1,64}$/),
		description: fc.string({ unit: "binary", maxLength: 300 }),
		created: fc.date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) }).map((date) => date.toISOString()),
		imageName: fc.constantFrom("tiny", "base"),
		imageDigest: hex(64),
		memoryMiB: fc.integer({ min: 64, max: 2047 }),
		emulatorVersion: fc.constant("0.5.462"),
		openFlows: fc.array(
			fc.record({
				protocol: fc.constant("tcp" as const),
				guestPort: fc.integer({ min: 1, max: 65_535 }),
				remoteAddress: fc.ipV4(),
				remotePort: fc.integer({ min: 1, max: 65_535 }),
			}),
			{ maxLength: 5 },
		),
		stateBytes: fc.nat(2 ** 31 - 1),
		stateSha256: hex(64),
	},
	{
		requiredKeys: [
			"id",
			"created",
			"imageName",
			"imageDigest",
			"memoryMiB",
			"emulatorVersion",
			"openFlows",
			"stateBytes",
			"stateSha256",
		],
	},
);

describe("the snapshot header", () => {
	it("reads back as it was written, padded or not, and with a state behind it", () => {
		fc.assert(
			fc.property(header, fc.nat(500), fc.uint8Array(), (value, padding, state) => {
				const bytes = serializeHeader(value);
				expect(parseHeader(bytes)).toEqual({ ok: true, value });
				const padded = serializeHeader(value, bytes.length - PREAMBLE_BYTES + padding);
				expect(parseHeader(Buffer.concat([padded, state]))).toEqual({ ok: true, value });
			}),
		);
	});

	it("shows every flipped bit", () => {
		fc.assert(
			fc.property(header, fc.nat(), (value, position) => {
				const bytes = serializeHeader(value);
				const bit = position % (bytes.length * 8);
				bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
				expect(parseHeader(bytes).ok).toBe(false);
			}),
		);
	});

	it("shows where it was cut off", () => {
		fc.assert(
			fc.property(header, fc.nat(), (value, length) => {
				const bytes = serializeHeader(value);
				expect(parseHeader(bytes.subarray(0, length % bytes.length)).ok).toBe(false);
			}),
		);
	});

	it("never throws, whatever the bytes", () => {
		const start = serializeHeader(fc.sample(header, 1)[0] as Parameters<typeof serializeHeader>[0]);
		fc.assert(
			fc.property(fc.nat(start.length), fc.uint8Array({ maxLength: 200 }), (kept, garbage) => {
				expect(parseHeader(Buffer.concat([start.subarray(0, kept), garbage])).ok || kept === start.length).toBeTypeOf(
					"boolean",
				);
			}),
		);
	});

	it("is not believed when it claims to be large", () => {
		const bytes = serializeHeader(fc.sample(header, 1)[0] as Parameters<typeof serializeHeader>[0]);
		bytes.writeUInt32LE(0xffffffff, 12);
		expect(parsePreamble(bytes)).toMatchObject({
			ok: false,
			reason: expect.stringContaining("claims 4294967295 bytes"),
		});
		bytes.writeUInt32LE(2, 8);
		expect(parsePreamble(bytes)).toMatchObject({ ok: false, reason: expect.stringContaining("version 2") });
	});
});

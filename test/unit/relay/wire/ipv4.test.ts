import { describe, expect, it } from "vitest";
import { fragmentIpv4 } from "../../../../src/relay/wire/fragment.js";
import { parseIpv4Packet, writeIpv4Header } from "../../../../src/relay/wire/ipv4.js";
import { accepted, fromHex } from "./frames.js";

/** The header with checksum b861 that textbooks compute, and the 95 bytes that it announces. */
const PACKET = new Uint8Array(0x73);
PACKET.set(fromHex("4500 0073 0000 4000 4011 b861 c0a80001 c0a800c7"));

/** Header options of `words` 32-bit words, behind a correct header. */
function withOptions(words: number): Uint8Array {
	const bytes = new Uint8Array(20 + words * 4 + 5);
	writeIpv4Header(bytes, 0, {
		source: 1,
		destination: 2,
		protocol: 17,
		payloadBytes: words * 4 + 5,
		identification: 3,
	});
	bytes[0] = 0x40 | (5 + words);
	const checksum = ((bytes[10] ?? 0) << 8) | (bytes[11] ?? 0);
	// One more in the first word is one less in the complement.
	const changed = checksum - words * 0x100;
	bytes[10] = changed >> 8;
	bytes[11] = changed;
	return bytes;
}

describe("an IPv4 packet", () => {
	it("is read field by field", () => {
		expect(accepted(parseIpv4Packet(PACKET))).toMatchObject({
			source: 0xc0a80001,
			destination: 0xc0a800c7,
			protocol: 17,
			timeToLive: 64,
			identification: 0,
			dontFragment: true,
			moreFragments: false,
			fragmentOffset: 0,
		});
	});

	it("is written with the same header", () => {
		const bytes = new Uint8Array(24).fill(0xee);
		writeIpv4Header(bytes, 2, {
			source: 0xc0a80001,
			destination: 0xc0a800c7,
			protocol: 17,
			payloadBytes: 95,
			identification: 0,
			dontFragment: true,
		});
		expect(bytes.subarray(2, 22)).toEqual(PACKET.subarray(0, 20));
		expect([bytes[1], bytes[22]]).toEqual([0xee, 0xee]);
	});

	it("ends at its total length, whatever padding follows", () => {
		const padded = new Uint8Array(PACKET.length + 30).fill(0xaa);
		padded.set(PACKET);
		expect(accepted(parseIpv4Packet(padded)).payload).toEqual(PACKET.subarray(20));
	});

	it.each([1, 5, 10])("with %d words of options has its payload behind them", (words) => {
		const packet = accepted(parseIpv4Packet(withOptions(words)));
		expect(packet.payload).toHaveLength(5);
		expect(packet.header).toHaveLength(20 + words * 4);
	});

	it("is refused when cut anywhere", () => {
		for (let length = 0; length < PACKET.length; length++) {
			expect(parseIpv4Packet(PACKET.subarray(0, length)).ok).toBe(false);
		}
	});

	it("is refused when any bit of its header is wrong", () => {
		for (let bit = 0; bit < 160; bit++) {
			const wrong = PACKET.slice();
			wrong[bit >> 3] = (wrong[bit >> 3] ?? 0) ^ (1 << (bit & 7));
			expect(parseIpv4Packet(wrong).ok).toBe(false);
		}
	});

	it("is refused when it says that it is shorter than its header", () => {
		expect(parseIpv4Packet(fromHex("4500 0013 0000 4000 4011 b8c1 c0a80001 c0a800c7"))).toEqual({
			ok: false,
			reason: "IPv4 lengths contradict each other",
		});
	});
});

describe("a payload in fragments", () => {
	it("is one piece when it fits", () => {
		const payload = new Uint8Array(1480);
		expect(fragmentIpv4(payload, 1500)).toEqual([{ payload, fragmentOffset: 0, moreFragments: false }]);
	});

	it("is cut at multiples of eight bytes", () => {
		const pieces = fragmentIpv4(new Uint8Array(3000), 1499);
		expect(
			pieces.map(({ payload, fragmentOffset, moreFragments }) => [fragmentOffset, payload.length, moreFragments]),
		).toEqual([
			[0, 1472, true],
			[1472, 1472, true],
			[2944, 56, false],
		]);
	});
});

import { describe, expect, it } from "vitest";
import { foldChecksum, pseudoHeaderSum, sumWords } from "../../../../src/relay/wire/checksum.js";
import { parseEthernetFrame } from "../../../../src/relay/wire/ethernet.js";
import { parseIpv4Packet } from "../../../../src/relay/wire/ipv4.js";
import {
	NO_TCP_OPTIONS,
	parseTcpSegment,
	serializeTcpFrame,
	TCP_ACK,
	TCP_PSH,
	TCP_SYN,
	type TcpOptions,
	type TcpSegment,
	tcpHeaderBytes,
	writeTcpSegment,
} from "../../../../src/relay/wire/tcp.js";
import { accepted, fromHex } from "./frames.js";

const SOURCE = 0x0a00020f;
const DESTINATION = 0x5db8d822;
const SEGMENT: TcpSegment = {
	sourcePort: 40_000,
	destinationPort: 443,
	sequence: 0xffffffff,
	acknowledgment: 0x80000000,
	flags: TCP_ACK | TCP_PSH,
	window: 0xfaf0,
	options: NO_TCP_OPTIONS,
	payload: Uint8Array.of(1, 2, 3, 4, 5),
};

/** A segment whose header has these option bytes, with a correct checksum, and one byte of payload. */
function withOptionBytes(hex: string): Uint8Array {
	const options = fromHex(hex);
	const bytes = new Uint8Array(20 + options.length + 1).fill(0x77, 20 + options.length);
	bytes[12] = ((20 + options.length) / 4) << 4;
	bytes.set(options, 20);
	const checksum = foldChecksum(
		sumWords(bytes, 0, bytes.length, pseudoHeaderSum(SOURCE, DESTINATION, 6, bytes.length)),
	);
	bytes.set([checksum >> 8, checksum & 255], 16);
	return bytes;
}

function optionsOf(hex: string): TcpOptions {
	return accepted(parseTcpSegment(withOptionBytes(hex), SOURCE, DESTINATION)).options;
}

function written(segment: TcpSegment): Uint8Array {
	const bytes = new Uint8Array(tcpHeaderBytes(segment.options) + segment.payload.length);
	expect(writeTcpSegment(bytes, 0, segment, SOURCE, DESTINATION)).toBe(bytes.length);
	return bytes;
}

describe("a TCP segment", () => {
	it("has its fields where RFC 9293 3.1 draws them", () => {
		const bytes = written(SEGMENT);
		expect(bytes.subarray(0, 16)).toEqual(fromHex("9c40 01bb ffffffff 80000000 50 18 faf0"));
		expect(bytes.subarray(18)).toEqual(fromHex("0000 0102030405"));
		expect(accepted(parseTcpSegment(bytes, SOURCE, DESTINATION))).toEqual(SEGMENT);
	});

	it("without options has the shared empty object", () => {
		expect(accepted(parseTcpSegment(written(SEGMENT), SOURCE, DESTINATION)).options).toBe(NO_TCP_OPTIONS);
		expect(tcpHeaderBytes(NO_TCP_OPTIONS)).toBe(20);
	});

	it("is refused when any bit is wrong", () => {
		const bytes = written(SEGMENT);
		for (let bit = 0; bit < bytes.length * 8; bit++) {
			const wrong = bytes.slice();
			wrong[bit >> 3] = (wrong[bit >> 3] ?? 0) ^ (1 << (bit & 7));
			expect(parseTcpSegment(wrong, SOURCE, DESTINATION).ok).toBe(false);
		}
	});

	it("is refused when cut inside its header", () => {
		const bytes = written({ ...SEGMENT, options: { maximumSegmentSize: 1460 } });
		for (let length = 0; length < 24; length++) {
			expect(parseTcpSegment(bytes.subarray(0, length), SOURCE, DESTINATION).ok).toBe(false);
		}
	});

	it("is written at any place of a longer array and leaves the rest alone", () => {
		for (const at of [1, 2, 3]) {
			const bytes = new Uint8Array(40).fill(0xee);
			const length = writeTcpSegment(bytes, at, SEGMENT, SOURCE, DESTINATION);
			expect(bytes.slice(at, at + length)).toEqual(written(SEGMENT));
			expect([bytes[at - 1], bytes[at + length]]).toEqual([0xee, 0xee]);
		}
	});

	it("in a frame stands behind both headers", () => {
		const frame = serializeTcpFrame({
			segment: SEGMENT,
			source: SOURCE,
			destination: DESTINATION,
			sourceMac: 0x525400123502,
			destinationMac: 0x525400aabbcc,
			identification: 7,
		});
		expect(frame).toHaveLength(14 + 20 + 20 + 5);
		const ethernet = accepted(parseEthernetFrame(frame));
		expect(ethernet).toMatchObject({ source: 0x525400123502, destination: 0x525400aabbcc, etherType: 0x0800 });
		const packet = accepted(parseIpv4Packet(ethernet.payload));
		expect(packet).toMatchObject({ source: SOURCE, destination: DESTINATION, identification: 7, dontFragment: true });
		expect(accepted(parseTcpSegment(packet.payload, SOURCE, DESTINATION))).toEqual(SEGMENT);
	});
});

describe("the options of a TCP segment", () => {
	it("are those of a Linux SYN", () => {
		expect(optionsOf("0204 05b4 0402 080a 00000001 00000000 01 0303 07")).toEqual({
			maximumSegmentSize: 1460,
			sackPermitted: true,
			timestamp: { value: 1, echo: 0 },
			windowScale: 7,
		});
	});

	it("are written so that they can be read", () => {
		const options: TcpOptions = { maximumSegmentSize: 65_481, windowScale: 9, sackPermitted: true };
		const segment: TcpSegment = { ...SEGMENT, flags: TCP_SYN, options };
		expect(accepted(parseTcpSegment(written(segment), SOURCE, DESTINATION))).toEqual(segment);
		expect(tcpHeaderBytes(options)).toBe(32);
	});

	it("tell what has arrived, across the wrap of sequence numbers", () => {
		const sack = [[0xfffffff0, 0x10] as const, [0x20, 0x30] as const];
		expect(optionsOf("0101 0512 fffffff0 00000010 00000020 00000030")).toEqual({ sack });
		const segment: TcpSegment = { ...SEGMENT, options: { sack } };
		expect(accepted(parseTcpSegment(written(segment), SOURCE, DESTINATION)).options).toEqual({ sack });
	});

	it.each([
		["a length of 0", "0200 05b4"],
		["a length of 1", "0201 05b4"],
		["a length over the header's end", "0101 0204"],
		["a kind without a length at the end", "0101 0102"],
		["an end of the list before it", "0002 0405"],
	])("with %s are left, the segment is kept", (_, hex) => {
		const segment = accepted(parseTcpSegment(withOptionBytes(hex), SOURCE, DESTINATION));
		expect(segment.options).toEqual({});
		expect(segment.payload).toEqual(Uint8Array.of(0x77));
	});

	it("that are unknown or have another length than theirs are skipped", () => {
		expect(optionsOf("fe04 0000 0203 01 0303 02 0101")).toEqual({ windowScale: 2 });
		expect(optionsOf("0507 0000000000 01")).toEqual({});
	});

	it("that came before a malformed one count", () => {
		expect(optionsOf("0303 05 0800 0000")).toEqual({ windowScale: 5 });
	});
});

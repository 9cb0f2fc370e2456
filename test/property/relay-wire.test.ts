import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Reassembly } from "../../src/relay/flows/reassembly.js";
import { sequenceAt } from "../../src/relay/flows/tcp-sequence.js";
import { REASSEMBLY_MAX_BYTES } from "../../src/relay/limits.js";
import { formatIpv4Address, parseIpv4Address, readMac, writeMac } from "../../src/relay/wire/address.js";
import { parseArpPacket, serializeArpPacket } from "../../src/relay/wire/arp.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "../../src/relay/wire/bytes.js";
import { foldChecksum, sumWords } from "../../src/relay/wire/checksum.js";
import { parseDhcpMessage, serializeDhcpMessage } from "../../src/relay/wire/dhcp.js";
import { ETHERTYPE_IPV4, parseEthernetFrame, serializeEthernetFrame } from "../../src/relay/wire/ethernet.js";
import { fragmentIpv4 } from "../../src/relay/wire/fragment.js";
import { parseIcmpMessage, serializeIcmpMessage, timeExceeded } from "../../src/relay/wire/icmp.js";
import { type Ipv4Packet, parseIpv4Packet, writeIpv4Header } from "../../src/relay/wire/ipv4.js";
import {
	NO_TCP_OPTIONS,
	parseTcpSegment,
	serializeTcpFrame,
	type TcpOptions,
	type TcpSegment,
	tcpHeaderBytes,
} from "../../src/relay/wire/tcp.js";
import { parseUdpDatagram, serializeUdpDatagram } from "../../src/relay/wire/udp.js";

const SEED = 0x50_36;
const RUNS = { seed: SEED, numRuns: 300 };

const byte = fc.integer({ min: 0, max: 0xff });
const uint16 = fc.integer({ min: 0, max: 0xffff });
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const mac = fc.integer({ min: 0, max: 0xffff_ffff_ffff });
const payload = fc.uint8Array({ maxLength: 300 });

/** Options that fit into the 40 bytes of a header: three ranges with a timestamp. */
const options: fc.Arbitrary<TcpOptions> = fc.oneof(
	fc.constant(NO_TCP_OPTIONS),
	fc.record(
		{ maximumSegmentSize: uint16, windowScale: byte, sackPermitted: fc.constant(true as const) },
		{ requiredKeys: [] },
	),
	fc.record(
		{
			timestamp: fc.record({ value: uint32, echo: uint32 }),
			sack: fc.array(fc.tuple(uint32, uint32), { minLength: 1, maxLength: 3 }),
		},
		{ requiredKeys: [] },
	),
);
const tcpSegment: fc.Arbitrary<TcpSegment> = fc.record({
	sourcePort: uint16,
	destinationPort: uint16,
	sequence: uint32,
	acknowledgment: uint32,
	flags: fc.integer({ min: 0, max: 63 }),
	window: uint16,
	options,
	payload,
});
const tcpFrame = fc.record({
	segment: tcpSegment,
	source: uint32,
	destination: uint32,
	sourceMac: mac,
	destinationMac: mac,
	identification: uint16,
});
const datagram = fc.record({ sourcePort: uint16, destinationPort: uint16, payload });
const arpPacket = fc.record({
	operation: fc.constantFrom("request" as const, "reply" as const),
	senderMac: mac,
	senderAddress: uint32,
	targetMac: mac,
	targetAddress: uint32,
});
const dhcpMessage = fc.record({
	operation: fc.constantFrom("request" as const, "reply" as const),
	transaction: uint32,
	seconds: uint16,
	flags: uint16,
	clientAddress: uint32,
	yourAddress: uint32,
	serverAddress: uint32,
	gatewayAddress: uint32,
	clientMac: mac,
	options: fc
		.array(fc.tuple(fc.integer({ min: 1, max: 254 }), fc.uint8Array({ maxLength: 255 })), { maxLength: 12 })
		.map((entries) => new Map(entries)),
});

/** RFC 1071 as it is told: byte after byte, the carry brought round at once. */
function bytewiseChecksum(bytes: Uint8Array): number {
	let sum = 0;
	for (const [at, value] of bytes.entries()) {
		sum += at % 2 === 0 ? value * 256 : value;
		if (sum > 0xffff) sum -= 0xffff;
	}
	return 0xffff - sum;
}

function accepted<T>(parsed: { ok: true; value: T } | { ok: false; reason: string }): T {
	if (!parsed.ok) throw new Error(parsed.reason);
	return parsed.value;
}

/** All layers of a frame, as far as they parse; with what must be true of each. */
function parseAll(frame: Uint8Array): { packet?: Ipv4Packet; segment?: TcpSegment } {
	const ethernet = parseEthernetFrame(frame);
	if (!ethernet.ok) return {};
	expect(ethernet.value.payload.length).toBe(frame.length - 14);
	for (const parse of [parseArpPacket, parseIcmpMessage, parseDhcpMessage]) parse(ethernet.value.payload);
	const ipv4 = parseIpv4Packet(ethernet.value.payload);
	if (!ipv4.ok) return {};
	const packet = ipv4.value;
	expect(packet.header.length + packet.payload.length).toBe(readUint16(ethernet.value.payload, 2));
	expect(timeExceeded(packet).length).toBeLessThanOrEqual(556);
	for (const parse of [parseArpPacket, parseIcmpMessage, parseDhcpMessage]) parse(packet.payload);
	const udp = parseUdpDatagram(packet.payload, packet.source, packet.destination);
	if (udp.ok) expect(udp.value.payload.length).toBeLessThanOrEqual(packet.payload.length - 8);
	const tcp = parseTcpSegment(packet.payload, packet.source, packet.destination);
	if (!tcp.ok) return { packet };
	expect(tcp.value.payload.length).toBeLessThanOrEqual(packet.payload.length - 20);
	return { packet, segment: tcp.value };
}

/** `frame` with right checksums again, as an attacker would send it. */
function withRightChecksums(frame: Uint8Array): Uint8Array {
	const headerBytes = ((frame[14] ?? 0) & 15) * 4;
	const end = Math.min(frame.length, 14 + readUint16(frame, 16));
	const start = 14 + headerBytes;
	if (start + 20 > end) return frame;
	writeUint16(frame, 24, 0);
	writeUint16(frame, 24, foldChecksum(sumWords(frame, 14, start)));
	const pseudo = Uint8Array.of(...frame.subarray(26, 34), 0, 6, (end - start) >> 8, end - start);
	writeUint16(frame, start + 16, 0);
	writeUint16(frame, start + 16, foldChecksum(sumWords(frame, start, end, sumWords(pseudo, 0, 12))));
	return frame;
}

describe("the checksum", () => {
	it("is that of the bytewise sum, at any place and of any length", () => {
		const bytes = fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ minLength: 100, maxLength: 2000 }));
		fc.assert(
			fc.property(bytes, fc.nat(9), fc.nat(9), fc.nat(5), (data, before, skip, after) => {
				const memory = new Uint8Array(before + data.length + after).fill(0xa5);
				memory.set(data, before);
				const view = memory.subarray(Math.min(before, skip));
				const start = before - Math.min(before, skip);
				expect(foldChecksum(sumWords(view, start, start + data.length))).toBe(bytewiseChecksum(data));
			}),
			{ ...RUNS, numRuns: 1000 },
		);
	});

	it("of parts, summed one after the other, is that of the whole", () => {
		fc.assert(
			fc.property(fc.uint8Array({ maxLength: 1000 }), fc.nat(500), (data, half) => {
				const middle = Math.min(half * 2, data.length);
				const sum = sumWords(data, middle, data.length, sumWords(data, 0, middle));
				expect(foldChecksum(sum)).toBe(bytewiseChecksum(data));
			}),
			RUNS,
		);
	});

	it("of the longest packets is that of the bytewise sum", () => {
		fc.assert(
			fc.property(fc.integer({ min: 65_400, max: 65_535 }), fc.nat(3), byte, (length, at, step) => {
				const memory = Uint8Array.from({ length: length + at }, (_, index) => 255 - ((index * step) % 7));
				expect(foldChecksum(sumWords(memory, at, at + length))).toBe(bytewiseChecksum(memory.subarray(at)));
			}),
			{ ...RUNS, numRuns: 20 },
		);
	});
});

describe("what was serialized parses to itself", () => {
	it("addresses and integers", () => {
		fc.assert(
			fc.property(uint32, mac, uint16, fc.nat(6), (address, hardware, short, at) => {
				expect(parseIpv4Address(formatIpv4Address(address))).toBe(address);
				const bytes = new Uint8Array(12);
				writeMac(bytes, at, hardware);
				expect(readMac(bytes, at)).toBe(hardware);
				writeUint32(bytes, at, address);
				expect(readUint32(bytes, at)).toBe(address);
				writeUint16(bytes, at, short);
				expect(readUint16(bytes, at)).toBe(short);
			}),
			RUNS,
		);
	});

	it("texts that are addresses are their only spelling", () => {
		const text = fc.stringMatching(/^[0-9.]{0,16}$/);
		fc.assert(
			fc.property(text, (spelling) => {
				const address = parseIpv4Address(spelling);
				if (address !== undefined) expect(formatIpv4Address(address)).toBe(spelling);
			}),
			RUNS,
		);
	});

	it("Ethernet frames", () => {
		const frame = fc.record({ destination: mac, source: mac, etherType: uint16, payload });
		fc.assert(
			fc.property(frame, (value) => {
				expect(accepted(parseEthernetFrame(serializeEthernetFrame(value)))).toEqual(value);
			}),
			RUNS,
		);
	});

	it("ARP packets", () => {
		fc.assert(
			fc.property(arpPacket, (value) => {
				expect(accepted(parseArpPacket(serializeArpPacket(value)))).toEqual(value);
			}),
			RUNS,
		);
	});

	it("IPv4 headers, whatever padding follows", () => {
		const header = fc.record({
			source: uint32,
			destination: uint32,
			protocol: byte,
			identification: uint16,
			timeToLive: byte,
			dontFragment: fc.boolean(),
			moreFragments: fc.boolean(),
			fragmentOffset: fc.nat(0x1fff).map((units) => units * 8),
		});
		fc.assert(
			fc.property(header, payload, fc.uint8Array({ maxLength: 46 }), (value, data, padding) => {
				const bytes = new Uint8Array(20 + data.length + padding.length);
				writeIpv4Header(bytes, 0, { ...value, payloadBytes: data.length });
				bytes.set(data, 20);
				bytes.set(padding, 20 + data.length);
				const expected = { ...value, payload: data, header: bytes.subarray(0, 20) };
				expect(accepted(parseIpv4Packet(bytes))).toEqual(expected);
			}),
			RUNS,
		);
	});

	it("ICMP messages", () => {
		const message = fc.record({ type: byte, code: byte, rest: uint32, payload });
		fc.assert(
			fc.property(message, (value) => {
				expect(accepted(parseIcmpMessage(serializeIcmpMessage(value)))).toEqual(value);
			}),
			RUNS,
		);
	});

	it("UDP datagrams, always with a checksum", () => {
		fc.assert(
			fc.property(datagram, uint32, uint32, (value, source, destination) => {
				const bytes = serializeUdpDatagram(value, source, destination);
				expect(readUint16(bytes, 6)).not.toBe(0);
				expect(accepted(parseUdpDatagram(bytes, source, destination))).toEqual(value);
			}),
			RUNS,
		);
	});

	it("TCP segments in their frames, whatever padding follows", () => {
		fc.assert(
			fc.property(tcpFrame, fc.uint8Array({ maxLength: 46 }), (value, padding) => {
				const frame = serializeTcpFrame(value);
				expect(frame).toHaveLength(34 + tcpHeaderBytes(value.segment.options) + value.segment.payload.length);
				const padded = Uint8Array.of(...frame, ...padding);
				const ethernet = accepted(parseEthernetFrame(padded));
				expect(ethernet.etherType).toBe(ETHERTYPE_IPV4);
				const { packet, segment } = parseAll(padded);
				expect(packet).toMatchObject({ source: value.source, destination: value.destination });
				expect(segment).toEqual(value.segment);
			}),
			RUNS,
		);
	});

	it("TCP sequence numbers across their wrap", () => {
		fc.assert(
			fc.property(tcpFrame, fc.nat(200), fc.nat(200), (value, before, after) => {
				const initial = sequenceAt(0, -before);
				const sequence = sequenceAt(initial, before + after);
				expect(sequence).toBe(after);
				for (const edge of [initial, sequence, 0xffff_ffff, 0x8000_0000, 0x7fff_ffff]) {
					const segment = { ...value.segment, sequence: edge, acknowledgment: edge };
					expect(parseAll(serializeTcpFrame({ ...value, segment })).segment).toEqual(segment);
				}
			}),
			{ ...RUNS, numRuns: 100 },
		);
	});

	it("DHCP messages", () => {
		fc.assert(
			fc.property(dhcpMessage, (value) => {
				expect(accepted(parseDhcpMessage(serializeDhcpMessage(value)))).toEqual(value);
			}),
			RUNS,
		);
	});
});

describe("hostile bytes", () => {
	it("never make a parser throw when they are random", () => {
		fc.assert(
			fc.property(fc.uint8Array({ maxLength: 700 }), uint32, uint32, (bytes, source, destination) => {
				parseAll(bytes);
				parseAll(Buffer.from(bytes));
				parseTcpSegment(bytes, source, destination);
				parseUdpDatagram(bytes, source, destination);
				parseDhcpMessage(bytes);
			}),
			{ ...RUNS, numRuns: 2000 },
		);
	});

	it("never make a parser throw when they are a frame with some bytes changed, its checksums right again", () => {
		const changes = fc.array(fc.tuple(fc.nat(90), byte), { maxLength: 6 });
		let parsedSegments = 0;
		fc.assert(
			fc.property(tcpFrame, changes, fc.boolean(), (value, changed, isSummed) => {
				const frame = serializeTcpFrame(value);
				for (const [at, replacement] of changed) if (at < frame.length) frame[at] = replacement;
				if (parseAll(isSummed ? withRightChecksums(frame) : frame).segment !== undefined) parsedSegments += 1;
			}),
			{ ...RUNS, numRuns: 2000 },
		);
		// The changes reach what lies behind the checksums.
		expect(parsedSegments).toBeGreaterThan(500);
	});

	it("of TCP options never give more than the header holds", () => {
		fc.assert(
			fc.property(fc.integer({ min: 6, max: 15 }), fc.uint8Array({ minLength: 40, maxLength: 60 }), (words, tail) => {
				const frame = serializeTcpFrame({
					segment: {
						sourcePort: 1,
						destinationPort: 2,
						sequence: 3,
						acknowledgment: 4,
						flags: 16,
						window: 5,
						options: NO_TCP_OPTIONS,
						payload: tail,
					},
					source: 6,
					destination: 7,
					sourceMac: 8,
					destinationMac: 9,
					identification: 10,
				});
				frame[46] = words << 4;
				const { segment } = parseAll(withRightChecksums(frame));
				expect(segment?.payload).toEqual(tail.subarray(words * 4 - 20));
				expect(segment?.options.sack?.length ?? 0).toBeLessThanOrEqual(4);
			}),
			{ ...RUNS, numRuns: 1000 },
		);
	});

	it("that are a cut frame are refused or make a consistent value", () => {
		fc.assert(
			fc.property(tcpFrame, (value) => {
				const frame = serializeTcpFrame(value);
				for (let length = 0; length < frame.length; length++) {
					expect(parseAll(frame.subarray(0, length))).toEqual({});
				}
			}),
			{ ...RUNS, numRuns: 30 },
		);
	});

	it("that are a cut message are refused, or have what was cut missing", () => {
		fc.assert(
			fc.property(datagram, arpPacket, dhcpMessage, (udp, arp, dhcp) => {
				const cuts = (bytes: Uint8Array) => Array.from(bytes, (_, length) => bytes.subarray(0, length));
				for (const cut of cuts(serializeUdpDatagram(udp, 1, 2))) expect(parseUdpDatagram(cut, 1, 2).ok).toBe(false);
				for (const cut of cuts(serializeArpPacket(arp))) expect(parseArpPacket(cut).ok).toBe(false);
				for (const cut of cuts(serializeDhcpMessage(dhcp))) {
					const parsed = parseDhcpMessage(cut);
					if (!parsed.ok) continue;
					for (const [code, option] of parsed.value.options) expect(option).toEqual(dhcp.options.get(code));
				}
			}),
			{ ...RUNS, numRuns: 15 },
		);
	});
});

describe("a payload in fragments", () => {
	const packetOf = (data: Uint8Array, offset: number, moreFragments: boolean, identification: number): Ipv4Packet => {
		const bytes = new Uint8Array(20 + data.length);
		writeIpv4Header(bytes, 0, {
			source: 1,
			destination: 2,
			protocol: 17,
			payloadBytes: data.length,
			identification,
			moreFragments,
			fragmentOffset: offset,
		});
		bytes.set(data, 20);
		return accepted(parseIpv4Packet(bytes));
	};

	it("is whole again in any order, with some of the fragments doubled", () => {
		const plan = fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 3000 }), fc.integer({ min: 68, max: 1500 }));
		fc.assert(
			fc.property(plan, fc.infiniteStream(fc.nat(1000)), ([data, mtu], ranks) => {
				const pieces = fragmentIpv4(data, mtu);
				for (const piece of pieces) expect(piece.payload.length).toBeLessThanOrEqual(mtu - 20);
				const shuffled = pieces
					.map((piece) => ({ piece, rank: ranks.next().value ?? 0 }))
					.sort((a, b) => a.rank - b.rank)
					.flatMap(({ piece, rank }, at) => (rank % 3 === 0 && at < pieces.length - 1 ? [piece, piece] : [piece]));
				const reassembly = new Reassembly();
				const results = shuffled.map((piece) =>
					reassembly.add(packetOf(piece.payload, piece.fragmentOffset, piece.moreFragments, 9), 0),
				);
				expect(results.pop()?.payload).toEqual(data);
				expect(results.every((result) => result === undefined)).toBe(true);
				expect(reassembly.waitingBytes).toBe(0);
			}),
			{ ...RUNS, numRuns: 200 },
		);
	});

	it("never holds more than its bound, whatever fragments come", () => {
		const piece = fc.record({
			identification: fc.nat(40),
			offset: fc.nat(0x1fff).map((units) => units * 8),
			length: fc.oneof(fc.nat(40), fc.nat(8000), fc.constant(65_000)),
			moreFragments: fc.boolean(),
			passedMs: fc.nat(3000),
		});
		fc.assert(
			fc.property(fc.array(piece, { maxLength: 100 }), (pieces) => {
				const reassembly = new Reassembly();
				let nowMs = 0;
				for (const { identification, offset, length, moreFragments, passedMs } of pieces) {
					nowMs += passedMs;
					const whole = reassembly.add(packetOf(new Uint8Array(length), offset, moreFragments, identification), nowMs);
					if (whole !== undefined) expect(whole.payload.length).toBeLessThanOrEqual(65_515);
					expect(reassembly.waitingBytes).toBeGreaterThanOrEqual(0);
					expect(reassembly.waitingBytes).toBeLessThanOrEqual(REASSEMBLY_MAX_BYTES);
				}
			}),
			{ ...RUNS, numRuns: 100 },
		);
	});
});

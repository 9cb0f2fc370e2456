import { describe, expect, it } from "vitest";
import {
	destinationUnreachable,
	ICMP_PORT_UNREACHABLE,
	isIcmpError,
	parseIcmpMessage,
	serializeIcmpMessage,
	timeExceeded,
} from "../../../../src/relay/wire/icmp.js";
import type { Ipv4Packet } from "../../../../src/relay/wire/ipv4.js";
import { parseUdpDatagram, serializeUdpDatagram } from "../../../../src/relay/wire/udp.js";
import { accepted, fromHex } from "./frames.js";

function packetOf(headerBytes: number, payloadBytes: number): Ipv4Packet {
	return {
		source: 1,
		destination: 2,
		protocol: 17,
		timeToLive: 1,
		identification: 3,
		dontFragment: false,
		moreFragments: false,
		fragmentOffset: 0,
		header: new Uint8Array(headerBytes).fill(0x45),
		payload: new Uint8Array(payloadBytes).fill(0x99),
	};
}

describe("an ICMP message", () => {
	it("is read field by field, and written the same", () => {
		// 0800+0001+0001+0203 = 0a05
		const echo = fromHex("0800 f5fa 0001 0001 0203");
		const message = accepted(parseIcmpMessage(echo));
		expect(message).toEqual({ type: 8, code: 0, rest: 0x00010001, payload: Uint8Array.of(2, 3) });
		expect(serializeIcmpMessage(message)).toEqual(echo);
	});

	it("is refused with a wrong checksum or a part of its header", () => {
		expect(parseIcmpMessage(fromHex("0800 0000 0001 0001")).ok).toBe(false);
		expect(parseIcmpMessage(fromHex("0800 f7fd 0001")).ok).toBe(false);
	});

	it("about a packet quotes its header and the start of its payload", () => {
		const message = accepted(parseIcmpMessage(destinationUnreachable(packetOf(24, 8), ICMP_PORT_UNREACHABLE)));
		expect(message).toMatchObject({ type: 3, code: 3, rest: 0 });
		expect(message.payload).toEqual(Uint8Array.of(...new Array(24).fill(0x45), ...new Array(8).fill(0x99)));
		expect(accepted(parseIcmpMessage(timeExceeded(packetOf(20, 8))))).toMatchObject({ type: 11, code: 0 });
	});

	it.each([20, 60])("about a long packet with a header of %d bytes makes a packet of 576", (headerBytes) => {
		expect(20 + timeExceeded(packetOf(headerBytes, 9000)).length).toBe(576);
	});

	it("is no error when it is an echo or its answer", () => {
		expect([0, 8].map((type) => isIcmpError(Uint8Array.of(type, 0)))).toEqual([false, false]);
		expect([3, 4, 5, 11, 12].map((type) => isIcmpError(Uint8Array.of(type, 0)))).toEqual(new Array(5).fill(true));
	});
});

describe("a UDP datagram", () => {
	const SOURCE = 0x0a00020f;
	const DESTINATION = 0x0a000203;

	it("is written with ports, length and checksum, and read the same", () => {
		const datagram = { sourcePort: 0x1234, destinationPort: 53, payload: Uint8Array.of(1, 2, 3) };
		const bytes = serializeUdpDatagram(datagram, SOURCE, DESTINATION);
		// 0a00+020f+0a00+0203+0011+000b + 1234+0035+000b+0102+0300 = 2ea4
		expect(bytes).toEqual(fromHex("1234 0035 000b d15b 010203"));
		expect(accepted(parseUdpDatagram(bytes, SOURCE, DESTINATION))).toEqual(datagram);
	});

	it("is refused at another address than the one that it was summed for", () => {
		const bytes = serializeUdpDatagram({ sourcePort: 1, destinationPort: 2, payload: new Uint8Array(0) }, SOURCE, 5);
		expect(parseUdpDatagram(bytes, SOURCE, 6).ok).toBe(false);
	});

	it("without a checksum is taken", () => {
		expect(parseUdpDatagram(fromHex("1234 0035 0009 0000 7f"), SOURCE, DESTINATION).ok).toBe(true);
	});

	it("never says that it has no checksum", () => {
		const bytes = serializeUdpDatagram(
			{ sourcePort: 0, destinationPort: 0, payload: new Uint8Array(0) },
			0xffd50000,
			9,
		);
		expect(bytes.subarray(6)).toEqual(Uint8Array.of(0xff, 0xff));
		expect(parseUdpDatagram(bytes, 0xffd50000, 9).ok).toBe(true);
	});

	it("ends at its own length", () => {
		const bytes = fromHex("1234 0035 0009 0000 7f aaaaaa");
		expect(accepted(parseUdpDatagram(bytes, SOURCE, DESTINATION)).payload).toEqual(Uint8Array.of(0x7f));
	});

	it.each(["0007", "000a", "0000", "ffff"])("of 9 bytes with the length %s is refused", (length) => {
		expect(parseUdpDatagram(fromHex(`1234 0035 ${length} 0000 7f`), SOURCE, DESTINATION).ok).toBe(false);
	});
});

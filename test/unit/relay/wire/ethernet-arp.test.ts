import { describe, expect, it } from "vitest";
import { BROADCAST_MAC, GATEWAY_ADDRESS, GUEST_ADDRESS } from "../../../../src/relay/addresses.js";
import { parseArpPacket, serializeArpPacket } from "../../../../src/relay/wire/arp.js";
import { ETHERTYPE_ARP, parseEthernetFrame, serializeEthernetFrame } from "../../../../src/relay/wire/ethernet.js";
import { accepted, fromHex } from "./frames.js";

const REQUEST = fromHex(`
	ffffffffffff 525400123456 0806
	0001 0800 06 04 0001 525400123456 0a00020f 000000000000 0a000202
`);

describe("an ARP request in an Ethernet frame", () => {
	it("is read field by field, and written the same", () => {
		const frame = accepted(parseEthernetFrame(REQUEST));
		expect(frame).toMatchObject({ destination: BROADCAST_MAC, source: 0x525400123456, etherType: ETHERTYPE_ARP });
		const packet = accepted(parseArpPacket(frame.payload));
		expect(packet).toEqual({
			operation: "request",
			senderMac: 0x525400123456,
			senderAddress: GUEST_ADDRESS,
			targetMac: 0,
			targetAddress: GATEWAY_ADDRESS,
		});
		expect(serializeEthernetFrame({ ...frame, payload: serializeArpPacket(packet) })).toEqual(REQUEST);
	});

	it("may be padded to the 60 bytes of the shortest frame", () => {
		const padded = new Uint8Array(60);
		padded.set(REQUEST);
		expect(parseArpPacket(accepted(parseEthernetFrame(padded)).payload).ok).toBe(true);
	});

	it("is refused when cut", () => {
		for (let length = 0; length < 14; length++) expect(parseEthernetFrame(REQUEST.subarray(0, length)).ok).toBe(false);
		for (let length = 14; length < REQUEST.length; length++) {
			expect(parseArpPacket(REQUEST.subarray(14, length)).ok).toBe(false);
		}
	});

	it.each([
		["hardware", 0, 6],
		["protocol", 2, 0x86],
		["length of a hardware address", 4, 8],
		["length of a protocol address", 5, 16],
		["operation", 7, 3],
	])("is refused with another %s", (_, at, value) => {
		const packet = REQUEST.slice(14);
		packet[at] = value;
		expect(parseArpPacket(packet).ok).toBe(false);
	});

	it("has a payload that is a view of the frame", () => {
		expect(accepted(parseEthernetFrame(REQUEST)).payload.buffer).toBe(REQUEST.buffer);
	});
});

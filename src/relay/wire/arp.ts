import type { Parsed } from "../../parsed.js";
import type { Ipv4, Mac } from "../addresses.js";
import { readMac, writeMac } from "./address.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "./bytes.js";

// RFC 826: hardware(2) protocol(2) hlen(1) plen(1) operation(2) sender mac(6) sender ip(4) target mac(6) target ip(4)
const PROTOCOL_OFFSET = 2;
const LENGTHS_OFFSET = 4;
const OPERATION_OFFSET = 6;
const SENDER_MAC_OFFSET = 8;
const SENDER_ADDRESS_OFFSET = 14;
const TARGET_MAC_OFFSET = 18;
const TARGET_ADDRESS_OFFSET = 24;
const ARP_BYTES = 28;

const HARDWARE_ETHERNET = 1;
const PROTOCOL_IPV4 = 0x0800;
/** 6 bytes of MAC, 4 of address. */
const LENGTHS = 0x0604;
const REQUEST = 1;
const REPLY = 2;

export interface ArpPacket {
	readonly operation: "request" | "reply";
	readonly senderMac: Mac;
	readonly senderAddress: Ipv4;
	readonly targetMac: Mac;
	readonly targetAddress: Ipv4;
}

export function parseArpPacket(bytes: Uint8Array): Parsed<ArpPacket> {
	if (bytes.length < ARP_BYTES) return { ok: false, reason: "ARP packet too short" };
	if (
		readUint16(bytes, 0) !== HARDWARE_ETHERNET ||
		readUint16(bytes, PROTOCOL_OFFSET) !== PROTOCOL_IPV4 ||
		readUint16(bytes, LENGTHS_OFFSET) !== LENGTHS
	) {
		return { ok: false, reason: "ARP for something else than IPv4 on Ethernet" };
	}
	const operation = readUint16(bytes, OPERATION_OFFSET);
	if (operation !== REQUEST && operation !== REPLY) return { ok: false, reason: "unknown ARP operation" };
	return {
		ok: true,
		value: {
			operation: operation === REQUEST ? "request" : "reply",
			senderMac: readMac(bytes, SENDER_MAC_OFFSET),
			senderAddress: readUint32(bytes, SENDER_ADDRESS_OFFSET),
			targetMac: readMac(bytes, TARGET_MAC_OFFSET),
			targetAddress: readUint32(bytes, TARGET_ADDRESS_OFFSET),
		},
	};
}

export function serializeArpPacket(packet: ArpPacket): Uint8Array {
	const bytes = new Uint8Array(ARP_BYTES);
	writeUint16(bytes, 0, HARDWARE_ETHERNET);
	writeUint16(bytes, PROTOCOL_OFFSET, PROTOCOL_IPV4);
	writeUint16(bytes, LENGTHS_OFFSET, LENGTHS);
	writeUint16(bytes, OPERATION_OFFSET, packet.operation === "request" ? REQUEST : REPLY);
	writeMac(bytes, SENDER_MAC_OFFSET, packet.senderMac);
	writeUint32(bytes, SENDER_ADDRESS_OFFSET, packet.senderAddress);
	writeMac(bytes, TARGET_MAC_OFFSET, packet.targetMac);
	writeUint32(bytes, TARGET_ADDRESS_OFFSET, packet.targetAddress);
	return bytes;
}

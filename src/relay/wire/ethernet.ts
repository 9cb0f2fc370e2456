import type { Parsed } from "../../parsed.js";
import type { Mac } from "../addresses.js";
import { readMac, writeMac } from "./address.js";
import { readUint16, writeUint16 } from "./bytes.js";

// Ethernet II (RFC 894): destination(6) source(6) type(2), then the payload; no FCS
const SOURCE_OFFSET = 6;
const TYPE_OFFSET = 12;
export const ETHERNET_HEADER_BYTES = 14;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_IPV6 = 0x86dd;

export interface EthernetFrame {
	readonly destination: Mac;
	readonly source: Mac;
	readonly etherType: number;
	/** A view of the frame; may be followed by padding. */
	readonly payload: Uint8Array;
}

export function parseEthernetFrame(bytes: Uint8Array): Parsed<EthernetFrame> {
	if (bytes.length < ETHERNET_HEADER_BYTES) return { ok: false, reason: "frame shorter than its header" };
	return {
		ok: true,
		value: {
			destination: readMac(bytes, 0),
			source: readMac(bytes, SOURCE_OFFSET),
			etherType: readUint16(bytes, TYPE_OFFSET),
			payload: bytes.subarray(ETHERNET_HEADER_BYTES),
		},
	};
}

export function writeEthernetHeader(bytes: Uint8Array, destination: Mac, source: Mac, etherType: number): void {
	writeMac(bytes, 0, destination);
	writeMac(bytes, SOURCE_OFFSET, source);
	writeUint16(bytes, TYPE_OFFSET, etherType);
}

export function serializeEthernetFrame(frame: EthernetFrame): Uint8Array {
	const bytes = new Uint8Array(ETHERNET_HEADER_BYTES + frame.payload.length);
	writeEthernetHeader(bytes, frame.destination, frame.source, frame.etherType);
	bytes.set(frame.payload, ETHERNET_HEADER_BYTES);
	return bytes;
}

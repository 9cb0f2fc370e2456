import type { Parsed } from "../../parsed.js";
import type { Ipv4 } from "../addresses.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "./bytes.js";
import { foldChecksum, sumWords } from "./checksum.js";

// RFC 791 3.1: version and header length(1) service(1) total length(2) identification(2) flags and fragment offset(2)
// time to live(1) protocol(1) header checksum(2) source(4) destination(4), then options
const TOTAL_LENGTH_OFFSET = 2;
const IDENTIFICATION_OFFSET = 4;
const FRAGMENT_OFFSET = 6;
const TIME_TO_LIVE_OFFSET = 8;
const PROTOCOL_OFFSET = 9;
const CHECKSUM_OFFSET = 10;
const SOURCE_OFFSET = 12;
const DESTINATION_OFFSET = 16;
export const IPV4_HEADER_BYTES = 20;

const VERSION = 4;
const DONT_FRAGMENT = 0x4000;
const MORE_FRAGMENTS = 0x2000;
const FRAGMENT_OFFSET_MASK = 0x1fff;
/** The fragment offset counts units of so many bytes. */
export const FRAGMENT_UNIT_BYTES = 8;
const DEFAULT_TIME_TO_LIVE = 64;

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

export interface Ipv4Packet {
	readonly source: Ipv4;
	readonly destination: Ipv4;
	readonly protocol: number;
	readonly timeToLive: number;
	readonly identification: number;
	readonly dontFragment: boolean;
	readonly moreFragments: boolean;
	/** Bytes. */
	readonly fragmentOffset: number;
	/** A view, without the padding of a short frame. */
	readonly payload: Uint8Array;
	/** A view of the header with its options, as ICMP errors quote it. */
	readonly header: Uint8Array;
}

/** The header's checksum is verified; options are skipped. */
export function parseIpv4Packet(bytes: Uint8Array): Parsed<Ipv4Packet> {
	if (bytes.length < IPV4_HEADER_BYTES) return { ok: false, reason: "IPv4 packet shorter than its header" };
	const first = bytes[0] ?? 0;
	const headerBytes = (first & 15) * 4;
	if (first >>> 4 !== VERSION) return { ok: false, reason: "not version 4" };
	const totalLength = readUint16(bytes, TOTAL_LENGTH_OFFSET);
	if (headerBytes < IPV4_HEADER_BYTES || headerBytes > totalLength || totalLength > bytes.length) {
		return { ok: false, reason: "IPv4 lengths contradict each other" };
	}
	if (foldChecksum(sumWords(bytes, 0, headerBytes)) !== 0) return { ok: false, reason: "wrong IPv4 header checksum" };
	const fragment = readUint16(bytes, FRAGMENT_OFFSET);
	return {
		ok: true,
		value: {
			source: readUint32(bytes, SOURCE_OFFSET),
			destination: readUint32(bytes, DESTINATION_OFFSET),
			protocol: bytes[PROTOCOL_OFFSET] ?? 0,
			timeToLive: bytes[TIME_TO_LIVE_OFFSET] ?? 0,
			identification: readUint16(bytes, IDENTIFICATION_OFFSET),
			dontFragment: (fragment & DONT_FRAGMENT) !== 0,
			moreFragments: (fragment & MORE_FRAGMENTS) !== 0,
			fragmentOffset: (fragment & FRAGMENT_OFFSET_MASK) * FRAGMENT_UNIT_BYTES,
			payload: bytes.subarray(headerBytes, totalLength),
			header: bytes.subarray(0, headerBytes),
		},
	};
}

export interface Ipv4Header {
	readonly source: Ipv4;
	readonly destination: Ipv4;
	readonly protocol: number;
	readonly payloadBytes: number;
	readonly identification: number;
	readonly timeToLive?: number;
	readonly dontFragment?: boolean;
	readonly moreFragments?: boolean;
	/** Bytes, a multiple of 8. */
	readonly fragmentOffset?: number;
}

/** Writes IPV4_HEADER_BYTES at `at`, with the checksum. */
export function writeIpv4Header(bytes: Uint8Array, at: number, header: Ipv4Header): void {
	bytes[at] = (VERSION << 4) | (IPV4_HEADER_BYTES / 4);
	bytes[at + 1] = 0;
	writeUint16(bytes, at + TOTAL_LENGTH_OFFSET, IPV4_HEADER_BYTES + header.payloadBytes);
	writeUint16(bytes, at + IDENTIFICATION_OFFSET, header.identification);
	writeUint16(
		bytes,
		at + FRAGMENT_OFFSET,
		(header.dontFragment === true ? DONT_FRAGMENT : 0) |
			(header.moreFragments === true ? MORE_FRAGMENTS : 0) |
			((header.fragmentOffset ?? 0) / FRAGMENT_UNIT_BYTES),
	);
	bytes[at + TIME_TO_LIVE_OFFSET] = header.timeToLive ?? DEFAULT_TIME_TO_LIVE;
	bytes[at + PROTOCOL_OFFSET] = header.protocol;
	writeUint16(bytes, at + CHECKSUM_OFFSET, 0);
	writeUint32(bytes, at + SOURCE_OFFSET, header.source);
	writeUint32(bytes, at + DESTINATION_OFFSET, header.destination);
	writeUint16(bytes, at + CHECKSUM_OFFSET, foldChecksum(sumWords(bytes, at, at + IPV4_HEADER_BYTES)));
}

import type { Parsed } from "../../parsed.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "./bytes.js";
import { foldChecksum, sumWords } from "./checksum.js";
import { IPV4_HEADER_BYTES, type Ipv4Packet } from "./ipv4.js";

// RFC 792: type(1) code(1) checksum(2) rest(4), then data
const CHECKSUM_OFFSET = 2;
const REST_OFFSET = 4;
export const ICMP_HEADER_BYTES = 8;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_DESTINATION_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMP_TIME_EXCEEDED = 11;

/** Codes of "destination unreachable" (RFC 792, RFC 1812 5.2.7.1). */
export const ICMP_HOST_UNREACHABLE = 1;
export const ICMP_PORT_UNREACHABLE = 3;
export const ICMP_ADMINISTRATIVELY_PROHIBITED = 13;

/** What an error quotes at least of what is behind a packet's header (RFC 792). */
const QUOTED_PAYLOAD_BYTES = 8;
/** What it quotes of a packet at most: it is no longer than 576 bytes itself (RFC 1812 4.3.2.3). */
const QUOTED_BYTES = 576 - IPV4_HEADER_BYTES - ICMP_HEADER_BYTES;

export interface IcmpMessage {
	readonly type: number;
	readonly code: number;
	/** The four bytes behind the checksum: identifier and sequence number of an echo. */
	readonly rest: number;
	/** A view. */
	readonly payload: Uint8Array;
}

/** The checksum is verified. */
export function parseIcmpMessage(bytes: Uint8Array): Parsed<IcmpMessage> {
	if (bytes.length < ICMP_HEADER_BYTES) return { ok: false, reason: "ICMP message too short" };
	if (foldChecksum(sumWords(bytes, 0, bytes.length)) !== 0) return { ok: false, reason: "wrong ICMP checksum" };
	return {
		ok: true,
		value: {
			type: bytes[0] ?? 0,
			code: bytes[1] ?? 0,
			rest: readUint32(bytes, REST_OFFSET),
			payload: bytes.subarray(ICMP_HEADER_BYTES),
		},
	};
}

export function serializeIcmpMessage(message: IcmpMessage): Uint8Array {
	const bytes = new Uint8Array(ICMP_HEADER_BYTES + message.payload.length);
	bytes[0] = message.type;
	bytes[1] = message.code;
	writeUint32(bytes, REST_OFFSET, message.rest);
	bytes.set(message.payload, ICMP_HEADER_BYTES);
	writeUint16(bytes, CHECKSUM_OFFSET, foldChecksum(sumWords(bytes, 0, bytes.length)));
	return bytes;
}

/** "Destination unreachable" for `original`, as bytes. */
export function destinationUnreachable(original: Ipv4Packet, code: number): Uint8Array {
	return errorAbout(original, ICMP_DESTINATION_UNREACHABLE, code);
}

/** "Time to live exceeded in transit" for `original`, as bytes. */
export function timeExceeded(original: Ipv4Packet): Uint8Array {
	return errorAbout(original, ICMP_TIME_EXCEEDED, 0);
}

/** As much of a packet as an error about it quotes at least (RFC 792), kept: `original` may be a view of a frame. */
export function quotable(original: Ipv4Packet): Ipv4Packet {
	return { ...original, header: original.header.slice(), payload: original.payload.slice(0, QUOTED_PAYLOAD_BYTES) };
}

function errorAbout({ header, payload }: Ipv4Packet, type: number, code: number): Uint8Array {
	const shown = payload.subarray(0, QUOTED_BYTES - header.length);
	const quoted = new Uint8Array(header.length + shown.length);
	quoted.set(header);
	quoted.set(shown, header.length);
	return serializeIcmpMessage({ type, code, rest: 0, payload: quoted });
}

/** Whether a message is an error: no error is ever sent about one (RFC 1122 3.2.2). */
export function isIcmpError(bytes: Uint8Array): boolean {
	const type = readUint16(bytes, 0) >>> 8;
	return type !== ICMP_ECHO_REPLY && type !== ICMP_ECHO_REQUEST;
}

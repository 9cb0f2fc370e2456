import type { Parsed } from "../../parsed.js";
import type { Ipv4 } from "../addresses.js";
import { readUint16, writeUint16 } from "./bytes.js";
import { foldChecksum, pseudoHeaderSum, sumWords } from "./checksum.js";
import { PROTOCOL_UDP } from "./ipv4.js";

// RFC 768: source port(2) destination port(2) length(2) checksum(2), then data
const DESTINATION_PORT_OFFSET = 2;
const LENGTH_OFFSET = 4;
const CHECKSUM_OFFSET = 6;
export const UDP_HEADER_BYTES = 8;

export interface UdpDatagram {
	readonly sourcePort: number;
	readonly destinationPort: number;
	/** A view. */
	readonly payload: Uint8Array;
}

/** The checksum is verified; 0 means that there is none. */
export function parseUdpDatagram(bytes: Uint8Array, source: Ipv4, destination: Ipv4): Parsed<UdpDatagram> {
	if (bytes.length < UDP_HEADER_BYTES) return { ok: false, reason: "UDP datagram shorter than its header" };
	const length = readUint16(bytes, LENGTH_OFFSET);
	if (length < UDP_HEADER_BYTES || length > bytes.length) return { ok: false, reason: "wrong UDP length" };
	if (readUint16(bytes, CHECKSUM_OFFSET) !== 0) {
		const sum = sumWords(bytes, 0, length, pseudoHeaderSum(source, destination, PROTOCOL_UDP, length));
		if (foldChecksum(sum) !== 0) return { ok: false, reason: "wrong UDP checksum" };
	}
	return {
		ok: true,
		value: {
			sourcePort: readUint16(bytes, 0),
			destinationPort: readUint16(bytes, DESTINATION_PORT_OFFSET),
			payload: bytes.subarray(UDP_HEADER_BYTES, length),
		},
	};
}

export function serializeUdpDatagram(datagram: UdpDatagram, source: Ipv4, destination: Ipv4): Uint8Array {
	const length = UDP_HEADER_BYTES + datagram.payload.length;
	const bytes = new Uint8Array(length);
	writeUint16(bytes, 0, datagram.sourcePort);
	writeUint16(bytes, DESTINATION_PORT_OFFSET, datagram.destinationPort);
	writeUint16(bytes, LENGTH_OFFSET, length);
	bytes.set(datagram.payload, UDP_HEADER_BYTES);
	const checksum = foldChecksum(sumWords(bytes, 0, length, pseudoHeaderSum(source, destination, PROTOCOL_UDP, length)));
	// A computed 0 is sent as its other form, as 0 stands for "none".
	writeUint16(bytes, CHECKSUM_OFFSET, checksum === 0 ? 0xffff : checksum);
	return bytes;
}

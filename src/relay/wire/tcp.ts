import type { Parsed } from "../../parsed.js";
import type { Ipv4, Mac } from "../addresses.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "./bytes.js";
import { foldChecksum, pseudoHeaderSum, sumWords } from "./checksum.js";
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, writeEthernetHeader } from "./ethernet.js";
import { frameMemory } from "./frame-memory.js";
import { IPV4_HEADER_BYTES, PROTOCOL_TCP, writeIpv4Header } from "./ipv4.js";

// RFC 9293 3.1: source port(2) destination port(2) sequence(4) acknowledgment(4) data offset(1) flags(1) window(2)
// checksum(2) urgent pointer(2), then options
const DESTINATION_PORT_OFFSET = 2;
const SEQUENCE_OFFSET = 4;
const ACKNOWLEDGMENT_OFFSET = 8;
const DATA_OFFSET_OFFSET = 12;
const FLAGS_OFFSET = 13;
const WINDOW_OFFSET = 14;
const CHECKSUM_OFFSET = 16;
export const TCP_HEADER_BYTES = 20;

export const TCP_FIN = 1;
export const TCP_SYN = 2;
export const TCP_RST = 4;
export const TCP_PSH = 8;
export const TCP_ACK = 16;

/** Option kinds and lengths: RFC 9293 3.2, RFC 7323, RFC 2018. */
const OPTION_END = 0;
const OPTION_NONE = 1;
const OPTION_SEGMENT_SIZE = 2;
const OPTION_WINDOW_SCALE = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
const OPTION_TIMESTAMP = 8;
const SEGMENT_SIZE_BYTES = 4;
const WINDOW_SCALE_BYTES = 3;
const SACK_PERMITTED_BYTES = 2;
const SACK_HEAD_BYTES = 2;
const SACK_RANGE_BYTES = 8;
const TIMESTAMP_BYTES = 10;

export interface TcpOptions {
	readonly maximumSegmentSize?: number;
	/** Bits to shift. */
	readonly windowScale?: number;
	readonly sackPermitted?: true;
	/** Ranges that have arrived: first sequence number and the one after the last. */
	readonly sack?: readonly (readonly [left: number, right: number])[];
	readonly timestamp?: { readonly value: number; readonly echo: number };
}

export interface TcpSegment {
	readonly sourcePort: number;
	readonly destinationPort: number;
	readonly sequence: number;
	readonly acknowledgment: number;
	/** TCP_FIN … TCP_ACK; the urgent flag (32) is read and ignored. */
	readonly flags: number;
	/** As in the header, not scaled. */
	readonly window: number;
	readonly options: TcpOptions;
	/** A view. */
	readonly payload: Uint8Array;
}

/** The options of a segment that has none. */
export const NO_TCP_OPTIONS: TcpOptions = Object.freeze({});

/** The checksum is verified. Options that make no sense end the list of options, not the segment. */
export function parseTcpSegment(bytes: Uint8Array, source: Ipv4, destination: Ipv4): Parsed<TcpSegment> {
	if (bytes.length < TCP_HEADER_BYTES) return { ok: false, reason: "TCP segment shorter than its header" };
	const headerBytes = ((bytes[DATA_OFFSET_OFFSET] ?? 0) >>> 4) * 4;
	if (headerBytes < TCP_HEADER_BYTES || headerBytes > bytes.length)
		return { ok: false, reason: "wrong TCP data offset" };
	const sum = sumWords(bytes, 0, bytes.length, pseudoHeaderSum(source, destination, PROTOCOL_TCP, bytes.length));
	if (foldChecksum(sum) !== 0) return { ok: false, reason: "wrong TCP checksum" };
	return {
		ok: true,
		value: {
			sourcePort: readUint16(bytes, 0),
			destinationPort: readUint16(bytes, DESTINATION_PORT_OFFSET),
			sequence: readUint32(bytes, SEQUENCE_OFFSET),
			acknowledgment: readUint32(bytes, ACKNOWLEDGMENT_OFFSET),
			flags: (bytes[FLAGS_OFFSET] ?? 0) & 0x3f,
			window: readUint16(bytes, WINDOW_OFFSET),
			options: headerBytes === TCP_HEADER_BYTES ? NO_TCP_OPTIONS : parseOptions(bytes, headerBytes),
			payload: bytes.subarray(headerBytes),
		},
	};
}

function parseOptions(bytes: Uint8Array, end: number): TcpOptions {
	const options: { -readonly [K in keyof TcpOptions]: TcpOptions[K] } = {};
	let at = TCP_HEADER_BYTES;
	while (at < end) {
		const kind = bytes[at] ?? OPTION_END;
		if (kind === OPTION_END) break;
		if (kind === OPTION_NONE) {
			at += 1;
			continue;
		}
		const length = bytes[at + 1] ?? 0;
		if (length < 2 || at + length > end) break;
		if (kind === OPTION_SEGMENT_SIZE && length === SEGMENT_SIZE_BYTES) {
			options.maximumSegmentSize = readUint16(bytes, at + 2);
		} else if (kind === OPTION_WINDOW_SCALE && length === WINDOW_SCALE_BYTES) {
			options.windowScale = bytes[at + 2] ?? 0;
		} else if (kind === OPTION_SACK_PERMITTED && length === SACK_PERMITTED_BYTES) {
			options.sackPermitted = true;
		} else if (kind === OPTION_SACK && (length - SACK_HEAD_BYTES) % SACK_RANGE_BYTES === 0) {
			const ranges: [number, number][] = [];
			for (let range = at + SACK_HEAD_BYTES; range < at + length; range += SACK_RANGE_BYTES) {
				ranges.push([readUint32(bytes, range), readUint32(bytes, range + 4)]);
			}
			options.sack = ranges;
		} else if (kind === OPTION_TIMESTAMP && length === TIMESTAMP_BYTES) {
			options.timestamp = { value: readUint32(bytes, at + 2), echo: readUint32(bytes, at + 6) };
		}
		at += length;
	}
	return options;
}

/** Bytes of a header with these options, padded to whole words. */
export function tcpHeaderBytes(options: TcpOptions): number {
	if (options === NO_TCP_OPTIONS) return TCP_HEADER_BYTES;
	const bytes =
		(options.maximumSegmentSize === undefined ? 0 : SEGMENT_SIZE_BYTES) +
		(options.windowScale === undefined ? 0 : WINDOW_SCALE_BYTES) +
		(options.sackPermitted === undefined ? 0 : SACK_PERMITTED_BYTES) +
		(options.timestamp === undefined ? 0 : TIMESTAMP_BYTES) +
		(options.sack === undefined ? 0 : SACK_HEAD_BYTES + options.sack.length * SACK_RANGE_BYTES);
	return TCP_HEADER_BYTES + ((bytes + 3) & ~3);
}

/** Writes header, options and payload at `at`, with the checksum; gives the bytes written. */
export function writeTcpSegment(
	bytes: Uint8Array,
	at: number,
	segment: TcpSegment,
	source: Ipv4,
	destination: Ipv4,
): number {
	const headerBytes = tcpHeaderBytes(segment.options);
	const length = headerBytes + segment.payload.length;
	writeUint16(bytes, at, segment.sourcePort);
	writeUint16(bytes, at + DESTINATION_PORT_OFFSET, segment.destinationPort);
	writeUint32(bytes, at + SEQUENCE_OFFSET, segment.sequence);
	writeUint32(bytes, at + ACKNOWLEDGMENT_OFFSET, segment.acknowledgment);
	bytes[at + DATA_OFFSET_OFFSET] = (headerBytes / 4) << 4;
	bytes[at + FLAGS_OFFSET] = segment.flags;
	writeUint16(bytes, at + WINDOW_OFFSET, segment.window);
	writeUint32(bytes, at + CHECKSUM_OFFSET, 0);
	if (headerBytes > TCP_HEADER_BYTES) writeOptions(bytes, at + TCP_HEADER_BYTES, at + headerBytes, segment.options);
	bytes.set(segment.payload, at + headerBytes);
	const sum = sumWords(bytes, at, at + length, pseudoHeaderSum(source, destination, PROTOCOL_TCP, length));
	writeUint16(bytes, at + CHECKSUM_OFFSET, foldChecksum(sum));
	return length;
}

function writeOptions(bytes: Uint8Array, start: number, end: number, options: TcpOptions): void {
	let at = start;
	const begin = (kind: number, length: number) => {
		bytes[at] = kind;
		bytes[at + 1] = length;
		at += length;
		return at - length + 2;
	};
	if (options.maximumSegmentSize !== undefined) {
		writeUint16(bytes, begin(OPTION_SEGMENT_SIZE, SEGMENT_SIZE_BYTES), options.maximumSegmentSize);
	}
	if (options.windowScale !== undefined) bytes[begin(OPTION_WINDOW_SCALE, WINDOW_SCALE_BYTES)] = options.windowScale;
	if (options.sackPermitted !== undefined) begin(OPTION_SACK_PERMITTED, SACK_PERMITTED_BYTES);
	if (options.timestamp !== undefined) {
		const value = begin(OPTION_TIMESTAMP, TIMESTAMP_BYTES);
		writeUint32(bytes, value, options.timestamp.value);
		writeUint32(bytes, value + 4, options.timestamp.echo);
	}
	if (options.sack !== undefined) {
		let range = begin(OPTION_SACK, SACK_HEAD_BYTES + options.sack.length * SACK_RANGE_BYTES);
		for (const [left, right] of options.sack) {
			writeUint32(bytes, range, left);
			writeUint32(bytes, range + 4, right);
			range += SACK_RANGE_BYTES;
		}
	}
	bytes.fill(OPTION_END, at, end);
}

export interface TcpFrame {
	readonly segment: TcpSegment;
	readonly source: Ipv4;
	readonly destination: Ipv4;
	readonly sourceMac: Mac;
	readonly destinationMac: Mac;
	/** Of the IPv4 header, 16 bits. */
	readonly identification: number;
}

/** A whole Ethernet frame: one allocation, one copy of the payload. */
export function serializeTcpFrame(frame: TcpFrame): Uint8Array {
	const { segment, source, destination } = frame;
	const segmentBytes = tcpHeaderBytes(segment.options) + segment.payload.length;
	const start = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES;
	const bytes = frameMemory(start + segmentBytes);
	writeEthernetHeader(bytes, frame.destinationMac, frame.sourceMac, ETHERTYPE_IPV4);
	writeIpv4Header(bytes, ETHERNET_HEADER_BYTES, {
		source,
		destination,
		protocol: PROTOCOL_TCP,
		payloadBytes: segmentBytes,
		identification: frame.identification,
		dontFragment: true,
	});
	writeTcpSegment(bytes, start, segment, source, destination);
	return bytes;
}

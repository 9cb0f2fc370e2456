/** Frames that are nearly right: grown from real ones, with checksums that fit often enough to get past the first look. */

import { foldChecksum, sumWords } from "../../src/relay/wire/checksum.js";

const IPV4_OFFSET = 14;
const PROTOCOL_OFFSET = IPV4_OFFSET + 9;
const [ICMP, TCP, UDP] = [1, 6, 17];
const MAX_FRAME_BYTES = 70_000;

/** Whole numbers from 0 to below `limit`. */
export type Random = (limit: number) => number;

/** xorshift32: the same numbers for the same seed. */
export function seededRandom(seed: number): Random {
	let state = seed | 0 || 1;
	return (limit) => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		return (state >>> 0) % limit;
	};
}

/** Values at which parsers go wrong. */
const EDGES = [0, 1, 0x7f, 0x80, 0xff, 0xfe];

/** A new frame that resembles `frame`, and perhaps `other`. */
export function mutate(frame: Uint8Array, other: Uint8Array, random: Random): Uint8Array {
	let bytes: Uint8Array = frame.slice();
	for (let count = 1 + random(3); count > 0; count--) {
		const at = random(Math.max(1, bytes.length));
		switch (random(9)) {
			case 0:
				bytes[at] = (bytes[at] ?? 0) ^ (1 << random(8));
				break;
			case 1:
				bytes[at] = random(256);
				break;
			case 2:
				bytes[at] = EDGES[random(EDGES.length)] ?? 0;
				break;
			case 3:
				bytes = bytes.slice(0, at);
				break;
			case 4:
				bytes = joined(bytes.subarray(0, at), other.subarray(random(Math.max(1, other.length))));
				break;
			case 5:
				bytes = joined(bytes, bytes.subarray(at));
				break;
			case 6:
				// In the headers, where most of the meaning is.
				bytes[IPV4_OFFSET + random(48)] = random(256);
				break;
			case 7:
				shiftSequences(bytes, random);
				break;
			case 8:
				// Other flags, the same connection.
				if (bytes[PROTOCOL_OFFSET] === TCP) bytes[IPV4_OFFSET + 20 + 13] = random(64);
				break;
		}
	}
	if (random(8) > 0) repair(bytes);
	return bytes;
}

function joined(head: Uint8Array, tail: Uint8Array): Uint8Array {
	const bytes = new Uint8Array(Math.min(MAX_FRAME_BYTES, head.length + tail.length));
	bytes.set(head.subarray(0, bytes.length));
	bytes.set(tail.subarray(0, bytes.length - head.length), head.length);
	return bytes;
}

/** Moves a TCP segment's sequence or acknowledgment number by a little, by a lot, or by half of the circle. */
function shiftSequences(bytes: Uint8Array, random: Random): void {
	const at = IPV4_OFFSET + 20 + (random(2) === 0 ? 4 : 8);
	if (bytes[PROTOCOL_OFFSET] !== TCP || bytes.length < at + 4) return;
	const view = new DataView(bytes.buffer, bytes.byteOffset);
	const step = [1, -1, 1460, 65_536, -65_536, 0x7fff_ffff][random(6)] ?? 1;
	view.setUint32(at, (view.getUint32(at) + step) >>> 0);
}

/** Makes lengths and checksums of an IPv4 packet fit its bytes, as far as it has these fields. */
export function repair(bytes: Uint8Array): void {
	if (bytes.length < IPV4_OFFSET + 20 || bytes[12] !== 8 || bytes[13] !== 0) return;
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
	const headerBytes = ((bytes[IPV4_OFFSET] ?? 0) & 15) * 4;
	const totalBytes = bytes.length - IPV4_OFFSET;
	if (headerBytes < 20 || headerBytes > totalBytes || totalBytes > 0xffff) return;
	const start = IPV4_OFFSET + headerBytes;
	view.setUint16(IPV4_OFFSET + 2, totalBytes);
	view.setUint16(IPV4_OFFSET + 10, 0);
	view.setUint16(IPV4_OFFSET + 10, foldChecksum(sumWords(bytes, IPV4_OFFSET, start)));
	const length = bytes.length - start;
	const protocol = bytes[PROTOCOL_OFFSET];
	const checksumAt = start + (protocol === TCP ? 16 : protocol === UDP ? 6 : 2);
	if ((protocol !== TCP && protocol !== UDP && protocol !== ICMP) || checksumAt + 2 > bytes.length) return;
	if (protocol === UDP) view.setUint16(start + 4, length);
	view.setUint16(checksumAt, 0);
	const pseudo = protocol === ICMP ? 0 : sumWords(bytes, IPV4_OFFSET + 12, IPV4_OFFSET + 20) + (protocol ?? 0) + length;
	view.setUint16(checksumAt, foldChecksum(pseudo + sumWords(bytes, start, bytes.length)));
}

import type { Ipv4 } from "../addresses.js";

// RFC 1071: the ones' complement of the ones' complement sum of 16-bit words. Sums are kept unfolded in a double.

const IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
/** From this length on a view of 32-bit words pays for itself; bytes. */
const VIEW_MIN_BYTES = 128;

/** Adds the 16-bit words of bytes[start..end) to `sum`; an odd last byte counts as the high half of a word. */
export function sumWords(bytes: Uint8Array, start: number, end: number, sum = 0): number {
	if (end - start < VIEW_MIN_BYTES) return sumBytes(bytes, start, end, sum);
	const head = (4 - ((bytes.byteOffset + start) & 3)) & 3;
	// Words can only be read in pairs of bytes that belong together.
	if ((head & 1) === 1) return sumShifted(bytes, start, end, sum);
	return sum + sumBytes(bytes, start, start + head, 0) + sumAligned(bytes, start + head, end);
}

/** The checksum of a sum: folded into 16 bits and complemented. A valid message with its own checksum in it gives 0. */
export function foldChecksum(sum: number): number {
	return ~foldSum(sum) & 0xffff;
}

/** RFC 9293 3.1 and RFC 768: source, destination, zero and protocol, length. */
export function pseudoHeaderSum(source: Ipv4, destination: Ipv4, protocol: number, length: number): number {
	return (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff) + protocol + length;
}

function sumBytes(bytes: Uint8Array, start: number, end: number, sum: number): number {
	let total = sum;
	let at = start;
	for (; at + 1 < end; at += 2) total += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
	if (at < end) total += (bytes[at] ?? 0) << 8;
	return total;
}

/** `start` stands on a multiple of 4 in memory. */
function sumAligned(bytes: Uint8Array, start: number, end: number): number {
	const count = (end - start) >> 2;
	const words = new Uint32Array(bytes.buffer, bytes.byteOffset + start, count);
	// A double holds 2^21 words of 32 bits exactly; two sums keep the additions apart.
	let even = 0;
	let odd = 0;
	let i = 0;
	for (; i + 3 < count; i += 4) {
		even += (words[i] ?? 0) + (words[i + 1] ?? 0);
		odd += (words[i + 2] ?? 0) + (words[i + 3] ?? 0);
	}
	for (; i < count; i++) even += words[i] ?? 0;
	const folded = foldSum(even + odd);
	// RFC 1071 2(B): the sum of swapped words is the swapped sum.
	const native = IS_LITTLE_ENDIAN ? ((folded & 0xff) << 8) | (folded >>> 8) : folded;
	return native + sumBytes(bytes, start + count * 4, end, 0);
}

/** At an odd place in memory every word is made of two neighbours: their sum is that of the bytes moved by one, swapped. */
function sumShifted(bytes: Uint8Array, start: number, end: number, sum: number): number {
	const first = (bytes[start] ?? 0) << 8;
	const rest = foldSum(sumWords(bytes, start + 1, end));
	return sum + first + (((rest & 0xff) << 8) | (rest >>> 8));
}

function foldSum(sum: number): number {
	let folded = sum;
	while (folded > 0xffff) folded = (folded % 0x10000) + Math.floor(folded / 0x10000);
	return folded;
}

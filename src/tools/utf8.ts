/** UTF-8 text out of bytes that were cut anywhere: a cut never splits a character. */

import { isUtf8 } from "node:buffer";
import type { CapturedOutput } from "../vm/machine.js";

/** A character has at most this many bytes. */
const MAX_CHARACTER_BYTES = 4;

/** Bytes at the end of `bytes` that begin a character without completing it, 0..3. */
export function unfinishedTailBytes(bytes: Uint8Array): number {
	for (let back = 1; back < MAX_CHARACTER_BYTES && back <= bytes.length; back++) {
		const byte = bytes[bytes.length - back] ?? 0;
		if (isContinuation(byte)) continue;
		return characterBytes(byte) > back ? back : 0;
	}
	return 0;
}

/** Bytes at the start of `bytes` that end a character begun before it, 0..3. */
export function strayHeadBytes(bytes: Uint8Array): number {
	let count = 0;
	while (count < MAX_CHARACTER_BYTES - 1 && isContinuation(bytes[count] ?? 0)) count++;
	return count;
}

export function decodeUtf8(bytes: Uint8Array): string {
	return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
}

export function isValidUtf8(bytes: Uint8Array): boolean {
	return isUtf8(bytes);
}

export interface DecodedOutput {
	/** Invalid bytes are U+FFFD; where bytes were left out, a line says how many. */
	readonly text: string;
	readonly omittedBytes: number;
}

/** A command's output as text: whole, or head and tail with a line between them. */
export function decodeOutput({ head, tail, omittedBytes }: CapturedOutput): DecodedOutput {
	if (omittedBytes === 0) return { text: decodeUtf8(Buffer.concat([head, tail])), omittedBytes };
	const keptHead = head.subarray(0, head.length - unfinishedTailBytes(head));
	const keptTail = tail.subarray(strayHeadBytes(tail));
	const omitted = omittedBytes + (head.length - keptHead.length) + (tail.length - keptTail.length);
	return {
		text: `${decodeUtf8(keptHead)}\n[... ${omitted} bytes left out ...]\n${decodeUtf8(keptTail)}`,
		omittedBytes: omitted,
	};
}

function isContinuation(byte: number): boolean {
	return (byte & 0xc0) === 0x80;
}

/** How many bytes a character has that starts with `byte`; 1 for bytes that start none. */
function characterBytes(byte: number): number {
	if (byte >= 0xf0 && byte <= 0xf4) return 4;
	if (byte >= 0xe0 && byte <= 0xef) return 3;
	if (byte >= 0xc2 && byte <= 0xdf) return 2;
	return 1;
}

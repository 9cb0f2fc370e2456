/**
 * The frames of the guest channel (docs/guest-channel.md):
 *
 *   0      1      2        4          8            12         16
 *   | type | zero | zero   | call     | length     | consumed | payload (0..16384 bytes)
 *   | u8   | u8   | u16    | u32 LE   | u32 LE     | u32 LE   |
 */

import type { Parsed } from "../../parsed.js";

export const HEADER_BYTES = 16;
export const MAX_PAYLOAD_BYTES = 16384;
export const PROTOCOL_VERSION = 3;

const TYPE_OFFSET = 0;
const CALL_OFFSET = 4;
const LENGTH_OFFSET = 8;
const CONSUMED_OFFSET = 12;

/** Frames from the host to the guest. */
export const HostFrame = {
	reset: 0x01,
	open: 0x02,
	data: 0x03,
	end: 0x04,
	cancel: 0x05,
	credit: 0x06,
	wake: 0x07,
} as const;
/** Frames from the guest to the host. */
export const GuestFrame = {
	hello: 0x81,
	out: 0x82,
	err: 0x83,
	done: 0x84,
	fail: 0x85,
	consumed: 0x86,
	busy: 0x87,
} as const;

export interface Frame {
	/** One of HostFrame or GuestFrame; a parser passes unknown types on. */
	readonly type: number;
	/** The call that the frame belongs to, or the epoch, or 0. */
	readonly call: number;
	/** From the guest: pieces that it has read since the last RESET. From the host: 0. */
	readonly consumed: number;
	readonly payload: Uint8Array;
}

export function serializeFrame(type: number, call: number, payload: Uint8Array, consumed = 0): Uint8Array {
	if (payload.length > MAX_PAYLOAD_BYTES) {
		throw new RangeError(`frame payload of ${payload.length} bytes, at most ${MAX_PAYLOAD_BYTES} fit`);
	}
	const bytes = new Uint8Array(HEADER_BYTES + payload.length);
	const view = new DataView(bytes.buffer);
	view.setUint8(TYPE_OFFSET, type);
	view.setUint32(CALL_OFFSET, call, true);
	view.setUint32(LENGTH_OFFSET, payload.length, true);
	view.setUint32(CONSUMED_OFFSET, consumed, true);
	bytes.set(payload, HEADER_BYTES);
	return bytes;
}

/** Parses exactly one frame, as the guest's port delivers it. The payload is a view of `bytes`. Never throws. */
export function parseFrame(bytes: Uint8Array): Parsed<Frame> {
	if (bytes.length < HEADER_BYTES) return malformed(`frame of ${bytes.length} bytes is shorter than its header`);
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
	if (view.getUint8(1) !== 0 || view.getUint16(2, true) !== 0) return malformed("reserved header bytes are not zero");
	const length = view.getUint32(LENGTH_OFFSET, true);
	if (length > MAX_PAYLOAD_BYTES) return malformed(`payload length ${length} exceeds ${MAX_PAYLOAD_BYTES}`);
	if (length !== bytes.length - HEADER_BYTES) {
		return malformed(`header says ${length} bytes of payload, ${bytes.length - HEADER_BYTES} came`);
	}
	return {
		ok: true,
		value: {
			type: view.getUint8(TYPE_OFFSET),
			call: view.getUint32(CALL_OFFSET, true),
			consumed: view.getUint32(CONSUMED_OFFSET, true),
			payload: bytes.subarray(HEADER_BYTES),
		},
	};
}

function malformed(reason: string): { ok: false; reason: string } {
	return { ok: false, reason };
}

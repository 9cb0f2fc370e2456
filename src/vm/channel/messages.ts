/** Payloads of the guest channel's frames (docs/guest-channel.md). All integers little-endian. */

import type { Parsed } from "../../parsed.js";

export const Op = { run: 1, read: 2, write: 3, compact: 4, powerOff: 5, export: 6 } as const;

export const SEED_BYTES = 32;
export const MAX_PATH_BYTES = 4095;
export const MAX_COMMAND_BYTES = 1024 * 1024;
/** WRITE: keep the mode of the file that is replaced, else 0644. */
const KEEP_MODE = 0xffffffff;

const encoder = new TextEncoder();

export interface Reset {
	readonly wallClockMicros: bigint;
	/** Bytes of OUT and ERR that the guest may send at once. */
	readonly outputCredit: number;
	/** SEED_BYTES of fresh randomness for the guest's pool. */
	readonly seed: Uint8Array;
}

export function serializeReset(reset: Reset): Uint8Array {
	if (reset.seed.length !== SEED_BYTES) throw new RangeError(`seed of ${reset.seed.length} bytes, not ${SEED_BYTES}`);
	const { bytes, view } = allocate(16 + SEED_BYTES);
	view.setBigUint64(0, reset.wallClockMicros, true);
	view.setUint32(8, reset.outputCredit, true);
	bytes.set(reset.seed, 16);
	return bytes;
}

/** WAKE: the clock and the seed alone. */
export function serializeWake(clock: { wallClockMicros: bigint; seed: Uint8Array }): Uint8Array {
	const { bytes, view } = allocate(8 + SEED_BYTES);
	view.setBigUint64(0, clock.wallClockMicros, true);
	bytes.set(clock.seed, 8);
	return bytes;
}

export function serializeCredit(bytes: number): Uint8Array {
	const credit = allocate(4);
	credit.view.setUint32(0, bytes, true);
	return credit.bytes;
}

export function serializeRun(wallClockMicros: bigint): Uint8Array {
	const { bytes, view } = allocate(4 + 8);
	view.setUint8(0, Op.run);
	view.setBigUint64(4, wallClockMicros, true);
	return bytes;
}

export function serializeRead(offset: number, limit: number, path: string): Uint8Array {
	const name = encoder.encode(path);
	const { bytes, view } = allocate(4 + 16 + name.length);
	view.setUint8(0, Op.read);
	view.setBigUint64(4, BigInt(offset), true);
	view.setBigUint64(12, BigInt(limit), true);
	bytes.set(name, 20);
	return bytes;
}

export function serializeWrite(mode: number | undefined, append: boolean, path: string): Uint8Array {
	const name = encoder.encode(path);
	const { bytes, view } = allocate(4 + 8 + name.length);
	view.setUint8(0, Op.write);
	view.setUint32(4, mode ?? KEEP_MODE, true);
	view.setUint32(8, append ? 1 : 0, true);
	bytes.set(name, 12);
	return bytes;
}

/** An op without arguments. */
export function serializeBareOp(op: number): Uint8Array {
	return Uint8Array.of(op, 0, 0, 0);
}

export interface Hello {
	readonly protocolVersion: number;
	readonly shellIsBash: boolean;
	readonly kernelRelease: string;
	readonly shellPath: string;
}

export function parseHello(payload: Uint8Array): Parsed<Hello> {
	if (payload.length < 8) return { ok: false, reason: `HELLO of ${payload.length} bytes` };
	const view = viewOf(payload);
	const [kernelRelease = "", shellPath = ""] = decodeText(payload.subarray(8)).split("\0");
	return {
		ok: true,
		value: {
			protocolVersion: view.getUint32(0, true),
			shellIsBash: (view.getUint32(4, true) & 1) !== 0,
			kernelRelease,
			shellPath,
		},
	};
}

/** Flags of a finished RUN. */
export const RunFlag = { shellEnded: 1, newShell: 2, cancelled: 4, processLimit: 8, shellReplaced: 16 } as const;

export interface RunDone {
	readonly exitCode: number;
	/** Bits of RunFlag. */
	readonly flags: number;
	/** Processes that commands left running, without the idle shell. */
	readonly processes: number;
	readonly cwd: string;
}

export function parseRunDone(payload: Uint8Array): Parsed<RunDone> {
	if (payload.length < 12) return { ok: false, reason: `result of RUN of ${payload.length} bytes` };
	const view = viewOf(payload);
	return {
		ok: true,
		value: {
			exitCode: view.getInt32(0, true),
			flags: view.getUint32(4, true),
			processes: view.getUint32(8, true),
			cwd: decodeText(payload.subarray(12)),
		},
	};
}

export interface ReadDone {
	readonly sizeBytes: number;
	readonly sentBytes: number;
	readonly mode: number;
}

export function parseReadDone(payload: Uint8Array): Parsed<ReadDone> {
	if (payload.length < 20) return { ok: false, reason: `result of READ of ${payload.length} bytes` };
	const view = viewOf(payload);
	return {
		ok: true,
		value: {
			sizeBytes: Number(view.getBigUint64(0, true)),
			sentBytes: Number(view.getBigUint64(8, true)),
			mode: view.getUint32(16, true),
		},
	};
}

export interface WriteDone {
	readonly sizeBytes: number;
	readonly path: string;
}

export function parseWriteDone(payload: Uint8Array): Parsed<WriteDone> {
	if (payload.length < 8) return { ok: false, reason: `result of WRITE of ${payload.length} bytes` };
	return {
		ok: true,
		value: { sizeBytes: Number(viewOf(payload).getBigUint64(0, true)), path: decodeText(payload.subarray(8)) },
	};
}

export interface Failure {
	readonly errno: number;
	readonly message: string;
}

export function parseFailure(payload: Uint8Array): Parsed<Failure> {
	if (payload.length < 4) return { ok: false, reason: `FAIL of ${payload.length} bytes` };
	return {
		ok: true,
		value: { errno: viewOf(payload).getInt32(0, true), message: decodeText(payload.subarray(4)) },
	};
}

/** The single u32 of CONSUMED and BUSY. */
export function parseCount(payload: Uint8Array): Parsed<number> {
	if (payload.length !== 4) return { ok: false, reason: `a count of ${payload.length} bytes` };
	return { ok: true, value: viewOf(payload).getUint32(0, true) };
}

function allocate(size: number): { bytes: Uint8Array; view: DataView } {
	const bytes = new Uint8Array(size);
	return { bytes, view: viewOf(bytes) };
}

function viewOf(bytes: Uint8Array): DataView {
	return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decodeText(bytes: Uint8Array): string {
	return new TextDecoder().decode(bytes);
}

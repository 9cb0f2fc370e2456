/**
 * The snapshot file, version 1 (byte by byte in snapshots/README.md). Integers are little-endian:
 *
 * ```
 * 0   magic(8) = "SBX86SNP"   version u32   headerBytes u32   check(32)
 * 48  header: JSON, headerBytes long, padded with spaces at its end
 * 48 + headerBytes: the state, stateBytes long, to the end of the file
 * ```
 *
 * `check` is the SHA-256 of the 16 bytes before it and the header; the header holds the SHA-256 of the state.
 */

import { createHash } from "node:crypto";
import { z } from "zod";
import type { Parsed } from "../../parsed.js";
import { limits } from "./limits.js";

export const PREAMBLE_BYTES = 48;
export const FORMAT_VERSION = 1;

const MAGIC = Buffer.from("SBX86SNP", "latin1");
const VERSION_OFFSET = 8;
const HEADER_BYTES_OFFSET = 12;
const CHECK_OFFSET = 16;

/** A name that a caller gives a snapshot; it becomes part of a file's name. */
export const SNAPSHOT_NAME = /^[A-Za-z0-9._-]{1,64}$/;
/** An id that we give a snapshot: time (UTC, to the second) and 8 random hex digits. */
export const SNAPSHOT_ID = /^s-\d{8}-\d{6}-[0-9a-f]{8}$/;

const sha256Hex = z.string().regex(/^[0-9a-f]{64}$/, "not a SHA-256 in hex");

const port = z.int().min(1).max(65_535);
const openFlow = z.strictObject({
	protocol: z.literal("tcp"),
	guestPort: port,
	remoteAddress: z.ipv4(),
	remotePort: port,
});

export const snapshotHeaderSchema = z.strictObject({
	id: z.string().regex(SNAPSHOT_ID),
	name: z.string().regex(SNAPSHOT_NAME).optional(),
	description: z.string().max(limits.maxDescriptionChars).optional(),
	created: z.iso.datetime(),
	imageName: z.string().min(1).max(200),
	imageDigest: sha256Hex,
	memoryMiB: z.int().min(1).max(2048),
	emulatorVersion: z.string().min(1).max(100),
	openFlows: z.array(openFlow).max(limits.maxOpenFlows).readonly().default([]),
	stateBytes: z.int().min(0).max(limits.maxStateBytes),
	stateSha256: sha256Hex,
});

export type SnapshotHeader = z.infer<typeof snapshotHeaderSchema>;

/** The first PREAMBLE_BYTES of a file: how long the header is, and its check. */
export interface Preamble {
	readonly headerBytes: number;
	readonly check: Uint8Array;
}

/** Preamble and header, padded so that the header's JSON takes `headerBytes` (or just what it needs). */
export function serializeHeader(header: SnapshotHeader, headerBytes?: number): Buffer {
	const json = Buffer.from(JSON.stringify(snapshotHeaderSchema.parse(header)), "utf8");
	const length = headerBytes ?? json.length;
	if (json.length > length || length > limits.maxHeaderBytes) {
		throw new RangeError(`a snapshot header of ${json.length} bytes does not fit into ${length}`);
	}
	const bytes = Buffer.alloc(PREAMBLE_BYTES + length, " ");
	MAGIC.copy(bytes, 0);
	bytes.writeUInt32LE(FORMAT_VERSION, VERSION_OFFSET);
	bytes.writeUInt32LE(length, HEADER_BYTES_OFFSET);
	json.copy(bytes, PREAMBLE_BYTES);
	checkOf(bytes).copy(bytes, CHECK_OFFSET);
	return bytes;
}

/** Reads the preamble; `bytes` may be longer. */
export function parsePreamble(bytes: Uint8Array): Parsed<Preamble> {
	if (bytes.length < PREAMBLE_BYTES)
		return bad(`it has ${bytes.length} bytes, a snapshot has at least ${PREAMBLE_BYTES}`);
	const view = Buffer.from(bytes.buffer, bytes.byteOffset, PREAMBLE_BYTES);
	if (!view.subarray(0, MAGIC.length).equals(MAGIC)) return bad("it does not start as a snapshot does");
	const version = view.readUInt32LE(VERSION_OFFSET);
	if (version !== FORMAT_VERSION)
		return bad(`its format is version ${version}, this program reads version ${FORMAT_VERSION}`);
	const headerBytes = view.readUInt32LE(HEADER_BYTES_OFFSET);
	if (headerBytes < 2 || headerBytes > limits.maxHeaderBytes) {
		return bad(`its header claims ${headerBytes} bytes, at most ${limits.maxHeaderBytes} are allowed`);
	}
	return { ok: true, value: { headerBytes, check: Uint8Array.from(view.subarray(CHECK_OFFSET)) } };
}

/** Reads preamble and header from the start of a file; `bytes` may be longer. */
export function parseHeader(bytes: Uint8Array): Parsed<SnapshotHeader> {
	const preamble = parsePreamble(bytes);
	if (!preamble.ok) return preamble;
	const end = PREAMBLE_BYTES + preamble.value.headerBytes;
	if (bytes.length < end) return bad(`it ends within its header, after ${bytes.length} of ${end} bytes`);
	const whole = Buffer.from(bytes.buffer, bytes.byteOffset, end);
	if (!checkOf(whole).equals(preamble.value.check)) return bad("its header does not match the header's SHA-256");
	let json: unknown;
	try {
		json = JSON.parse(whole.toString("utf8", PREAMBLE_BYTES));
	} catch {
		return bad("its header is not JSON");
	}
	const parsed = snapshotHeaderSchema.safeParse(json);
	if (!parsed.success) {
		const issue = parsed.error.issues[0];
		return bad(`its header is wrong at ${issue?.path.join(".") || "the top"}: ${issue?.message ?? "unknown"}`);
	}
	return { ok: true, value: parsed.data };
}

function checkOf(bytes: Uint8Array): Buffer {
	return createHash("sha256").update(bytes.subarray(0, CHECK_OFFSET)).update(bytes.subarray(PREAMBLE_BYTES)).digest();
}

function bad(reason: string): { ok: false; reason: string } {
	return { ok: false, reason };
}

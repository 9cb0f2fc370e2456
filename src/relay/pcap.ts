/** Frames as a classic pcap file, which tcpdump and Wireshark read. */

import { type FileHandle, open } from "node:fs/promises";
import { errnoOf, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { MAX_FRAME_BYTES, PCAP_MAX_BUFFERED_BYTES } from "./limits.js";

// draft-ietf-opsawg-pcap: magic(4) major(2) minor(2) reserved(8) snaplen(4) linktype(4); each record:
// seconds(4) microseconds(4) captured(4) original(4) frame; in the byte order of the magic, here little endian.
const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAJOR_VERSION = 2;
const MINOR_VERSION = 4;
const LINKTYPE_ETHERNET = 1;
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
/** Frames are handed to the file in pieces of this size. */
const PIECE_BYTES = 262_144;

export interface PcapOptions {
	readonly path: string;
	/** The file ends before it would be larger, bytes. */
	readonly maxBytes: number;
	/** ms since 1970. */
	readonly nowMs: () => number;
	readonly log: Log;
}

/** A capture. Whatever befalls the file, it is reported once and the network goes on. */
export class PcapFile {
	readonly #options: PcapOptions;
	readonly #file: FileHandle;
	/** Frames that are not handed to the file yet: #piece up to #used. */
	#piece = Buffer.alloc(0);
	#used = 0;
	/** Of the file as it will be, bytes. */
	#fileBytes = 0;
	/** Bytes that are on their way into the file. */
	#writingBytes = 0;
	#writing: Promise<void> = Promise.resolve();
	#isScheduled = false;
	#isStopped = false;
	#hasFailed = false;
	#leftOut = 0;

	private constructor(options: PcapOptions, file: FileHandle) {
		this.#options = options;
		this.#file = file;
		this.#append(fileHeader());
	}

	/** Makes or empties the file, for this user's eyes only. Throws SandboxError("invalid-argument"). */
	static async open(options: PcapOptions): Promise<PcapFile> {
		try {
			return new PcapFile(options, await open(options.path, "w", 0o600));
		} catch (error) {
			throw new SandboxError(
				"invalid-argument",
				`the capture file ${options.path} can't be written: ${errnoOf(error) ?? String(error)}`,
				"choose another one with --pcap",
				{ cause: error },
			);
		}
	}

	/** Adds a frame; its bytes are copied. */
	write(frame: Uint8Array): void {
		if (this.#isStopped) return;
		const { maxBytes, path, log } = this.#options;
		if (this.#fileBytes + RECORD_HEADER_BYTES + frame.length > maxBytes) {
			this.#isStopped = true;
			log.warn(`the capture file ${path} has its full size, ${maxBytes} bytes: what follows is not captured`);
			return;
		}
		if (this.#writingBytes + this.#used > PCAP_MAX_BUFFERED_BYTES) {
			if (this.#leftOut === 0) log.warn(`the capture file ${path} is written too slowly: frames are left out`);
			this.#leftOut += 1;
			return;
		}
		this.#append(recordHeader(this.#options.nowMs(), frame.length));
		this.#append(frame);
		if (this.#isScheduled) return;
		this.#isScheduled = true;
		setImmediate(() => {
			this.#isScheduled = false;
			this.#submit();
		});
	}

	/** Done when everything is in the file. */
	async close(): Promise<void> {
		this.#isStopped = true;
		this.#submit();
		await this.#writing;
		if (this.#leftOut > 0) this.#options.log.warn(`${this.#leftOut} frames are missing in the capture file`);
		await this.#file.close().catch((error: unknown) => this.#fail(error));
	}

	#append(bytes: Uint8Array): void {
		if (this.#used + bytes.length > this.#piece.length) {
			this.#submit();
			this.#piece = Buffer.allocUnsafeSlow(PIECE_BYTES);
		}
		this.#piece.set(bytes, this.#used);
		this.#used += bytes.length;
		this.#fileBytes += bytes.length;
	}

	#submit(): void {
		if (this.#used === 0) return;
		const bytes = this.#piece.subarray(0, this.#used);
		this.#piece = this.#piece.subarray(this.#used);
		this.#used = 0;
		this.#writingBytes += bytes.length;
		this.#writing = this.#writing.then(async () => {
			try {
				if (!this.#hasFailed) await this.#file.appendFile(bytes);
			} catch (error) {
				this.#fail(error);
			}
			this.#writingBytes -= bytes.length;
		});
	}

	#fail(error: unknown): void {
		this.#isStopped = true;
		if (this.#hasFailed) return;
		this.#hasFailed = true;
		const { path, log } = this.#options;
		log.warn(`the capture file ${path} can't be written any more: ${errnoOf(error) ?? String(error)}`);
	}
}

function fileHeader(): Buffer {
	const bytes = Buffer.alloc(FILE_HEADER_BYTES);
	bytes.writeUInt32LE(MAGIC_MICROSECONDS, 0);
	bytes.writeUInt16LE(MAJOR_VERSION, 4);
	bytes.writeUInt16LE(MINOR_VERSION, 6);
	bytes.writeUInt32LE(MAX_FRAME_BYTES, 16);
	bytes.writeUInt32LE(LINKTYPE_ETHERNET, 20);
	return bytes;
}

function recordHeader(nowMs: number, frameBytes: number): Buffer {
	const bytes = Buffer.allocUnsafe(RECORD_HEADER_BYTES);
	bytes.writeUInt32LE(Math.floor(nowMs / 1000) >>> 0, 0);
	bytes.writeUInt32LE(Math.floor((nowMs % 1000) * 1000), 4);
	bytes.writeUInt32LE(frameBytes, 8);
	bytes.writeUInt32LE(frameBytes, 12);
	return bytes;
}

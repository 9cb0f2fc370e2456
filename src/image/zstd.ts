/**
 * Zstandard (RFC 8878). fzstd decodes the blocks; the frames around them are read here, because fzstd believes what they
 * say: it allocates any window, does not notice every cut-off end, decodes whatever it is given at once, and can be
 * made to loop for ever. Checksums are not looked at: whoever decompresses knows a hash of what must come out.
 */

import { createContext, Script } from "node:vm";
import { Decompress } from "fzstd";
import { limits } from "./limits.js";

// Frame header (3.1.1.1): magic(4) descriptor(1) window(0|1) dictionary(0|1|2|4) content size(0|1|2|4|8).
const FRAME_MAGIC = 0xfd2fb528;
/** 3.1.2: magic(4, the low 4 bits are the user's) size(4) anything(size). */
const SKIPPABLE_MAGIC = 0x184d2a50;
const DICTIONARY_BYTES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
/** 3.1.1.2.4 */
const MAX_BLOCK_BYTES = 128 * 1024;
const RLE_BLOCK = 1;
const COMPRESSED_BLOCK = 2;
/** Blocks decoded in one go: a watched call costs as much as half a block. */
const BLOCKS_AT_ONCE = 8;

/** Why the stream cannot be read, as the end of a sentence that begins with its name. */
export class ZstdError extends Error {}

/** The decompressed bytes of a stream of frames; at most `BLOCKS_AT_ONCE` are ahead of the reader. Throws ZstdError. */
export async function* decompressZstd(
	input: AsyncIterable<Uint8Array>,
	maxStepMs: number = limits.maxZstdStepMs,
): AsyncGenerator<Uint8Array> {
	const reader = new ByteReader(input[Symbol.asyncIterator]());
	const clock = new DecodingClock(maxStepMs);
	while (!(await reader.isAtEnd())) {
		const magic = await reader.take(4);
		if ((magic.readUInt32LE() & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
			await reader.skip((await reader.take(4)).readUInt32LE());
		} else if (magic.readUInt32LE() === FRAME_MAGIC) {
			yield* decompressFrame(reader, magic, clock);
		} else {
			throw new ZstdError("something else follows its last frame");
		}
	}
}

async function* decompressFrame(reader: ByteReader, magic: Buffer, clock: DecodingClock): AsyncGenerator<Uint8Array> {
	const { header, windowBytes, contentBytes, hasChecksum } = await readFrameHeader(reader, magic);
	const maxBlockBytes = Math.min(windowBytes, MAX_BLOCK_BYTES);
	const output: Uint8Array[] = [];
	let decoded = 0;
	const decoder = new Decompress((chunk) => {
		if (chunk.length > 0) output.push(chunk);
	});
	let pieces: Buffer[] = [header];
	let blocks = 0;
	for (let blockHeader = await reader.take(3); ; ) {
		const fields = blockHeader.readUIntLE(0, 3);
		const isLast = (fields & 1) === 1;
		const type = (fields >> 1) & 3;
		const size = fields >> 3;
		if (type > COMPRESSED_BLOCK || size > maxBlockBytes || (type === COMPRESSED_BLOCK && size < 2)) {
			throw new ZstdError("a block of it is none");
		}
		const content = await reader.take(type === RLE_BLOCK ? 1 : size);
		const next = await reader.take(isLast ? (hasChecksum ? 4 : 0) : 3);
		pieces.push(pieces.length === 0 ? blockHeader.subarray(1) : blockHeader, content);
		if (isLast || ++blocks === BLOCKS_AT_ONCE) {
			// fzstd holds on to what it was given if that ends where a block ends, so it gets a byte more.
			const given = Buffer.concat([...pieces, isLast ? next : next.subarray(0, 1)]);
			clock.run(() => decoder.push(given, isLast));
			pieces = [];
			blocks = 0;
			for (const chunk of output.splice(0)) {
				decoded += chunk.length;
				clock.decoded(chunk.length);
				yield chunk;
			}
		}
		if (isLast) break;
		blockHeader = next;
	}
	if (contentBytes !== undefined && decoded !== contentBytes) {
		throw new ZstdError(`a frame of it has ${decoded} bytes instead of ${contentBytes}`);
	}
}

interface FrameHeader {
	/** Its bytes, with the magic number. */
	readonly header: Buffer;
	readonly windowBytes: number;
	/** Undefined where the header does not say. */
	readonly contentBytes: number | undefined;
	readonly hasChecksum: boolean;
}

async function readFrameHeader(reader: ByteReader, magic: Buffer): Promise<FrameHeader> {
	const descriptor = await reader.take(1);
	const flags = descriptor.readUInt8();
	if ((flags & 0b1000) !== 0) throw new ZstdError("a reserved bit is set in it");
	const isSingleSegment = (flags & 0b10_0000) !== 0;
	const window = await reader.take(isSingleSegment ? 0 : 1);
	const dictionary = await reader.take(DICTIONARY_BYTES[(flags & 3) as 0 | 1 | 2 | 3]);
	if (dictionary.some((byte) => byte !== 0)) throw new ZstdError("it needs a dictionary");
	const sizeFlag = (flags >> 6) as 0 | 1 | 2 | 3;
	const size = await reader.take(sizeFlag === 0 && isSingleSegment ? 1 : CONTENT_SIZE_BYTES[sizeFlag]);
	const contentBytes = readContentSize(size);
	const windowBytes = isSingleSegment ? (contentBytes ?? 0) : windowSize(window.readUInt8());
	if (windowBytes > limits.maxZstdWindowBytes) {
		const mebibytes = (bytes: number) => Math.ceil(bytes / 1024 / 1024);
		throw new ZstdError(
			`it needs a window of ${mebibytes(windowBytes)} MiB, ${mebibytes(limits.maxZstdWindowBytes)} MiB are allowed (zstd --long=27)`,
		);
	}
	return {
		header: Buffer.concat([magic, descriptor, window, dictionary, size]),
		windowBytes,
		contentBytes,
		hasChecksum: (flags & 0b100) !== 0,
	};
}

/** 3.1.1.1.4; a size of two bytes starts at 256. */
function readContentSize(field: Buffer): number | undefined {
	if (field.length === 0) return undefined;
	if (field.length === 8) return Number(field.readBigUInt64LE());
	return field.readUIntLE(0, field.length) + (field.length === 2 ? 256 : 0);
}

/** 3.1.1.1.2 */
function windowSize(field: number): number {
	const base = 2 ** (10 + (field >> 3));
	return base + (base / 8) * (field & 7);
}

const watched = { work: () => {} };
createContext(watched);
const callWork = new Script("work()");

/** Ends decoding that takes longer than honest data does: a few bytes can ask fzstd for hours of work. */
class DecodingClock {
	readonly #maxStepMs: number;
	#spentMs = 0;
	#decodedBytes = 0;

	constructor(maxStepMs: number) {
		this.#maxStepMs = maxStepMs;
	}

	decoded(bytes: number): void {
		this.#decodedBytes += bytes;
	}

	/** Runs `work`, in this thread. A script's time limit is what can end a loop that does not end itself. */
	run(work: () => void): void {
		const startedMs = performance.now();
		let failure: unknown;
		watched.work = () => {
			try {
				work();
			} catch (error) {
				failure = error;
			}
		};
		try {
			callWork.runInContext(watched, { timeout: this.#maxStepMs });
		} catch {
			// All that `work` throws is caught in there.
			throw tooSlow();
		}
		if (failure !== undefined) throw new ZstdError(failure instanceof Error ? failure.message : String(failure));
		this.#spentMs += performance.now() - startedMs;
		if (this.#spentMs > limits.zstdFreeMs + this.#decodedBytes / limits.minZstdBytesPerMs) throw tooSlow();
	}
}

function tooSlow(): ZstdError {
	return new ZstdError("it takes much longer to decode than honest data does");
}

/** Bytes of a stream in pieces of the wanted length. */
class ByteReader {
	readonly #input: AsyncIterator<Uint8Array>;
	#chunk: Buffer = Buffer.alloc(0);

	constructor(input: AsyncIterator<Uint8Array>) {
		this.#input = input;
	}

	async isAtEnd(): Promise<boolean> {
		while (this.#chunk.length === 0) {
			const next = await this.#input.next();
			if (next.done === true) return true;
			this.#chunk = Buffer.from(next.value.buffer, next.value.byteOffset, next.value.byteLength);
		}
		return false;
	}

	async take(length: number): Promise<Buffer> {
		const parts: Buffer[] = [];
		for (let left = length; left > 0; ) {
			if (await this.isAtEnd()) throw new ZstdError("it is cut off");
			const part = this.#chunk.subarray(0, left);
			this.#chunk = this.#chunk.subarray(part.length);
			left -= part.length;
			parts.push(part);
		}
		return parts[0] !== undefined && parts.length === 1 ? parts[0] : Buffer.concat(parts);
	}

	async skip(length: number): Promise<void> {
		for (let left = length; left > 0; ) {
			if (await this.isAtEnd()) throw new ZstdError("it is cut off");
			const part = Math.min(left, this.#chunk.length);
			this.#chunk = this.#chunk.subarray(part);
			left -= part;
		}
	}
}

import { Readable } from "node:stream";
import { ReadableStream } from "node:stream/web";
import zlib from "node:zlib";
import xzDecompress from "xz-decompress";
import { SandboxError } from "../errors.js";
import { limits } from "./limits.js";
import { decompressZstd, ZstdError } from "./zstd.js";

const MAGIC = {
	gzip: [0x1f, 0x8b],
	xz: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
	zstd: [0x28, 0xb5, 0x2f, 0xfd],
} as const;

export type Compression = keyof typeof MAGIC | "none";

/** How a file is compressed, told by its first bytes (6 suffice). */
export function detectCompression(head: Uint8Array): Compression {
	for (const kind of ["gzip", "xz", "zstd"] as const) {
		if (MAGIC[kind].every((byte, at) => head[at] === byte)) return kind;
	}
	return "none";
}

/**
 * The decompressed bytes of a gzip, xz, zstd or plain stream, the kind told by its first bytes. Throws
 * SandboxError("corrupt") that names `source` where the stream is damaged, cut off or swells to more than `maxRatio` times
 * its size; a caller that knows how long the stream may become needs no such ratio.
 */
export async function* decompress(
	input: AsyncIterable<Uint8Array>,
	source: string,
	maxRatio: number = limits.maxDecompressionRatio,
): AsyncGenerator<Uint8Array> {
	const iterator = input[Symbol.asyncIterator]();
	try {
		const first: Uint8Array[] = [];
		let length = 0;
		while (length < 6) {
			const next = await iterator.next();
			if (next.done === true) break;
			first.push(next.value);
			length += next.value.length;
		}
		const head = Buffer.concat(first);
		const counted = { bytes: 0 };
		const compressed = count(head, iterator, counted);
		yield* bounded(decoder(detectCompression(head), compressed, source), counted, source, maxRatio);
	} finally {
		await iterator.return?.();
	}
}

async function* count(
	head: Uint8Array,
	rest: AsyncIterator<Uint8Array>,
	counted: { bytes: number },
): AsyncGenerator<Uint8Array> {
	if (head.length > 0) {
		counted.bytes += head.length;
		yield head;
	}
	for (let next = await rest.next(); next.done !== true; next = await rest.next()) {
		counted.bytes += next.value.length;
		yield next.value;
	}
}

function decoder(kind: Compression, input: AsyncIterable<Uint8Array>, source: string): AsyncIterable<Uint8Array> {
	switch (kind) {
		case "none":
			return input;
		case "gzip":
			return throughZlib(input, zlib.createGunzip(), source);
		case "xz":
			return throughXz(input, source);
		case "zstd":
			return throughZstd(input, source);
	}
}

async function* throughZstd(input: AsyncIterable<Uint8Array>, source: string): AsyncGenerator<Uint8Array> {
	try {
		yield* decompressZstd(input);
	} catch (error) {
		throw error instanceof ZstdError ? damaged(source, error) : error;
	}
}

async function* throughZlib(
	input: AsyncIterable<Uint8Array>,
	transform: zlib.Gunzip,
	source: string,
): AsyncGenerator<Uint8Array> {
	const readable = Readable.from(input, { objectMode: false });
	let upstream: unknown;
	readable.on("error", (error) => {
		upstream = error;
		transform.destroy(error);
	});
	readable.pipe(transform);
	try {
		for await (const chunk of transform) yield chunk as Buffer;
	} catch (error) {
		throw upstream ?? damaged(source, error);
	} finally {
		readable.destroy();
		transform.destroy();
	}
}

/** xz by xz-embedded compiled to WebAssembly. It reads on past a cut-off end in silence, so the end is checked here. */
async function* throughXz(input: AsyncIterable<Uint8Array>, source: string): AsyncGenerator<Uint8Array> {
	let upstream: unknown;
	let last: Uint8Array = new Uint8Array(0);
	const iterator = input[Symbol.asyncIterator]();
	const web = new ReadableStream<Uint8Array>(
		{
			async pull(controller) {
				try {
					const next = await iterator.next();
					if (next.done === true) return controller.close();
					last = next.value.length >= 2 ? next.value.slice(-2) : Buffer.concat([last, next.value]).subarray(-2);
					controller.enqueue(next.value);
				} catch (error) {
					upstream = error;
					controller.error(error);
				}
			},
		},
		{ highWaterMark: 0 },
	);
	const stream = new xzDecompress.XzReadableStream(web as never);
	const reader = stream.getReader();
	try {
		for (;;) {
			const next = await reader.read();
			if (next.done) break;
			yield next.value;
		}
	} catch (error) {
		throw upstream ?? damaged(source, error);
	} finally {
		await reader.cancel().catch(() => undefined);
	}
	// The stream footer ends in "YZ".
	if (last[0] !== 0x59 || last[1] !== 0x5a) throw damaged(source, "it is cut off");
}

async function* bounded(
	output: AsyncIterable<Uint8Array>,
	counted: { bytes: number },
	source: string,
	maxRatio: number,
): AsyncGenerator<Uint8Array> {
	let bytes = 0;
	for await (const chunk of output) {
		bytes += chunk.length;
		if (bytes > limits.ratioFreeBytes && bytes > counted.bytes * maxRatio) {
			throw new SandboxError(
				"corrupt",
				`${source} swells to more than ${maxRatio} times its size: refused as a decompression bomb`,
			);
		}
		yield chunk;
	}
}

function damaged(source: string, cause: unknown): SandboxError {
	const reason = cause instanceof Error ? cause.message : String(cause);
	return new SandboxError("corrupt", `${source} is damaged: ${reason}`, undefined, { cause });
}

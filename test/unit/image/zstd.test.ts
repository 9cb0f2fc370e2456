import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SandboxError } from "../../../src/errors.js";
import { decompress } from "../../../src/image/decompress.js";
import { decompressZstd } from "../../../src/image/zstd.js";

const hasZstd = spawnSync("zstd", ["--version"]).status === 0;
const skipped = hasZstd ? "" : " (skipped: needs the program zstd)";

function zstd(bytes: Uint8Array, ...options: string[]): Buffer {
	const { status, stdout, stderr } = spawnSync("zstd", ["-c", "-q", ...options], { input: bytes, maxBuffer: 2 ** 30 });
	if (status !== 0) throw new Error(String(stderr));
	return stdout;
}

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
	for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(bytes: Uint8Array, pieceBytes = 64 * 1024): Promise<Buffer> {
	const chunks: Uint8Array[] = [];
	for await (const chunk of decompress(inPieces(bytes, pieceBytes), "a.tar.zst")) chunks.push(chunk);
	return Buffer.concat(chunks);
}

/** Words of a small language: compresses as text does. */
function text(bytes: number, seed = 1): Buffer {
	let state = seed;
	const words: string[] = [];
	for (let length = 0; length < bytes; length += words[words.length - 1]?.length ?? 1) {
		state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
		words.push(`${((state >>> 16) % 997).toString(36)} `);
	}
	return Buffer.from(words.join("").slice(0, bytes));
}

/** Nothing that can be compressed. */
function noise(bytes: number): Buffer {
	const parts: Buffer[] = [];
	for (let at = 0; at * 32 < bytes; at++) parts.push(createHash("sha256").update(String(at)).digest());
	return Buffer.concat(parts).subarray(0, bytes);
}

// RFC 8878: magic, descriptor (single segment, content size of one byte), content size, last raw block.
const HELLO = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, 5, (5 << 3) | 1, 0, 0, ...Buffer.from("hello")]);
/** Magic number 0x184d2a53, four bytes to skip. */
const SKIPPABLE = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd]);

describe("zstd", () => {
	it("of one raw block is read, in pieces of any size", async () => {
		for (let size = 1; size <= HELLO.length; size++) expect((await read(HELLO, size)).toString()).toBe("hello");
	});

	it("of several frames is one stream, and skippable frames are skipped", async () => {
		const stream = Buffer.concat([HELLO, SKIPPABLE, SKIPPABLE, HELLO, SKIPPABLE]);
		for (let size = 1; size < 20; size++) expect((await read(stream, size)).toString()).toBe("hellohello");
	});

	it("that is cut off anywhere within a frame is refused", async () => {
		for (const frame of [HELLO, SKIPPABLE]) {
			const whole = Buffer.concat([HELLO, frame]);
			for (let length = HELLO.length + 1; length < whole.length; length++) {
				await expect(read(whole.subarray(0, length))).rejects.toThrow("a.tar.zst is damaged: it is cut off");
			}
		}
	});

	it("with something else behind its frames is refused", async () => {
		await expect(read(Buffer.concat([HELLO, Buffer.from("trailer")]))).rejects.toThrow(
			"a.tar.zst is damaged: something else follows its last frame",
		);
	});

	it("that wants a window of more than 128 MiB, or a dictionary, is refused before any is made", async () => {
		// Window descriptors: exponent 18 and mantissa 0, 17 and 7, 31 and 7 (RFC 8878, 3.1.1.1.2).
		const windowed = (descriptor: number) => Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, descriptor, 1, 0, 0]);
		expect(await read(windowed(17 << 3))).toHaveLength(0);
		await expect(read(windowed((17 << 3) | 1))).rejects.toThrow(
			"a.tar.zst is damaged: it needs a window of 144 MiB, 128 MiB are allowed (zstd --long=27)",
		);
		await expect(read(windowed(0xff))).rejects.toThrow(/window of 3932160 MiB/);
		const huge = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
		await expect(read(huge)).rejects.toThrow(/window of 4096 MiB/);
		const dictionary = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 0, 1, 0, 0]);
		await expect(read(dictionary)).rejects.toThrow("it needs a dictionary");
	});

	it("whose frame is longer or shorter than its header says is refused", async () => {
		const longer = Buffer.from(HELLO);
		longer[5] = 6;
		await expect(read(longer)).rejects.toThrow("a frame of it has 5 bytes instead of 6");
	});

	it("that swells is refused as a bomb, long before it is whole", async () => {
		// Blocks of one byte, 131072 times over, in a frame with a window of 1 MiB.
		const block = Buffer.from([0x02, 0x00, 0x10, 0]);
		const bomb = Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3]), ...Array(20_000).fill(block)]);
		await expect(read(bomb)).rejects.toThrow(/a\.tar\.zst swells to more than 500 times its size/);
	});

	it("that would keep the decoder busy for ever is given up", async () => {
		// Huffman weights by a table of a single symbol, which takes no bits: their stream does not end (RFC 8878, 4.2.1.2).
		const block = [0x42, 0xc0, 0x01, 5, 0xf0, 0x03, 0, 0, 0x80, 1, 0];
		const header = [0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3, (block.length << 3) | 0b101, 0, 0];
		const decoding = decompressZstd(inPieces(Buffer.from([...header, ...block]), 100), 200);
		await expect(decoding.next()).rejects.toThrow("it takes much longer to decode than honest data does");
	});

	it("of random bytes is refused and never hangs", async () => {
		await fc.assert(
			fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 64 }), async (bytes, size) => {
				const stream = Buffer.concat([Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), bytes]);
				await read(stream, size).catch((error: unknown) => expect(error).toBeInstanceOf(SandboxError));
			}),
			{ numRuns: 300 },
		);
	});
});

describe.skipIf(!hasZstd)(`what the program zstd writes${skipped}`, () => {
	const contents: [string, Buffer][] = [
		["nothing", Buffer.alloc(0)],
		["one byte", Buffer.from("x")],
		["text", text(1_000_000)],
		["noise", noise(1_000_000)],
		["zeros", Buffer.alloc(5_000_000)],
		["text that comes again after 20 MB", Buffer.concat([text(1_000_000), noise(20_000_000), text(1_000_000)])],
	];
	const settings = [
		["-1"],
		["-19"],
		["--ultra", "-22", "--long=27"],
		["--fast=5", "--no-check"],
		["--long=27", "-3", "-T2"],
	];
	for (const [what, content] of contents) {
		it.each(settings)(`reads ${what}, written with %s`, { timeout: 120_000 }, async (...options) => {
			if (content.length > 5_000_000 && options[0] !== "--long=27") return;
			expect((await read(zstd(content, ...options))).equals(content)).toBe(true);
		});
	}

	it("reads anything, at any level, in pieces of any size", async () => {
		const pieces = fc.array(
			fc.oneof(
				fc.uint8Array({ maxLength: 200 }),
				fc.integer({ min: 0, max: 9000 }).map((n) => text(n, n)),
			),
		);
		await fc.assert(
			fc.asyncProperty(
				pieces,
				fc.integer({ min: 1, max: 19 }),
				fc.integer({ min: 1, max: 5000 }),
				async (parts, level, size) => {
					const content = Buffer.concat(parts);
					expect((await read(zstd(content, `-${level}`), size)).equals(content)).toBe(true);
				},
			),
			{ numRuns: 40 },
		);
	});

	it("refuses a stream that is cut off at any byte", async () => {
		const whole = zstd(text(2000));
		for (let length = 6; length < whole.length; length++) {
			await expect(read(whole.subarray(0, length))).rejects.toThrow(/a\.tar\.zst is damaged: it is cut off/);
		}
	});

	it("never hangs and throws nothing but SandboxError where bytes of it are others", async () => {
		const whole = zstd(text(4000), "-19");
		await fc.assert(
			fc.asyncProperty(
				fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
				async (changes) => {
					const changed = Buffer.from(whole);
					for (const [at, value] of changes) changed[at] = value;
					await read(changed).catch((error: unknown) => expect(error).toBeInstanceOf(SandboxError));
				},
			),
			{ numRuns: 150 },
		);
	});
});

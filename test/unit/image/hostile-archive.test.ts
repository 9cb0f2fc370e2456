/** Archives that no honest tool writes: each is refused with a SandboxError, soon, in little memory, and leaves no file half written. */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SandboxError } from "../../../src/errors.js";
import { decompress } from "../../../src/image/decompress.js";
import { limits } from "../../../src/image/limits.js";
import { applyTarLayer, type LayerOptions } from "../../../src/image/tar-layer.js";
import { Tree } from "../../../src/image/tree.js";
import { inPieces, padded, paxHeader, TAR_END, tarHeader, tarOf, Workplace } from "./archive-support.js";

let place: Workplace;
let tree: Tree;
beforeEach(() => {
	place = new Workplace();
	mkdirSync(place.store.folder, { recursive: true });
	tree = new Tree();
});
afterEach(() => {
	try {
		expect(place.leftovers()).toEqual([]);
	} finally {
		place.remove();
	}
});

const OPTIONS: LayerOptions = { source: "evil.tar", whiteouts: true, directorySymlinks: "replace" };

async function apply(tar: AsyncIterable<Uint8Array>, options: Partial<LayerOptions> = {}) {
	return await applyTarLayer(tree, place.store, tar, { ...OPTIONS, ...options });
}

/** Lays the blocks over the tree; the message of the refusal. */
async function refusal(blocks: Iterable<Buffer>, options: Partial<LayerOptions> = {}): Promise<string> {
	const failure = await apply(inBatches(blocks), options).then(
		() => "taken",
		(error: unknown) => error,
	);
	expect(failure).toBeInstanceOf(SandboxError);
	expect(failure).toMatchObject({ code: "corrupt", message: expect.stringMatching(/^evil\.tar/) });
	expect((failure as Error).message.length).toBeLessThan(600);
	return (failure as Error).message;
}

/** Blocks as a stream, 64 KiB at a time, made only when they are wanted. */
async function* inBatches(blocks: Iterable<Buffer>): AsyncGenerator<Buffer> {
	let batch: Buffer[] = [];
	for (const block of blocks) {
		batch.push(block);
		if (batch.length < 128) continue;
		yield Buffer.concat(batch);
		batch = [];
	}
	yield Buffer.concat(batch);
}

const paths = () => [...tree.entries()].map(([path]) => path);

describe("an entry that is no plain file, folder or link", () => {
	it("is refused where it is a device outside of dev/", async () => {
		for (const type of ["3", "4"]) {
			const tar = [tarHeader("etc/disk", { type }), TAR_END];
			expect(await refusal(tar)).toBe('evil.tar: "etc/disk" is a device, and an image can have none outside of dev/');
		}
		expect(await refusal([tarHeader("dev", { type: "3" }), TAR_END])).toMatch(/is a device/);
		expect(await refusal([tarHeader("dev/../mem", { type: "3" }), TAR_END])).toMatch(/leads out of its folder/);
	});

	it("is left out where it is a device in dev/", async () => {
		await apply(inBatches([tarHeader("./dev/null", { type: "3" }), tarHeader("dev/sda", { type: "4" }), TAR_END]));
		expect(paths()).toEqual([]);
	});

	it("is refused where it is sparse, in GNU's old way and in all of pax", async () => {
		expect(await refusal([tarHeader("hole", { type: "S", size: 5 }), padded("hello"), TAR_END])).toMatch(/sparse/);
		for (const records of [
			{ "GNU.sparse.size": "1000000", "GNU.sparse.numblocks": "0" },
			{ "GNU.sparse.map": "0,1,100,1" },
			{ "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": "9" },
		]) {
			const tar = [paxHeader(records), tarHeader("hole", { size: 5 }), padded("hello"), TAR_END];
			expect(await refusal(tar)).toMatch(/"hole" is a sparse file/);
		}
	});

	it("is refused where its type is unknown, part of a volume, or none", async () => {
		for (const type of ["M", "D", "V", "Z", "\x7f"]) {
			expect(await refusal([tarHeader("x", { type }), TAR_END])).toMatch(/of a type that is not read/);
		}
	});
});

describe("names and link targets", () => {
	it("from a pax header are held to the same rules", async () => {
		const named = async (records: Record<string, string>, type = "0") =>
			await refusal([paxHeader(records), tarHeader("fine", { type, link: "x" }), TAR_END]);
		expect(await named({ path: "../../etc/passwd" })).toMatch(/leads out of its folder/);
		expect(await named({ path: "/etc/passwd" })).toMatch(/is absolute/);
		expect(await named({ path: "a\0b" })).toMatch(/holds a NUL/);
		expect(await named({ path: "x".repeat(300) })).toMatch(/longer than 255 bytes/);
		expect(await named({ path: "abc/".repeat(2000) })).toMatch(/longer than 4095 bytes/);
		expect(await named({ linkpath: "/etc/shadow" }, "1")).toMatch(/is absolute/);
		expect(await named({ linkpath: "../shadow" }, "1")).toMatch(/leads out of its folder/);
		expect(await named({ linkpath: "y".repeat(5000) }, "2")).toMatch(/not a link target/);
	});

	it("show no control characters in an error", async () => {
		const message = await refusal([tarHeader("a\x1b[2Jb", { type: "1", link: "no\x07ne" }), TAR_END]);
		// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
		expect(message).not.toMatch(/[\u0000-\u001f]/);
	});

	it("that lead through links never leave the tree", async () => {
		await apply(
			inBatches([
				tarHeader("up", { type: "2", link: "../../../.." }),
				tarHeader("up/caught", { size: 5 }),
				padded("hello"),
				tarHeader("abs", { type: "2", link: "/" }),
				tarHeader("abs/too", { type: "2", link: "x" }),
				TAR_END,
			]),
		);
		expect(paths()).toEqual(["abs", "caught", "too", "up"]);
	});
});

describe("sizes", () => {
	it("that are negative, no number or beyond all bounds are refused before any byte is read", async () => {
		const field = (first: number, rest: number) => Buffer.from([first, ...Array<number>(11).fill(rest)]);
		expect(await refusal([tarHeader("x", { size: field(0xff, 0xfe) }), TAR_END])).toMatch(/no whole tar archive/);
		expect(await refusal([tarHeader("x", { size: Buffer.from("zzzzzzzzzzzz") }), TAR_END])).toMatch(/no whole tar/);
		expect(await refusal([tarHeader("x", { size: field(0x80, 0xff) }), TAR_END])).toMatch(/size is no number/);
		expect(await refusal([tarHeader("x", { size: field(0xa0, 0) }), TAR_END])).toMatch(/size is no number/);
		const large = Buffer.concat([field(0x80, 0).subarray(0, 6), field(1, 0).subarray(0, 6)]);
		expect(await refusal([tarHeader("x", { size: large }), TAR_END])).toMatch(/more than 8589934592 bytes of files/);
		for (const size of ["-1", "99999999999999999999", "NaN", "Infinity"]) {
			await refusal([paxHeader({ size }), tarHeader("x"), TAR_END]);
		}
		expect(readdirSync(place.store.folder)).toEqual([]);
	});

	it("that are too much together are refused at the entry that is over", async () => {
		const tar = [tarHeader("a", { size: 600 }), padded("x".repeat(600)), tarHeader("b", { size: 600 })];
		expect(await refusal(tar, { maxBytes: 1000 })).toBe("evil.tar: more than 1000 bytes of files");
	});

	it("of headers are bounded", async () => {
		for (const type of ["x", "g", "L", "K"]) {
			expect(await refusal([tarHeader("x", { type, size: 2 ** 31 })])).toMatch(/Header exceeds max size/);
		}
		const many = Object.fromEntries(Array.from({ length: limits.maxPaxRecords + 1 }, (_, at) => [`k${at}`, "v"]));
		expect(await refusal([paxHeader(many), tarHeader("x"), TAR_END])).toMatch(/more than 1000 attributes/);
		// All that follow would get a copy of them.
		const all = [paxHeader(many, "g"), paxHeader({ path: "a" }), tarHeader("x"), TAR_END];
		expect(await refusal(all)).toMatch(/more than 1000 attributes/);
	});

	it("of headers without an entry, and of zeros, are bounded", async () => {
		const long = paxHeader({ comment: "x".repeat(240_000) });
		const entry = tarHeader("x");
		const many = (function* () {
			for (let count = 0; count < 1000; count++) yield* [long, entry];
		})();
		expect(await refusal(many)).toMatch(/its headers have more bytes than names and attributes need/);
		const pax = paxHeader({ comment: "x".repeat(60_000) });
		const endless = function* (block: Buffer) {
			yield tarHeader("d/", { type: "5" });
			for (;;) yield block;
		};
		expect(await refusal(endless(pax))).toMatch(/more than 8388608 bytes of headers or zeros/);
		expect(await refusal(endless(Buffer.alloc(512)))).toMatch(/more than 8388608 bytes of headers or zeros/);
	});
});

describe("what would take hours or all memory", () => {
	/** What ten million entries are refused as, for a bound of `maxEntries`. */
	const floods: [string, (at: number) => Buffer, RegExp][] = [
		["links", (at) => tarHeader(`d/${at}`, { type: "2", link: "x" }), /more than 20000 entries/],
		["folders", (at) => tarHeader(`${at}/`, { type: "5" }), /more than 20000 entries/],
		["hard links", (at) => tarHeader(`h${at}`, { type: "1", link: "origin" }), /more than 20000 entries/],
		["whiteouts", (at) => tarHeader(`d/.wh.${at}`), /more than 20000 entries/],
		["opaque folders", () => tarHeader("d/.wh..wh..opq"), /more than 20000 entries/],
		["one name again and again", () => tarHeader("same", { type: "2", link: "x" }), /more than 20000 entries/],
		["a folder and a file in turn", (at) => tarHeader("f", { type: at % 2 === 0 ? "5" : "0" }), /more than 20000/],
	];
	for (const [what, entry, message] of floods) {
		it(`${what} without end`, async () => {
			const blocks = function* () {
				yield tarHeader("origin");
				for (let at = 0; at < 10_000_000; at++) yield entry(at);
			};
			expect(await refusal(blocks(), { maxEntries: 20_000 })).toMatch(message);
		});
	}

	it("folders that nobody names: a few entries that need millions of them", async () => {
		const blocks = function* () {
			for (let at = 0; ; at++)
				yield tarHeader(`${"a/".repeat(40)}x`, { type: "2", link: "y", prefix: `${at}/${"b/".repeat(70)}b` });
		};
		expect(await refusal(blocks())).toMatch(/more than 1000000 folders/);
	});

	it("folders inside one another", async () => {
		expect(await refusal([paxHeader({ path: "a/".repeat(1000) }), tarHeader("x", { type: "5" }), TAR_END])).toMatch(
			/more than 256 folders deep/,
		);
		// One at a time, through a link that leads ever deeper.
		const blocks = function* () {
			for (let at = 0; at < 300; at++) {
				yield tarHeader(at === 0 ? "a/" : "l/a/", { type: "5" });
				yield tarHeader("l", { type: "2", link: "/a".repeat(Math.min(at + 1, 49)) });
				yield paxHeader({ path: "a/".repeat(at + 1) });
				yield tarHeader("x", { type: "5" });
			}
			yield TAR_END;
		};
		expect(await refusal(blocks())).toMatch(/more than 256 folders deep/);
	});

	it("links that lead over links, each many folders long", async () => {
		const blocks = function* () {
			yield tarHeader("d/", { type: "5" });
			let before = "d";
			for (let at = 0; at < 38; at++) {
				yield paxHeader({ linkpath: `${"d/../".repeat(800)}${before}` });
				yield tarHeader(`l${at}`, { type: "2" });
				before = `l${at}`;
			}
			for (let at = 0; ; at++) yield tarHeader(`${before}/${at}`, { type: "2", link: "x" });
		};
		expect(await refusal(blocks())).toMatch(/links lead over more than 50000000 folders/);
	});

	it("links in a circle", async () => {
		const circle = [tarHeader("a", { type: "2", link: "b" }), tarHeader("b", { type: "2", link: "a" })];
		expect(await refusal([...circle, tarHeader("a/x", { size: 1 }), padded("x"), TAR_END])).toMatch(
			/more than 40 links/,
		);
		expect(await refusal([...circle, tarHeader("a/.wh..wh..opq"), TAR_END])).toMatch(/more than 40 links/);
		expect(await refusal([...circle, tarHeader("a/x", { type: "1", link: "b/y" }), TAR_END])).toMatch(/40 links/);
	});

	const bomb = () => gzipSync(Buffer.alloc(70 * 1024 * 1024), { level: 9 });
	it("a bomb in a file, packed once", async () => {
		const size = 70 * 1024 * 1024;
		const tar = gzipSync(Buffer.concat([tarHeader("zeros", { size }), Buffer.alloc(size), TAR_END]), { level: 9 });
		await expect(apply(decompress(inPieces(tar, 4096), "evil.tar.gz"))).rejects.toMatchObject({
			code: "corrupt",
			message: /swells to more than 500 times its size/,
		});
	});

	const hasXz = spawnSync("xz", ["--version"]).status === 0;
	it.skipIf(!hasXz)(`a bomb packed with xz${hasXz ? "" : " (skipped: this host has no xz)"}`, async () => {
		const size = 70 * 1024 * 1024;
		const input = Buffer.concat([tarHeader("zeros", { size }), Buffer.alloc(size), TAR_END]);
		const tar = execFileSync("xz", ["-0", "--stdout"], { input });
		await expect(apply(decompress(inPieces(tar, 4096), "evil.tar.xz"))).rejects.toMatchObject({
			code: "corrupt",
			message: /evil\.tar\.xz swells to more than 500 times its size/,
		});
	});

	it("a bomb in a bomb is no tar: only the outermost packing is undone", async () => {
		const nested = gzipSync(bomb());
		await expect(apply(decompress(inPieces(nested, 4096), "evil.tar.gz"))).rejects.toMatchObject({
			code: "corrupt",
			message: /is no whole tar archive/,
		});
	});
});

describe("an archive that changes its mind", () => {
	it("puts files in the place of folders, and back: the last entry counts", async () => {
		const entries = [
			{ name: "x/deep/file", content: "1" },
			{ name: "x", content: "2" },
			{ name: "x/", type: "directory" as const },
			{ name: "x/y", content: "3" },
			{ name: "x", type: "symlink" as const, linkname: "elsewhere" },
			{ name: "x/z", content: "4" },
		];
		await apply(inPieces(await tarOf(entries)));
		expect(paths()).toEqual(["elsewhere", "elsewhere/z", "x"]);
	});

	it("is refused where a file is in the way", async () => {
		expect(await refusal([tarHeader("x"), tarHeader("x/y"), TAR_END])).toMatch(/a file is where a folder is needed/);
	});

	it("keeps the content of a hard link whose origin is replaced", async () => {
		const entries = [
			{ name: "a", content: "1" },
			{ name: "b", type: "link" as const, linkname: "a" },
			{ name: "a", content: "22" },
		];
		await apply(inPieces(await tarOf(entries)));
		expect(tree.get("b")).toMatchObject({ sizeBytes: 1 });
		expect(tree.get("a")).toMatchObject({ sizeBytes: 2 });
	});
});

describe("a stream", () => {
	it("that ends at any block, or within one, is refused", async () => {
		const tar = await tarOf([
			{ name: "a", content: "x".repeat(2000) },
			{ name: `long/${"n".repeat(200)}`, content: "y" },
			{ name: "b", type: "symlink", linkname: "a" },
		]);
		for (let length = 0; length < tar.length - 512; length += 256) {
			tree = new Tree();
			await refusal([tar.subarray(0, length)]);
		}
	});

	it("that breaks off within a large file leaves nothing of it", async () => {
		const size = 5 * 1024 * 1024;
		await refusal([tarHeader("large", { size }), Buffer.alloc(3 * 1024 * 1024)]);
		expect(readdirSync(place.store.folder)).toEqual([]);
	});

	it("with something behind its end is refused", async () => {
		const tar = await tarOf([{ name: "a", content: "x" }]);
		expect(await refusal([tar, Buffer.alloc(512, "garbage")])).toMatch(/no whole tar archive/);
		expect(await refusal([tar, Buffer.from("some bytes")])).toMatch(/no whole tar archive/);
	});
});

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import zlib from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { v86Source } from "../../../src/image/sources/v86.js";
import { Workplace } from "./archive-support.js";

let place: Workplace;
let flat: string;
beforeEach(() => {
	place = new Workplace();
	flat = join(place.folder, "flat");
	for (const folder of [place.store.folder, flat]) mkdirSync(folder, { recursive: true });
});
afterEach(() => place.remove());

/** One frame with one raw block (RFC 8878, section 3.1.1), so that the tests run on every Node. */
function zstdOf(content: Buffer): Buffer {
	const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0, 0, 0, 0]);
	head.writeUInt32LE(content.length, 5);
	head.writeUIntLE((content.length << 3) | 1, 9, 3);
	return Buffer.concat([head, content]);
}

/** Writes a content as copy-to-sha256.py does, and says its name. */
function put(content: string, isCompressed = false): string {
	const bytes = Buffer.from(content);
	const digits = createHash("sha256").update(bytes).digest("hex").slice(0, 8);
	const name = `${digits}.bin${isCompressed ? ".zst" : ""}`;
	writeFileSync(join(flat, name), isCompressed ? zstdOf(bytes) : bytes);
	return name;
}

const DIR = 0o40755;
const FILE = 0o100755;
const LINK = 0o120777;

function writeJson(fsroot: unknown, version = 3): void {
	writeFileSync(join(place.folder, "fs.json"), JSON.stringify({ fsroot, version, size: 0 }));
}

const resolve = () => v86Source.resolve("fs.json+flat", place.context);
const make = async () => await v86Source.make(await resolve(), place.context);

describe("v86:FS_JSON+FLAT_FOLDER", () => {
	it("takes the tree that v86's tools write, packed or not", async () => {
		for (const isCompressed of [false, true]) {
			writeJson([
				["bin", 4096, 1000.5, DIR, 0, 0, [["sh", 7, 5000, FILE, 1, 2, put("program", isCompressed)]]],
				["copy", 7, 1000, FILE, 0, 0, put("program", isCompressed)],
				["empty", 0, 1000, FILE, 0, 0, put("", isCompressed)],
				["l", 0, 1000, LINK, 0, 0, "bin/sh"],
				["nothing", 4096, 1000, DIR, 0, 0, []],
				// From a tar, a device has its permissions alone; from a folder, its type too; never a seventh field.
				["null", 0, 1000, 0o666, 0, 0],
				["tty", 0, 1000, 0o20666, 0, 0],
			]);
			const { tree, epoch } = await make();
			expect([...tree.entries()].map(([path]) => path)).toEqual(["bin", "bin/sh", "copy", "empty", "l", "nothing"]);
			const sha256 = createHash("sha256").update("program").digest("hex");
			expect(tree.resolve("l")).toEqual({
				kind: "file",
				mode: 0o755,
				uid: 1,
				gid: 2,
				mtime: 5000,
				sizeBytes: 7,
				sha256,
			});
			expect(tree.get("bin")?.mtime).toBe(1000);
			expect((await place.store.read(sha256)).toString()).toBe("program");
			expect(epoch).toBe(5000);
		}
	});

	it("reads what a real zstd writes", async ({ skip }) => {
		if (!("zstdCompressSync" in zlib)) return skip("Node.js has zstd since 22.15");
		const compress = zlib.zstdCompressSync as (bytes: Buffer) => Buffer;
		const name = put("again and again ".repeat(10_000), true);
		writeFileSync(join(flat, name), compress(Buffer.from("again and again ".repeat(10_000))));
		writeJson([["f", 160_000, 0, FILE, 0, 0, name]]);
		expect((await make()).tree.get("f")).toMatchObject({ sizeBytes: 160_000 });
	});

	it("splits its reference at the last plus sign", async () => {
		writeFileSync(join(place.folder, "g++.json"), JSON.stringify({ fsroot: [], version: 3, size: 0 }));
		expect(await v86Source.resolve("g++.json+flat", place.context)).toMatchObject({ json: "g++.json", folder: "flat" });
		for (const wrong of ["fs.json", "fs.json+", "+flat"]) {
			await expect(v86Source.resolve(wrong, place.context)).rejects.toMatchObject({ code: "invalid-argument" });
		}
	});

	it("is locked by the JSON and by every file that it names, and by no other", async () => {
		writeJson([["f", 1, 0, FILE, 0, 0, put("a")]]);
		const lock = await resolve();
		put("something else");
		expect(await resolve()).toEqual(lock);
		await v86Source.make(lock, place.context);
		writeJson([["f", 1, 0, FILE, 1, 0, put("a")]]);
		await expect(v86Source.make(lock, place.context)).rejects.toMatchObject({ code: "mismatch", message: /^fs\.json/ });
		const name = put("a", true);
		writeJson([["f", 1, 0, FILE, 0, 0, name]]);
		const packed = await resolve();
		// The same content packed in another way: without the size in its head.
		writeFileSync(join(flat, name), Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 9, 0, 0, 0x61]));
		await expect(v86Source.make(packed, place.context)).rejects.toMatchObject({ code: "mismatch", message: /^flat/ });
	});

	const putFolder = (name: string) => {
		rmSync(join(flat, name));
		mkdirSync(join(flat, name));
	};
	const faults: [string, (name: string) => void, RegExp][] = [
		["missing", (name) => rmSync(join(flat, name)), /content of \/d\/f, is missing/],
		["a folder", putFolder, /content of \/d\/f, is missing or/],
		["cut off", (name) => writeFileSync(join(flat, name), "hell"), /content of \/d\/f, is cut off: 4 of 5 bytes/],
		["too long", (name) => writeFileSync(join(flat, name), "hello!"), /\/d\/f, is longer than the 5 bytes/],
		["another one", (name) => writeFileSync(join(flat, name), "jello"), /\/d\/f, is damaged: its SHA-256 begins with/],
	];
	for (const [what, damage, message] of faults) {
		it(`names the file and the path of a content that is ${what}`, async () => {
			const name = put("hello");
			writeJson([["d", 4096, 0, DIR, 0, 0, [["f", 5, 0, FILE, 0, 0, name]]]]);
			damage(name);
			const failure = await make().catch((error: unknown) => error);
			expect(failure).toMatchObject({ name: "SandboxError", message });
			expect((failure as Error).message).toContain(join(flat, name));
			expect(readdirSync(place.store.folder)).toEqual([]);
		});
	}

	it("names a compressed content that is cut off or is none", async () => {
		const name = put("hello", true);
		writeJson([["f", 5, 0, FILE, 0, 0, name]]);
		writeFileSync(join(flat, name), zstdOf(Buffer.from("hello")).subarray(0, 14));
		await expect(make()).rejects.toMatchObject({ code: "corrupt", message: /content of \/f is damaged/ });
		writeFileSync(join(flat, name), "jello");
		await expect(make()).rejects.toMatchObject({ code: "corrupt", message: /content of \/f, is damaged/ });
	});

	it("stops a compressed content that swells past the size in the JSON", async () => {
		const name = put("hello", true);
		// One block of 2 MiB that repeats one byte (RLE).
		const bomb = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0x03, 0x00, 0x10, 0x61]);
		writeFileSync(join(flat, name), bomb);
		writeJson([["f", 5, 0, FILE, 0, 0, name]]);
		await expect(make()).rejects.toMatchObject({ code: "corrupt" });
		expect(readdirSync(place.store.folder)).toEqual([]);
	});

	const wrongTrees: [string, unknown, RegExp][] = [
		["another version", [3.5], /version 2 instead of 3/],
		["a name with a slash", [["a/b", 0, 0, FILE, 0, 0, "01234567.bin"]], /not a file name/],
		["a name that leads out", [["..", 0, 0, DIR, 0, 0, []]], /not a file name/],
		["a content that leads out", [["a", 0, 0, FILE, 0, 0, "../secret.bin"]], /its content is called "\.\.\/secret/],
		["a content of our own trees", [["a", 0, 0, FILE, 0, 0, "0".repeat(64)]], /no tool of v86's writes/],
		["a size that is none", [["a", -1, 0, FILE, 0, 0, "01234567.bin"]], /attributes are no numbers/],
		["a name twice", Array(2).fill(["a", 1, 0, FILE, 0, 0, "01234567.bin"]), /occurs twice/],
	];
	for (const [what, fsroot, message] of wrongTrees) {
		it(`refuses ${what}`, async () => {
			writeJson(fsroot, what === "another version" ? 2 : 3);
			await expect(make()).rejects.toMatchObject({ code: "corrupt", message });
		});
	}

	it("refuses one content with two sizes", async () => {
		const name = put("hello");
		writeJson([
			["a", 5, 0, FILE, 0, 0, name],
			["b", 6, 0, FILE, 0, 0, name],
		]);
		await expect(make()).rejects.toThrow(/the content of \/b, has 5 bytes instead of 6/);
	});
});

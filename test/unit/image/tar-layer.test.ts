import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type Header, pack } from "tar-stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SandboxError } from "../../../src/errors.js";
import { ContentStore } from "../../../src/image/content-store.js";
import { decompress } from "../../../src/image/decompress.js";
import { parseFsJson, serializeFsJson } from "../../../src/image/fs-json.js";
import { applyTarLayer, type LayerOptions } from "../../../src/image/tar-layer.js";
import { Tree } from "../../../src/image/tree.js";

type Entry = Partial<Header> & { name: string; content?: string };

let folder: string;
let store: ContentStore;
let tree: Tree;

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-layer-"));
	store = new ContentStore(join(folder, "files"));
	tree = new Tree();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
	const packer = pack();
	for (const { content, ...header } of entries) packer.entry(header, content ?? "");
	packer.finalize();
	const chunks: Uint8Array[] = [];
	for await (const chunk of packer) chunks.push(chunk as Uint8Array);
	return Buffer.concat(chunks);
}

async function* inPieces(bytes: Uint8Array, size = 700): AsyncGenerator<Uint8Array> {
	for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

const OCI: LayerOptions = { source: "layer", whiteouts: true, directorySymlinks: "replace" };

async function apply(entries: readonly Entry[], options: Partial<LayerOptions> = {}): Promise<void> {
	await applyTarLayer(tree, store, inPieces(await tarOf(entries)), { ...OCI, ...options });
}

function paths(): string[] {
	return [...tree.entries()].map(([path]) => path);
}

async function contentOf(path: string): Promise<string | undefined> {
	const node = tree.resolve(path);
	return node?.kind === "file" ? (await store.read(node.sha256)).toString() : undefined;
}

describe("a tar layer", () => {
	it("brings folders, files, links and hard links with their attributes", async () => {
		await apply([
			{ name: "./", type: "directory", mode: 0o755 },
			{ name: "./bin/", type: "directory", mode: 0o755 },
			{ name: "./bin/su", mode: 0o4755, uid: 1, gid: 2, mtime: new Date(5000), content: "su" },
			{ name: "./bin/sh", type: "symlink", linkname: "su" },
			{ name: "./bin/su2", type: "link", linkname: "./bin/su" },
		]);
		expect(tree.get("bin/su")).toMatchObject({ kind: "file", mode: 0o4755, uid: 1, gid: 2, mtime: 5, sizeBytes: 2 });
		expect(tree.get("bin/su2")).toEqual(tree.get("bin/su"));
		expect(await contentOf("bin/sh")).toBe("su");
	});

	it("becomes v86's JSON and back without a loss", async () => {
		await apply([
			{ name: "a/b/ü", content: "x", mode: 0o600 },
			{ name: "a/l", type: "symlink", linkname: "/nowhere" },
			{ name: "empty", content: "" },
		]);
		const text = serializeFsJson(tree);
		expect(serializeFsJson(parseFsJson(text, "test"))).toBe(text);
		const { version, fsroot } = JSON.parse(text) as { version: number; fsroot: unknown[][] };
		expect(version).toBe(3);
		expect(fsroot.map(([name, size]) => [name, size])).toEqual([
			["a", 4096],
			["empty", 0],
		]);
	});

	it("a whiteout removes what lower layers have, not what the layer itself brings", async () => {
		await apply([
			{ name: "d/old", content: "1" },
			{ name: "gone", content: "1" },
		]);
		await apply([{ name: "d/new", content: "2" }, { name: "d/.wh.old" }, { name: ".wh.gone" }, { name: "d/.wh.new" }]);
		expect(paths()).toEqual(["d", "d/new"]);
	});

	it("an opaque folder keeps only what the layer brings", async () => {
		await apply([
			{ name: "d/a", content: "1" },
			{ name: "d/s/b", content: "1" },
		]);
		await apply([{ name: "d/c", content: "2" }, { name: "d/.wh..wh..opq" }]);
		expect(paths()).toEqual(["d", "d/c"]);
	});

	it("a file replaces a folder and a folder replaces a file", async () => {
		await apply([
			{ name: "x/y", content: "1" },
			{ name: "z", content: "1" },
		]);
		await apply([
			{ name: "x", content: "2" },
			{ name: "z/", type: "directory" },
		]);
		expect(tree.get("x")?.kind).toBe("file");
		expect(tree.get("z")?.kind).toBe("directory");
	});

	it("dpkg's way keeps a link to a folder, OCI's way replaces it", async () => {
		const lower = [
			{ name: "usr/bin/", type: "directory" as const },
			{ name: "bin", type: "symlink" as const, linkname: "usr/bin" },
		];
		await apply(lower);
		await apply(
			[
				{ name: "bin/", type: "directory" },
				{ name: "bin/x", content: "1" },
			],
			{ directorySymlinks: "follow" },
		);
		expect(paths()).toEqual(["bin", "usr", "usr/bin", "usr/bin/x"]);
		await apply([{ name: "bin/", type: "directory" }]);
		expect(tree.get("bin")?.kind).toBe("directory");
	});

	it("a parent that is a link out of the tree stays in the tree", async () => {
		await apply([
			{ name: "out", type: "symlink", linkname: "/../../../../tmp" },
			{ name: "out/file", content: "caught" },
		]);
		expect(await contentOf("tmp/file")).toBe("caught");
	});

	it("devices and FIFOs are left out and named", async () => {
		const tar = await tarOf([
			{ name: "dev/mem", type: "character-device", devmajor: 1, devminor: 1 },
			{ name: "pipe", type: "fifo" },
		]);
		expect(await applyTarLayer(tree, store, inPieces(tar), OCI)).toEqual({
			entries: 2,
			bytes: 0,
			skipped: ["dev/mem", "pipe"],
		});
		expect(paths()).toEqual([]);
	});
});

describe("a hostile tar layer is refused and leaves no file behind", () => {
	const long = "a".repeat(256);
	const cases: [string, readonly Entry[], RegExp][] = [
		["a name with ..", [{ name: "a/../../etc/passwd", content: "" }], /leads out of its folder/],
		["an absolute name", [{ name: "/etc/passwd", content: "" }], /is absolute/],
		["a component that is too long", [{ name: `x/${long}`, content: "" }], /longer than 255 bytes/],
		["a path that is too long", [{ name: Array(1100).fill("abc").join("/"), content: "" }], /longer than 4095 bytes/],
		["a hard link to ..", [{ name: "l", type: "link", linkname: "../../etc/shadow" }], /leads out of its folder/],
		["a hard link to an absolute name", [{ name: "l", type: "link", linkname: "/etc/shadow" }], /is absolute/],
		["a hard link to nothing", [{ name: "l", type: "link", linkname: "nothing" }], /is no file of the archive/],
		[
			"a hard link to a folder",
			[
				{ name: "d/", type: "directory" },
				{ name: "l", type: "link", linkname: "d" },
			],
			/is no file/,
		],
		[
			"a file below a file",
			[
				{ name: "f", content: "1" },
				{ name: "f/g", content: "1" },
			],
			/a file is where a folder is needed/,
		],
		[
			"a file below a circle of links",
			[
				{ name: "l", type: "symlink", linkname: "l" },
				{ name: "l/f", content: "" },
			],
			/more than 40 links/,
		],
		["a whiteout of ..", [{ name: "a/.wh...", content: "" }], /a whiteout of "\.\."/],
	];
	for (const [what, entries, message] of cases) {
		it(what, async () => {
			const failure = await apply(entries).catch((error: unknown) => error);
			expect(failure).toBeInstanceOf(SandboxError);
			expect(failure).toMatchObject({ code: "corrupt" });
			expect((failure as Error).message).toMatch(message);
			for (const name of store.folder ? await store.list() : []) expect(name).toMatch(/^[0-9a-f]{64}$/);
		});
	}

	it("more entries or bytes than allowed", async () => {
		const entries = [
			{ name: "a", content: "12345" },
			{ name: "b", content: "12345" },
		];
		await expect(apply(entries, { maxEntries: 1 })).rejects.toThrow("layer: more than 1 entries");
		await expect(apply(entries, { maxBytes: 9 })).rejects.toThrow("layer: more than 9 bytes of files");
	});

	it("one that is cut off at any block", async () => {
		const tar = await tarOf([
			{ name: "a", content: "x".repeat(2000) },
			{ name: "b", content: "y" },
		]);
		for (let length = 0; length < tar.length - 512; length += 512) {
			await expect(applyTarLayer(new Tree(), store, inPieces(tar.subarray(0, length)), OCI)).rejects.toMatchObject({
				code: "corrupt",
			});
		}
		expect(
			readdirSync(folder)
				.concat(await store.list())
				.filter((name) => name.endsWith(".tmp")),
		).toEqual([]);
	});

	it("noise", async () => {
		const noise = Buffer.alloc(4096, 0xa5);
		await expect(applyTarLayer(tree, store, inPieces(noise), OCI)).rejects.toThrow(/is no whole tar archive/);
	});

	it("a decompression bomb", async () => {
		const bomb = gzipSync(Buffer.alloc(80 * 1024 * 1024), { level: 9 });
		const swell = async () => {
			for await (const _ of decompress(inPieces(bomb, 4096), "bomb.tar.gz")) {
				// Nothing is kept.
			}
		};
		await expect(swell()).rejects.toThrow(/bomb\.tar\.gz swells to more than 500 times its size/);
	});

	it("a compressed stream that is cut off", async () => {
		const gz = gzipSync(await tarOf([{ name: "a", content: "x".repeat(5000) }]));
		const cut = applyTarLayer(tree, store, decompress(inPieces(gz.subarray(0, gz.length - 10)), "cut.tar.gz"), OCI);
		await expect(cut).rejects.toThrow(/cut\.tar\.gz is damaged/);
	});
});

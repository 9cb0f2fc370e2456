import { appendFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { tarSource } from "../../../src/image/sources/tar.js";
import { type Entry, tarOf, Workplace } from "./archive-support.js";

let place: Workplace;
beforeEach(() => {
	place = new Workplace();
	mkdirSync(place.store.folder, { recursive: true });
});
afterEach(() => place.remove());

const ROOT: readonly Entry[] = [
	{ name: "./", type: "directory", mtime: new Date(1000) },
	{ name: "./bin/busybox", content: "program", mode: 0o755, mtime: new Date(7_000_000) },
	{ name: "./bin/sh", type: "symlink", linkname: "/bin/busybox", mtime: new Date(1000) },
	{ name: "./dev/null", type: "character-device", devmajor: 1, devminor: 3 },
];

async function make(name: string) {
	return await tarSource.make(await tarSource.resolve(name, place.context), place.context);
}

describe("tar:FILE", () => {
	it("takes a root file system, packed or not, beside the recipe or anywhere", async () => {
		const tar = await tarOf(ROOT);
		writeFileSync(join(place.folder, "root.tar"), tar);
		writeFileSync(join(place.folder, "root.tar.gz"), gzipSync(tar));
		for (const name of ["root.tar", "./root.tar.gz", join(place.folder, "root.tar")]) {
			const { tree, epoch, env } = await make(name);
			expect([...tree.entries()].map(([path]) => path)).toEqual(["bin", "bin/busybox", "bin/sh"]);
			expect(tree.resolve("bin/sh")).toMatchObject({ kind: "file", sizeBytes: 7 });
			expect({ epoch, env }).toEqual({ epoch: 7000, env: {} });
		}
	});

	it("is locked by the file's hash and size", async () => {
		writeFileSync(join(place.folder, "a.tar"), "abc");
		expect(await tarSource.resolve("a.tar", place.context)).toEqual({
			path: "a.tar",
			sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
			sizeBytes: 3,
		});
	});

	it("refuses a file that is another one than the lock names, whatever is in it", async () => {
		const file = join(place.folder, "root.tar");
		const tar = await tarOf(ROOT);
		writeFileSync(file, tar);
		const lock = await tarSource.resolve("root.tar", place.context);
		writeFileSync(file, Buffer.alloc(tar.length, "x"));
		const refused = { code: "mismatch", message: /^root\.tar is another file than the lock names: it is / };
		await expect(tarSource.make(lock, place.context)).rejects.toMatchObject(refused);
		writeFileSync(file, tar);
		appendFileSync(file, "more");
		await expect(tarSource.make(lock, place.context)).rejects.toThrow(/has \d+ bytes instead of/);
	});

	it("refuses one whose compressed end has more behind it than the lock says", async () => {
		const file = join(place.folder, "root.tar.gz");
		writeFileSync(file, Buffer.concat([gzipSync(await tarOf(ROOT)), Buffer.alloc(600_000)]));
		const lock = await tarSource.resolve("root.tar.gz", place.context);
		writeFileSync(file, Buffer.concat([gzipSync(await tarOf(ROOT)), Buffer.alloc(599_999), Buffer.from("x")]));
		await expect(tarSource.make(lock, place.context)).rejects.toMatchObject({ code: "mismatch" });
	});

	const images: [string, readonly string[]][] = [
		["docker save", ["0123456789abcdef".repeat(4).concat("/layer.tar"), "manifest.json"]],
		["docker save of today", ["blobs/sha256/".concat("0123456789abcdef".repeat(4)), "manifest.json"]],
		["an OCI layout", ["oci-layout", "index.json"]],
	];
	for (const [what, names] of images) {
		it(`tells the output of ${what} from a root`, async () => {
			writeFileSync(join(place.folder, "saved.tar"), await tarOf(names.map((name) => ({ name, content: "{}" }))));
			await expect(make("saved.tar")).rejects.toMatchObject({
				code: "build-failed",
				message: /saved\.tar is a container image with its layers/,
				hint: /docker export.*oci:/,
			});
			expect(place.leftovers()).toEqual([]);
		});
	}

	it("says which file is missing or no file", async () => {
		await expect(make("none.tar")).rejects.toMatchObject({ code: "not-found", message: /none\.tar .*ENOENT/ });
		await expect(make(".")).rejects.toMatchObject({ code: "not-found", message: /is no file/ });
	});

	it("names a damaged archive", async () => {
		writeFileSync(join(place.folder, "cut.tar"), (await tarOf(ROOT)).subarray(0, 1024));
		await expect(make("cut.tar")).rejects.toMatchObject({ code: "corrupt", message: /^cut\.tar is no whole tar/ });
	});
});

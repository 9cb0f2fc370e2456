import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/image/content-store.js";
import { Downloader } from "../../../src/image/download.js";
import { parseFsJson, parseV86FsJson } from "../../../src/image/fs-json.js";
import { ProgressTracker } from "../../../src/image/progress.js";
import type { SourceContext } from "../../../src/image/source.js";
import { tarSource } from "../../../src/image/sources/tar.js";
import { v86Source } from "../../../src/image/sources/v86.js";
import { type FileNode, Tree } from "../../../src/image/tree.js";
import { checkUserland } from "../../../src/image/userland.js";
import { silentLog } from "../../../src/log.js";

let folder: string;
let store: ContentStore;
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-source-"));
	store = new ContentStore(join(folder, "files"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function context(): SourceContext {
	return {
		store,
		downloader: new Downloader({ folder: join(folder, "downloads"), log: silentLog }),
		home: folder,
		recipeFolder: folder,
		packages: [],
		mirror: undefined,
		workInGuest: () => Promise.reject(new Error("no guest is needed")),
		progress: new ProgressTracker(() => {}),
		log: silentLog,
		signal: undefined,
	};
}

async function textAt(tree: Tree, path: string): Promise<string | undefined> {
	const node = tree.get(path);
	return node?.kind === "file" ? (await store.read(node.sha256)).toString() : undefined;
}

describe("a tar", () => {
	/** A root as `docker export` has it. */
	function makeTar(name: string, ...options: string[]): void {
		const root = join(folder, "root");
		rmSync(root, { recursive: true, force: true });
		mkdirSync(join(root, "bin"), { recursive: true });
		mkdirSync(join(root, "etc"), { recursive: true });
		writeFileSync(join(root, "bin", "busybox"), "program", { mode: 0o755 });
		symlinkSync("busybox", join(root, "bin", "sh"));
		writeFileSync(join(root, "etc", ".wh.kept"), "an ordinary file here");
		execFileSync("tar", [
			"-C",
			root,
			"--mtime=@1000",
			"--owner=0",
			"--group=0",
			...options,
			"-cf",
			join(folder, name),
			".",
		]);
	}

	it.each([
		["root.tar"],
		["root.tar.gz", "--gzip"],
		["root.tar.xz", "--xz"],
	])("%s gives its tree", async (name, ...options) => {
		makeTar(name, ...options);
		const lock = await tarSource.resolve(name, context());
		expect(lock).toMatchObject({ path: name });
		const { tree, epoch, env } = await tarSource.make(lock, context());
		expect(await textAt(tree, "bin/busybox")).toBe("program");
		expect(tree.get("bin/sh")).toMatchObject({ kind: "symlink", target: "busybox" });
		expect(await textAt(tree, "etc/.wh.kept")).toBe("an ordinary file here");
		expect({ epoch, env }).toEqual({ epoch: 1000, env: {} });
	});

	it("that is another one than the lock says is refused", async () => {
		makeTar("root.tar");
		const lock = await tarSource.resolve("root.tar", context());
		makeTar("root.tar", "--mtime=@2000");
		await expect(tarSource.make(lock, context())).rejects.toMatchObject({ code: "mismatch" });
	});

	it("that is missing, a folder, no tar or cut off is refused in words", async () => {
		await expect(tarSource.resolve("none.tar", context())).rejects.toThrow(/none\.tar can't be read \(ENOENT\)/);
		await expect(tarSource.resolve(".", context())).rejects.toThrow(/is no file/);
		makeTar("root.tar");
		execFileSync("truncate", ["-s", "1500", join(folder, "root.tar")]);
		writeFileSync(join(folder, "text.tar"), "hello ".repeat(1000));
		for (const name of ["root.tar", "text.tar"]) {
			const lock = await tarSource.resolve(name, context());
			await expect(tarSource.make(lock, context())).rejects.toThrow(/no whole tar archive/);
		}
		const left = existsSync(store.folder) ? readdirSync(store.folder) : [];
		expect(left.filter((name) => name.endsWith(".tmp"))).toEqual([]);
	});

	it("of docker save is told from a root", async () => {
		mkdirSync(join(folder, "saved"));
		writeFileSync(join(folder, "saved", "manifest.json"), "[]");
		execFileSync("tar", ["-C", join(folder, "saved"), "-cf", join(folder, "saved.tar"), "manifest.json"]);
		const lock = await tarSource.resolve("saved.tar", context());
		await expect(tarSource.make(lock, context())).rejects.toMatchObject({
			hint: expect.stringMatching(/docker export/),
		});
	});
});

describe("what v86's tools write", () => {
	const contents: Record<string, string> = { "bin/busybox": "program", "etc/motd": "hello\n", "etc/issue": "hello\n" };
	const shortHash = (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 8);

	/** fs.json and a flat folder as fs2json.py and copy-to-sha256.py make them of a tar. */
	function write(change: (entries: unknown[]) => unknown[] = (entries) => entries): void {
		const flat = join(folder, "flat");
		mkdirSync(flat, { recursive: true });
		for (const text of Object.values(contents)) writeFileSync(join(flat, `${shortHash(text)}.bin`), text);
		const file = (path: string, mode = 0o100644) => {
			const text = contents[path] ?? "";
			return [path.split("/")[1], text.length, 1000, mode, 0, 0, `${shortHash(text)}.bin`];
		};
		const fsroot = change([
			["bin", 0, 900, 0o040755, 0, 0, [file("bin/busybox", 0o100755), ["sh", 0, 900, 0o120777, 0, 0, "busybox"]]],
			["etc", 0, 900, 0o040755, 0, 0, [file("etc/motd"), file("etc/issue")]],
			["dev", 0, 900, 0o040755, 0, 0, [["console", 0, 900, 0o600, 0, 0]]],
		]);
		writeFileSync(join(folder, "fs.json"), JSON.stringify({ fsroot, version: 3, size: 100 }));
	}

	it("gives its tree under whole hashes, without devices", async () => {
		write();
		const lock = await v86Source.resolve("fs.json+flat", context());
		const { tree, epoch } = await v86Source.make(lock, context());
		expect(await textAt(tree, "bin/busybox")).toBe("program");
		expect((tree.get("etc/motd") as FileNode).sha256).toBe(createHash("sha256").update("hello\n").digest("hex"));
		expect(tree.get("bin/sh")).toMatchObject({ target: "busybox" });
		expect(tree.get("dev/console")).toBeUndefined();
		expect(epoch).toBe(1000);
	});

	it("may be packed with zstd", async (test) => {
		const hasZstd = spawnSync("zstd", ["--version"]).error === undefined;
		test.skip(!hasZstd, "this host has no zstd");
		const packed = (text: string) => execFileSync("zstd", ["-c"], { input: text });
		write((entries) => JSON.parse(JSON.stringify(entries).replaceAll(".bin", ".bin.zst")) as unknown[]);
		for (const text of Object.values(contents)) {
			writeFileSync(join(folder, "flat", `${shortHash(text)}.bin.zst`), packed(text));
		}
		const { tree } = await v86Source.make(await v86Source.resolve("fs.json+flat", context()), context());
		expect(await textAt(tree, "etc/motd")).toBe("hello\n");
	});

	it("with a file that is missing, longer or another is refused, with its path", async () => {
		write();
		const motd = join(folder, "flat", `${shortHash("hello\n")}.bin`);
		writeFileSync(motd, "other\n");
		await expect(v86Source.resolve("fs.json+flat", context())).rejects.toThrow(
			/\/etc\/\w+, is damaged: its SHA-256 is/,
		);
		rmSync(motd);
		await expect(v86Source.resolve("fs.json+flat", context())).rejects.toThrow(/\/etc\/\w+, can't be read \(ENOENT\)/);
		write((entries) => JSON.parse(JSON.stringify(entries).replace('"motd",6', '"motd",7')) as unknown[]);
		await expect(v86Source.resolve("fs.json+flat", context())).rejects.toThrow(/\/etc\/motd has 6 bytes.* says 7/);
	});

	it("that changed since the lock is refused", async () => {
		write();
		const lock = await v86Source.resolve("fs.json+flat", context());
		write((entries) => entries.slice(0, 1));
		await expect(v86Source.make(lock, context())).rejects.toMatchObject({ code: "mismatch" });
	});

	it("needs both of its names", async () => {
		for (const reference of ["fs.json", "+flat", "fs.json+"]) {
			await expect(v86Source.resolve(reference, context())).rejects.toMatchObject({ code: "invalid-argument" });
		}
		await expect(v86Source.resolve("none.json+flat", context())).rejects.toThrow(/none\.json can't be read/);
	});

	it("is no tree of ours, and never leads out of its folder", () => {
		const json = (name: string) => JSON.stringify({ version: 3, fsroot: [["a", 1, 0, 0o100644, 0, 0, name]] });
		expect(parseV86FsJson(json("01234567.bin"), "x").tree.get("a")).toMatchObject({ sha256: "01234567.bin" });
		expect(() => parseFsJson(json("01234567.bin"), "x")).toThrow(/no content/);
		for (const name of ["../01234567.bin", "/etc/passwd", "", "01234567.sh"]) {
			expect(() => parseV86FsJson(json(name), "x")).toThrow(/no content/);
		}
	});
});

describe("a userland", () => {
	/** The start of a program for this processor (elf.h: e_machine), of 32 or 64 bits. */
	function program(machine: number, bits: 32 | 64): Buffer {
		const head = Buffer.alloc(64);
		head.set([0x7f, 0x45, 0x4c, 0x46, bits === 32 ? 1 : 2, 1, 1]);
		head.writeUInt16LE(machine, 18);
		return head;
	}
	async function treeWith(path: string, content: Buffer | string): Promise<Tree> {
		const tree = new Tree();
		tree.set(path, { kind: "file", mode: 0o755, uid: 0, gid: 0, mtime: 0, ...(await store.put(content)) });
		return tree;
	}

	it("with a shell for 32-bit x86 becomes a machine, also where links lead to it", async () => {
		const tree = await treeWith("usr/bin/busybox", program(3, 32));
		const link = (target: string) => ({ kind: "symlink" as const, mode: 0o777, uid: 0, gid: 0, mtime: 0, target });
		tree.set("bin", link("usr/bin"));
		tree.set("usr/bin/sh", link("/bin/busybox"));
		await expect(checkUserland(tree, store, "x")).resolves.toBeUndefined();
	});

	it.each([
		[62, 64, /x86-64 \(amd64\)/],
		[183, 64, /arm64/],
		[62, 32, /x86-64/],
		[999, 32, /ELF number 999/],
	] as const)("for processor %i with %i bits is refused by its name", async (machine, bits, words) => {
		const tree = await treeWith("bin/sh", program(machine, bits));
		await expect(checkUserland(tree, store, "tar:x")).rejects.toThrow(words);
	});

	it("without a shell, or with one that is no program, is refused", async () => {
		await expect(checkUserland(new Tree(), store, "oci:x")).rejects.toThrow(/oci:x has no shell/);
		await expect(checkUserland(await treeWith("bin/sh", "#!/bin/x"), store, "x")).rejects.toThrow(/is no program/);
	});
});

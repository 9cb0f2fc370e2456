import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { extract, pack } from "tar-stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SandboxError } from "../../../src/errors.js";
import { exportImage } from "../../../src/image/export.js";
import { importImage } from "../../../src/image/import.js";
import { limits } from "../../../src/image/limits.js";
import { verifyImage } from "../../../src/image/store.js";
import { silentLog } from "../../../src/log.js";
import { addBootSnapshot, commitFixture, everythingIn, link, manifestText, sha256 } from "./image-fixture.js";

const log = silentLog;

interface Entry {
	name: string;
	content: Buffer;
	type?: "file" | "symlink" | "link" | "directory" | "character-device";
	linkname?: string;
}

type Json = Record<string, unknown>;

let folder: string;
let there: string;
let good: Entry[];
let file: string;

beforeEach(async () => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-hostile-"));
	there = join(folder, "there");
	file = join(folder, "base.tar.gz");
	const here = join(folder, "here");
	await commitFixture(here, "base", { "bin/a": "one", "bin/b": "two", big: Buffer.alloc(5000, 3), l: link("bin/a") });
	await addBootSnapshot(here, "base", 64, Buffer.from("state"));
	await exportImage(here, "base", file, { log });
	good = await entriesOf(gunzipSync(readFileSync(file)));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function entriesOf(tar: Buffer): Promise<Entry[]> {
	const parser = extract();
	parser.end(tar);
	const entries: Entry[] = [];
	for await (const entry of parser) {
		const chunks: Uint8Array[] = [];
		for await (const chunk of entry) chunks.push(chunk as Uint8Array);
		entries.push({ name: entry.header.name, content: Buffer.concat(chunks) });
	}
	return entries;
}

async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
	const packer = pack();
	for (const { content, ...header } of entries) packer.entry({ ...header, mtime: new Date(0) }, content);
	packer.finalize();
	const chunks: Uint8Array[] = [];
	for await (const chunk of packer) chunks.push(chunk as Uint8Array);
	return Buffer.concat(chunks);
}

/** Imports an archive of these entries, which must be refused and leave nothing at all. */
async function refused(entries: readonly Entry[]): Promise<string> {
	writeFileSync(file, gzipSync(await tarOf(entries)));
	return await refusedFile();
}

async function refusedFile(code = "corrupt"): Promise<string> {
	const error = await importImage(there, file, { log }).then(
		() => undefined,
		(reason: unknown) => reason,
	);
	expect(error).toBeInstanceOf(SandboxError);
	expect((error as SandboxError).code, (error as SandboxError).message).toBe(code);
	expectNothing();
	return (error as SandboxError).message.replace(`${file} can't be imported: `, "");
}

function expectNothing(): void {
	expect(everythingIn(there).filter((path) => path !== "builds")).toEqual([]);
}

function changed(name: string, content: string | Buffer): Entry[] {
	return good.map((entry) => (entry.name === name ? { ...entry, content: Buffer.from(content) } : entry));
}

const at = (index: number): Entry => good.at(index) ?? { name: "", content: Buffer.alloc(0) };

function withHeader(change: (header: Json) => void, entries: readonly Entry[] = good): Entry[] {
	const header = JSON.parse(at(0).content.toString()) as Json;
	change(header);
	return [{ ...at(0), content: Buffer.from(JSON.stringify(header)) }, ...entries.slice(1)];
}

/** An archive whose header and manifest agree with this fs.json. */
function withTree(text: string, contents = { files: 0, bytes: 0 }): Entry[] {
	const manifest = manifestText("base", sha256(text));
	return withHeader(
		(header) => {
			header.tree = { sha256: sha256(text), bytes: Buffer.byteLength(text) };
			header.manifest = { sha256: sha256(manifest), bytes: Buffer.byteLength(manifest) };
			header.bootSnapshots = [];
			header.contents = contents;
		},
		[at(0), { name: "manifest.json", content: Buffer.from(manifest) }, { name: "fs.json", content: Buffer.from(text) }],
	);
}

const treeOf = (fsroot: unknown) => JSON.stringify({ version: 3, size: 0, fsroot });

describe("a hostile image file", () => {
	it("starts from one that is taken", async () => {
		writeFileSync(file, gzipSync(await tarOf(good)));
		expect(await importImage(there, file, { log })).toMatchObject({ outcome: "new", bootSnapshots: [64] });
	});

	it("that is cut off anywhere leaves nothing", async () => {
		const whole = readFileSync(file);
		const lengths = [
			0,
			1,
			9,
			10,
			11,
			...Array.from({ length: 40 }, (_, step) => Math.floor((whole.length * step) / 40)),
		];
		for (const length of [...lengths, whole.length - 8, whole.length - 1]) {
			writeFileSync(file, whole.subarray(0, length));
			await refusedFile();
		}
	});

	it("whose tar is cut off at a block leaves nothing", async () => {
		const tar = await tarOf(good);
		for (let length = 0; length < tar.length; length += 512) {
			writeFileSync(file, gzipSync(tar.subarray(0, length)));
			await refusedFile();
		}
	});

	it("with flipped bits is refused, or holds the very same image", async () => {
		const whole = readFileSync(file);
		await fc.assert(
			fc.asyncProperty(fc.nat(whole.length * 8 - 1), async (bit) => {
				const bytes = Buffer.from(whole);
				bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
				await isRefusedOrSame(bytes);
			}),
			{ numRuns: 60 },
		);
	}, 60_000);

	it("whose tar has flipped bits is refused, or holds the very same tree", async () => {
		const tar = await tarOf(good);
		await fc.assert(
			fc.asyncProperty(fc.nat(tar.length * 8 - 1), async (bit) => {
				const bytes = Buffer.from(tar);
				bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
				await isRefusedOrSame(gzipSync(bytes, { level: 1 }));
			}),
			{ numRuns: 60 },
		);
	}, 60_000);

	async function isRefusedOrSame(bytes: Buffer): Promise<void> {
		writeFileSync(file, bytes);
		const outcome = await importImage(there, file, { log }).catch((error: unknown) => error);
		if (outcome instanceof Error) {
			expect(outcome).toMatchObject({ code: expect.stringMatching(/^(corrupt|invalid-argument)$/) });
			expectNothing();
			return;
		}
		expect(readFileSync(join(there, "images/base/fs.json")).equals(at(2).content)).toBe(true);
		expect(await verifyImage(there, "base")).toEqual([]);
		rmSync(there, { recursive: true });
	}

	it("of random bytes is refused", async () => {
		await fc.assert(
			fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), fc.boolean(), async (bytes, compressed) => {
				writeFileSync(file, compressed ? gzipSync(bytes) : bytes);
				await refusedFile();
			}),
			{ numRuns: 50 },
		);
	});

	it("with a wrong hash or size anywhere is refused with the name of what is wrong", async () => {
		const content = good.find(({ name }) => name.startsWith("files/"))?.name ?? "";
		expect(await refused(changed(content, Buffer.alloc(5000, 4)).slice())).toContain(`${content} has`);
		expect(await refused(changed("manifest.json", manifestText("base", "0".repeat(64))))).toContain(
			"manifest.json is damaged",
		);
		expect(await refused(changed("fs.json", at(2).content.toString().replace("bin", "nib")))).toContain(
			"fs.json is damaged",
		);
		expect(await refused(changed("fs.json", "{}"))).toContain("fs.json has 2 bytes instead of");
		expect(await refused(changed(at(3).name, Buffer.alloc(at(3).content.length)))).toContain(
			"boot/64mib.sbx86 is damaged",
		);
		const second = good.at(-2);
		const swapped = good.map((entry) =>
			entry === second ? { ...entry, content: Buffer.alloc(entry.content.length) } : entry,
		);
		expect(await refused(swapped)).toContain(`${second?.name} is damaged: its SHA-256 is`);
	});

	it("with an entry too many, too few, twice, in another order or of another kind is refused", async () => {
		expect(await refused([...good, { name: "extra", content: Buffer.from("x") }])).toContain("an entry too many");
		expect(await refused(good.slice(0, -1))).toContain("entries are missing at its end");
		expect(await refused([...good, at(-1)])).toContain("it has an entry too many");
		expect(await refused([...good.slice(0, 4), at(4), ...good.slice(4)])).toContain("where files/");
		expect(await refused([at(0), at(2), at(1), ...good.slice(3)])).toContain('"fs.json" where manifest.json belongs');
		expect(await refused(good.slice(1))).toContain("does not start with sandbox86-image.json");
		const asLink = { ...at(-1), type: "symlink" as const, linkname: "/etc/passwd", content: Buffer.alloc(0) };
		expect(await refused([...good.slice(0, -1), asLink])).toContain("is a symlink, not a file");
		const asHardLink = { ...asLink, type: "link" as const };
		expect(await refused([...good.slice(0, -1), asHardLink])).toContain("is a link, not a file");
	});

	it.each([
		"../x",
		"/etc/passwd",
		"files/../../x",
		"files/..",
		"boot/../../evil",
		"files/\u0000",
	])("cannot write to %j", async (name) => {
		const message = await refused([...good.slice(0, -1), { ...at(-1), name }]);
		expect(message).toMatch(/where files\/[0-9a-f]{64} belongs|no whole tar/);
	});

	it.each<[string, (header: Json) => void, string]>([
		["another format", (h) => (h.format = 2), "its format is version 2, this program reads version 1"],
		["a field that is not known", (h) => (h.run = "rm"), "sandbox86-image.json is wrong at the top"],
		["a name that is no name", (h) => (h.name = "../base"), 'not an image name: "../base"'],
		["the name of another image", (h) => (h.name = "other"), "speak of different images"],
		["more contents than there are", (h) => (h.contents = { files: 9, bytes: 9 }), "it says that it has 9 contents"],
		["an endless tree", (h) => (h.tree = { sha256: "0".repeat(64), bytes: 1e15 }), "wrong at tree.bytes"],
		["endless contents", (h) => (h.contents = { files: 1, bytes: 1e18 }), "wrong at contents.bytes"],
	])("whose header has %s is refused", async (_, change, message) => {
		writeFileSync(file, gzipSync(await tarOf(withHeader(change))));
		const error = await importImage(there, file, { log }).catch((reason: unknown) => reason);
		expect((error as Error).message).toContain(message);
		expectNothing();
	});

	it("whose boot snapshot is of another machine is refused", async () => {
		const entries = changed(at(3).name, at(3).content);
		expect(
			await refused(
				withHeader(
					(header) => {
						const [first] = header.bootSnapshots as Json[];
						if (first !== undefined) first.memoryMiB = 128;
					},
					entries.map((entry) => (entry === entries[3] ? { ...entry, name: "boot/128mib.sbx86" } : entry)),
				),
			),
		).toBe("boot/128mib.sbx86 is a snapshot of another machine");
	});

	it("of a program with another kernel is taken without its boot snapshots", async () => {
		const entries = withHeader((header) => (header.digest = "0".repeat(64)));
		writeFileSync(file, gzipSync(await tarOf(entries)));
		expect(await importImage(there, file, { log })).toMatchObject({
			bootSnapshots: [],
			bootSnapshotsLeftOut: expect.stringContaining("kernel, init or firmware"),
		});
		expect(everythingIn(join(there, "images/base/boot"))).toEqual([]);
	});

	it.each<[string, unknown, string]>([
		["a name with a slash", [["a/b", 0, 0, 0o100644, 0, 0, "0".repeat(64)]], "not a file name"],
		["the name ..", [["..", 0, 0, 0o40755, 0, 0, []]], "not a file name"],
		["one name twice", [1, 2].map(() => ["a", 0, 0, 0o40755, 0, 0, []]), "occurs twice"],
		["a content that is no hash", [["a", 0, 0, 0o100644, 0, 0, "0123abcd"]], "/a: no content"],
		["a name that is too long", [["a".repeat(256), 0, 0, 0o40755, 0, 0, []]], "a name longer than 255 bytes"],
		["an empty link", [["a", 0, 0, 0o120777, 0, 0, ""]], "/a: no target"],
		["a time that is none", [["a", 0, -1, 0o40755, 0, 0, []]], "not an attribute"],
		["a device", [["a", 0, 0, 0o20644, 0, 0]], "neither folder, file nor link"],
		[
			"one content of two sizes",
			[1, 2].map((n) => [`f${n}`, n, 0, 0o100644, 0, 0, "0".repeat(64)]),
			"one content of two sizes",
		],
	])("whose tree has %s is refused", async (_, fsroot, message) => {
		expect(await refused(withTree(treeOf(fsroot)))).toContain(message);
	});

	it("whose tree is as deep as a well is refused", async () => {
		for (const depth of [3000, 100_000]) {
			const nested = `${'["d",0,0,16877,0,0,['.repeat(depth)}${"]]".repeat(depth)}`;
			expect(await refused(withTree(`{"version":3,"fsroot":[${nested}]}`))).toMatch(/too long|too deep/);
		}
	});

	it("whose tree claims ten million entries is refused before they are made", async () => {
		const entry = '["",0,0,0,0,0],';
		const text = `{"version":3,"fsroot":[${entry.repeat(10_000_000)}0]}`;
		expect(await refused(withTree(text))).toBe(`${file}: fs.json: more than ${limits.maxTreeEntries} entries`);
	}, 60_000);

	it("with ten million entries is refused at the first one that is not announced", async () => {
		const one = (await tarOf([{ name: "x", content: Buffer.alloc(0) }])).subarray(0, 512);
		const tar = Buffer.concat([(await tarOf(good)).subarray(0, -1024), ...Array(20_000).fill(one), Buffer.alloc(1024)]);
		writeFileSync(file, gzipSync(tar));
		expect(await refusedFile()).toMatch(/an entry too many|swells/);
	});

	it("that swells to more than it announces is refused", async () => {
		const tar = (await tarOf(good)).subarray(0, -1024);
		writeFileSync(file, gzipSync(Buffer.concat([tar, Buffer.alloc(300 * 2 ** 20)])));
		expect(await refusedFile()).toMatch(/swells to more than the \d+ bytes/);
		const header = (await tarOf([{ name: "sandbox86-image.json", content: Buffer.alloc(2 ** 20, " ") }])).subarray(
			0,
			-1024,
		);
		writeFileSync(file, gzipSync(header));
		expect(await refusedFile()).toMatch(/sandbox86-image.json is longer than \d+ bytes|swells/);
	});

	it("cannot flood the terminal with control characters", async () => {
		const message = await refused([...good, { name: "\u001b[2Jx", content: Buffer.alloc(0) }]);
		expect(message).toBe('it has an entry too many: "\\u001b[2Jx"');
	});
});

describe("a disk that is full", () => {
	it("leaves nothing of an import", async (context) => {
		mkdirSync(there);
		try {
			execFileSync("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs", there], { stdio: "ignore" });
		} catch {
			context.skip("needs root to mount a tmpfs");
		}
		try {
			// What is announced does not fit: nothing is written.
			const bytes = 100 * 2 ** 20;
			const fsroot = [["big", bytes, 0, 0o100644, 0, 0, "0".repeat(64)]];
			writeFileSync(file, gzipSync(await tarOf(withTree(treeOf(fsroot), { files: 1, bytes }))));
			await expect(importImage(there, file, { log })).rejects.toMatchObject({
				code: "no-space",
				message: `${there} has 63 MiB free, the image base needs 116`,
			});
			expectNothing();
			// Somebody else fills the disk meanwhile.
			const content = randomBytes(40 * 2 ** 20);
			const here = join(folder, "here");
			await commitFixture(here, "base", { content });
			await exportImage(here, "base", file, { log, force: true });
			const filler = join(there, "filler");
			const error = await importImage(there, file, {
				log,
				get signal(): AbortSignal {
					const isWriting = everythingIn(join(there, "builds")).some((path) => path.endsWith("files"));
					if (isWriting && !existsSync(filler)) writeFileSync(filler, Buffer.alloc(30 * 2 ** 20));
					return new AbortController().signal;
				},
			}).catch((reason: unknown) => reason);
			rmSync(filler);
			expect(error).toMatchObject({ code: "no-space", message: expect.stringContaining("the disk is full") });
			expectNothing();
			await expect(importImage(there, file, { log })).resolves.toMatchObject({ outcome: "new" });
			// And an export.
			writeFileSync(filler, Buffer.alloc(20 * 2 ** 20));
			const target = join(there, "out.tar.gz");
			await expect(exportImage(there, "base", target, { log })).rejects.toMatchObject({
				code: "no-space",
				message: `no space for ${target}: writing it failed with ENOSPC; nothing of it was kept`,
			});
			expect(everythingIn(there).filter((path) => path.includes("out.tar.gz"))).toEqual([]);
		} finally {
			execFileSync("umount", [there]);
		}
	});
});

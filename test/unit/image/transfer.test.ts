import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { exportImage } from "../../../src/image/export.js";
import { importImage } from "../../../src/image/import.js";
import { listImages, loadImage, verifyImage } from "../../../src/image/store.js";
import { silentLog } from "../../../src/log.js";
import { findBootSnapshot } from "../../../src/vm/boot-snapshot.js";
import { addBootSnapshot, commitFixture, everythingIn, link, sha256 } from "./image-fixture.js";

const log = silentLog;
const FILES = { "bin/a": "one", "bin/b": "two", "bin/same": "one", empty: "", "lib/l": link("/bin/a") };

let folder: string;
let here: string;
let there: string;
let file: string;

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-transfer-"));
	here = join(folder, "here");
	there = join(folder, "there");
	file = join(folder, "base.tar.gz");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const treeOf = (home: string, name: string) => readFileSync(join(home, "images", name, "fs.json"), "utf8");

describe("an exported image", () => {
	it("is the same image on another computer, boot snapshots included", async () => {
		await commitFixture(here, "base", FILES);
		await addBootSnapshot(here, "base", 512, Buffer.alloc(3_000_000, 7));
		await addBootSnapshot(here, "base", 64, Buffer.from("state"));
		const exported = await exportImage(here, "base", file, { log });
		expect(exported).toMatchObject({
			path: file,
			sha256: sha256(readFileSync(file)),
			bytes: readFileSync(file).length,
		});
		const digest = (await loadImage(here, "base")).digest;
		expect(await importImage(there, file, { log })).toEqual({
			name: "base",
			outcome: "new",
			digest,
			files: 3,
			bytes: 6,
			bootSnapshots: [64, 512],
			bootSnapshotsLeftOut: undefined,
		});
		expect(treeOf(there, "base")).toBe(treeOf(here, "base"));
		expect(await verifyImage(there, "base")).toEqual([]);
		const image = await loadImage(there, "base");
		expect(image).toMatchObject({ digest, warmCommands: ["true"] });
		expect(await findBootSnapshot(image, 512, log)).toMatchObject({ bytes: 3_000_000 });
		expect(readdirSync(join(there, "builds"))).toEqual([]);
	});

	it("has the same bytes every time", async () => {
		await commitFixture(here, "base", FILES);
		await addBootSnapshot(here, "base", 64, Buffer.from("state"));
		const first = await exportImage(here, "base", file, { log });
		const second = await exportImage(here, "base", join(folder, "again.tar.gz"), { log });
		expect(second.sha256).toBe(first.sha256);
		await importImage(there, file, { log });
		expect((await exportImage(there, "base", join(folder, "third.tar.gz"), { log })).sha256).toBe(first.sha256);
	});

	it("replaces no file unless it is told to", async () => {
		await commitFixture(here, "base", FILES);
		writeFileSync(file, "mine");
		await expect(exportImage(here, "base", file, { log })).rejects.toMatchObject({ code: "already-exists" });
		expect(readFileSync(file, "utf8")).toBe("mine");
		await exportImage(here, "base", file, { log, force: true });
		expect((await importImage(there, file, { log })).outcome).toBe("new");
	});

	it.each([
		["missing", (path: string) => rmSync(path)],
		["cut", (path: string) => truncateSync(path, 1)],
		["longer", (path: string) => writeFileSync(path, "one more")],
		["flipped", (path: string) => writeFileSync(path, "onE")],
	])("is not written where a content is %s, and nothing is left", async (_, damage) => {
		await commitFixture(here, "base", FILES);
		const content = join(here, "files", sha256("one"));
		damage(content);
		await expect(exportImage(here, "base", file, { log })).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringContaining(content),
		});
		expect(everythingIn(folder).filter((path) => path.startsWith("."))).toEqual([]);
		expect(() => readFileSync(file)).toThrow("ENOENT");
	});

	it("leaves out a boot snapshot that is damaged", async () => {
		await commitFixture(here, "base", FILES);
		await addBootSnapshot(here, "base", 64, Buffer.from("state"));
		await addBootSnapshot(here, "base", 128, Buffer.from("state"));
		truncateSync(join(here, "images/base/boot/128mib.sbx86"), 70);
		const { header } = await exportImage(here, "base", file, { log });
		expect(header.bootSnapshots.map(({ memoryMiB }) => memoryMiB)).toEqual([64]);
	});

	it("of a name that is no image, or of tiny, is refused with the reason", async () => {
		await expect(exportImage(here, "tiny", file, { log })).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(exportImage(here, "base", file, { log })).rejects.toMatchObject({ code: "image-missing" });
	});
});

describe("an import", () => {
	beforeEach(async () => {
		await commitFixture(here, "base", FILES);
		await exportImage(here, "base", file, { log });
	});

	it("gives the image another name where it is told to", async () => {
		expect(await importImage(there, file, { log, name: "other" })).toMatchObject({ name: "other" });
		expect((await listImages(there)).find(({ name }) => name === "other")).toMatchObject({
			state: "built",
			manifest: { name: "other" },
		});
		expect(await verifyImage(there, "other")).toEqual([]);
	});

	it("of the same image is harmless", async () => {
		await importImage(there, file, { log });
		expect(await importImage(there, file, { log })).toMatchObject({ outcome: "present" });
		expect(await verifyImage(there, "base")).toEqual([]);
	});

	it("replaces another image of its name only by force", async () => {
		await commitFixture(there, "base", { a: "another" });
		await expect(importImage(there, file, { log })).rejects.toMatchObject({
			code: "already-exists",
			message: "there is another image base already, created 2026-01-02",
			hint: expect.stringContaining("--force: snapshots that were taken of its machine then fit no more"),
		});
		expect(everythingIn(join(there, "files"))).toEqual([sha256("another")]);
		expect(await importImage(there, file, { log, force: true })).toMatchObject({ outcome: "replaced" });
		expect(treeOf(there, "base")).toBe(treeOf(here, "base"));
		expect(everythingIn(join(there, "files"))).not.toContain(sha256("another"));
	});

	it("by force repairs a damaged content", async () => {
		await importImage(there, file, { log });
		writeFileSync(join(there, "files", sha256("one")), "onE");
		expect(await importImage(there, file, { log, force: true })).toMatchObject({ outcome: "rewritten" });
		expect(await verifyImage(there, "base")).toEqual([]);
	});

	it("of two at once leaves one whole image", async () => {
		const outcomes = await Promise.all([importImage(there, file, { log }), importImage(there, file, { log })]);
		expect(outcomes.map(({ outcome }) => outcome).sort()).toEqual(["new", "present"]);
		expect(await verifyImage(there, "base")).toEqual([]);
		expect(everythingIn(join(there, "builds"))).toEqual([]);
	});

	it("of a file that is not there says so", async () => {
		await expect(importImage(there, join(folder, "no"), { log })).rejects.toMatchObject({ code: "not-found" });
		await expect(importImage(there, folder, { log })).rejects.toMatchObject({ code: "invalid-argument" });
	});

	it("as tiny is refused", async () => {
		await expect(importImage(there, file, { log, name: "tiny" })).rejects.toMatchObject({ code: "invalid-argument" });
	});
});

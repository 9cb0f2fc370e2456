import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { buildImage, readBuildProgress } from "../../../src/image/build.js";
import { ContentStore } from "../../../src/image/content-store.js";
import { serializeFsJson } from "../../../src/image/fs-json.js";
import type { ImageManifest } from "../../../src/image/manifest.js";
import { acquireLock, lockOwner } from "../../../src/image/process-lock.js";
import { ProgressFile } from "../../../src/image/progress-file.js";
import { parseRecipe } from "../../../src/image/recipe.js";
import { commitImage, listImages, loadImage, removeImage, verifyImage } from "../../../src/image/store.js";
import { Tree } from "../../../src/image/tree.js";
import { silentLog } from "../../../src/log.js";

let home: string;

beforeEach(() => {
	home = mkdtempSync(join(tmpdir(), "sandbox86-store-"));
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

/** Commits an image made of these files, by guest path. */
async function commit(name: string, files: Record<string, string>): Promise<void> {
	const staging = join(home, "staging");
	const store = new ContentStore(join(staging, "files"));
	const tree = new Tree();
	const plain = { mode: 0o644, uid: 0, gid: 0, mtime: 0 };
	for (const [path, content] of Object.entries(files))
		tree.set(path, { kind: "file", ...plain, ...(await store.put(content)) });
	const text = serializeFsJson(tree);
	const manifest: ImageManifest = {
		format: 2,
		name,
		created: new Date().toISOString(),
		builtBy: "test",
		recipe: parseRecipe(JSON.stringify({ name, from: "debian:trixie" }), "test"),
		lock: { format: 1, from: "debian:trixie", inputs: {} },
		inputsDigest: "0".repeat(64),
		packages: [],
		treeSha256: createHash("sha256").update(text).digest("hex"),
		entries: 1,
		fileBytes: 1,
		buildMs: 1,
	};
	mkdirSync(join(staging, "image"), { recursive: true });
	writeFileSync(join(staging, "image", "fs.json"), text);
	writeFileSync(join(staging, "image", "manifest.json"), JSON.stringify(manifest));
	await commitImage(home, name, join(staging, "image"), store);
	rmSync(staging, { recursive: true, force: true });
}

const contentNames = () => readdirSync(join(home, "files")).sort();
const fileOf = (content: string) => join(home, "files", createHash("sha256").update(content).digest("hex"));

describe("the image store", () => {
	it("tiny is always there", async () => {
		expect(await loadImage(home, "tiny")).toMatchObject({
			name: "tiny",
			digest: expect.stringMatching(/^[0-9a-f]{64}$/),
		});
		expect(await verifyImage(home, "tiny")).toEqual([]);
	});

	it("an image that is not built says how to build it, an unknown one says what there is", async () => {
		await expect(loadImage(home, "base")).rejects.toMatchObject({
			code: "image-missing",
			hint: "build it with: sandbox86 image build base",
		});
		await expect(loadImage(home, "nonsense")).rejects.toMatchObject({ code: "not-found" });
		await expect(loadImage(home, "../base")).rejects.toMatchObject({ code: "invalid-argument" });
	});

	it("an image that is built is loaded, listed and verified", async () => {
		await commit("base", { "a/b": "one", c: "two" });
		expect(await loadImage(home, "base")).toMatchObject({ name: "base", filesPath: join(home, "files") });
		expect((await listImages(home)).find(({ name }) => name === "base")).toMatchObject({ state: "built" });
		expect(await verifyImage(home, "base")).toEqual([]);
	});

	it("building anew replaces the image and removes what only the old one used", async () => {
		await commit("base", { a: "one", b: "two" });
		await commit("base", { a: "one", b: "three" });
		expect(contentNames()).toEqual([fileOf("one"), fileOf("three")].map((path) => path.slice(-64)).sort());
		expect(readdirSync(join(home, "images"))).toEqual(["base"]);
	});

	it("removing an image keeps what another one shares", async () => {
		await commit("base", { a: "shared", b: "own" });
		await commit("other", { a: "shared" });
		expect(await removeImage(home, "base")).toEqual({ files: 1, bytes: 3 });
		expect(await verifyImage(home, "other")).toEqual([]);
		await expect(removeImage(home, "base")).rejects.toMatchObject({ code: "not-found" });
	});

	it("a missing, a cut and a flipped file are each told apart, with their place in the guest", async () => {
		await commit("base", { gone: "gone", cut: "cut off", flipped: "flipped", fine: "fine" });
		rmSync(fileOf("gone"));
		truncateSync(fileOf("cut off"), 3);
		writeFileSync(fileOf("flipped"), "flopped");
		const problems = await verifyImage(home, "base");
		expect(problems.map(({ guestPath, kind, detail }) => [guestPath, kind, detail.slice(0, 14)])).toEqual([
			["/cut", "truncated", "3 of 7 bytes"],
			["/flipped", "changed", "its SHA-256 is"],
			["/gone", "missing", "it does not ex"],
		]);
	});

	it("a damaged tree or manifest is refused with its path", async () => {
		await commit("base", { a: "one" });
		const treePath = join(home, "images", "base", "fs.json");
		writeFileSync(treePath, readFileSync(treePath, "utf8").replace('"a"', '"b"'));
		await expect(loadImage(home, "base")).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringContaining(treePath),
		});
		expect(await verifyImage(home, "base")).toMatchObject([{ kind: "changed" }]);
		writeFileSync(join(home, "images", "base", "manifest.json"), "{");
		await expect(loadImage(home, "base")).rejects.toMatchObject({ code: "corrupt" });
		expect((await listImages(home)).find(({ name }) => name === "base")).toMatchObject({ state: "damaged" });
	});

	it("tiny can be neither built nor removed", async () => {
		await expect(removeImage(home, "tiny")).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(buildImage(home, "tiny", { log: silentLog })).rejects.toMatchObject({ code: "invalid-argument" });
	});
});

describe("the build lock", () => {
	const path = () => join(home, "builds", "lock");

	it("is held by one at a time", async () => {
		const order: string[] = [];
		const first = await acquireLock(path(), "first");
		const second = acquireLock(path(), "second", {
			onWait: (owner) => {
				order.push(`waits for ${owner.purpose}`);
				void first.release();
			},
		}).then((lock) => {
			order.push("second");
			return lock;
		});
		await (await second).release();
		expect(order).toEqual(["waits for first", "second"]);
		expect(await lockOwner(path())).toBeUndefined();
	});

	it("of a process that was killed is taken over", async () => {
		const child = spawn(process.execPath, ["-e", "process.stdin.resume()"], { stdio: ["pipe", "ignore", "ignore"] });
		const gone = new Promise((resolve) => child.once("exit", resolve));
		mkdirSync(join(home, "builds"));
		writeFileSync(path(), JSON.stringify({ pid: child.pid, started: "", purpose: "base", token: "x" }));
		expect(await lockOwner(path())).toMatchObject({ purpose: "base" });
		child.kill("SIGKILL");
		await gone;
		const lock = await acquireLock(path(), "mine");
		expect(await lockOwner(path())).toMatchObject({ pid: process.pid, purpose: "mine" });
		await lock.release();
	});

	it("of an earlier process with the same number is taken over", async () => {
		mkdirSync(join(home, "builds"));
		writeFileSync(path(), JSON.stringify({ pid: process.pid, started: "another boot 1", purpose: "base", token: "x" }));
		await (await acquireLock(path(), "mine")).release();
	});

	it("that is damaged is taken over", async () => {
		mkdirSync(join(home, "builds"));
		writeFileSync(path(), "");
		await (await acquireLock(path(), "mine")).release();
	});

	it("held by another process lets its progress be seen", async () => {
		const lock = await acquireLock(path(), "base");
		const progress = { phase: "configure", stage: "setting up packages", fraction: 0.5, etaMs: 1000 };
		const file = new ProgressFile(join(home, "builds"), silentLog);
		file.update({ ...progress, bytesPerSecond: undefined });
		while ((await readBuildProgress(home)) === undefined) await new Promise((resolve) => setImmediate(resolve));
		// The next one comes too soon to be written.
		file.update({ ...progress, fraction: 0.9, bytesPerSecond: undefined });
		expect(await readBuildProgress(home)).toMatchObject({ name: "base", fraction: 0.5 });
		await file.end();
		expect(readdirSync(join(home, "builds"))).toEqual(["lock"]);
		await lock.release();
		expect(await readBuildProgress(home)).toBeUndefined();
	});

	it("waiting for it ends when the caller gives up", async () => {
		const lock = await acquireLock(path(), "base");
		const controller = new AbortController();
		const waiting = acquireLock(path(), "other", { signal: controller.signal, onWait: () => controller.abort() });
		await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
		await lock.release();
	});
});

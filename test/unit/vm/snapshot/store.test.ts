import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { silentLog } from "../../../../src/log.js";
import type { MachineSaved } from "../../../../src/vm/machine.js";
import { openSnapshotStore, type SnapshotStore } from "../../../../src/vm/snapshot/store.js";

let folder: string;
let store: SnapshotStore;

beforeEach(async () => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-snapshots-"));
	store = await openSnapshotStore(folder, silentLog);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function saved(bytes: Uint8Array, state?: AsyncIterable<Uint8Array>): MachineSaved {
	return {
		imageName: "tiny",
		imageDigest: "0".repeat(64),
		memoryMiB: 128,
		emulatorVersion: "0.5.462",
		openFlows: [],
		stateBytes: bytes.length,
		state: state ?? pieces(bytes),
	};
}

/** The state in pieces that all use the same memory, as a careful reader must expect. */
async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
	const buffer = new Uint8Array(1000);
	for (let at = 0; at < bytes.length; at += buffer.length) {
		const length = Math.min(buffer.length, bytes.length - at);
		buffer.set(bytes.subarray(at, at + length));
		yield buffer.subarray(0, length);
	}
}

async function readBack(idOrName: string): Promise<Buffer> {
	const opened = await store.open(idOrName);
	try {
		const chunks: Uint8Array[] = [];
		for await (const chunk of opened.state) chunks.push(chunk);
		return Buffer.concat(chunks);
	} finally {
		await opened.close();
	}
}

function onlyFile(): string {
	const names = readdirSync(folder);
	expect(names).toHaveLength(1);
	return join(folder, names[0] ?? "");
}

describe("the snapshot store", () => {
	it("gives back by id and by name what was saved", async () => {
		const bytes = randomBytes(3_500_123);
		const { header, sizeBytes } = await store.save(saved(bytes), { name: "first", description: "before the change" });
		expect(sizeBytes).toBe(readFileSync(onlyFile()).length);
		expect(header).toMatchObject({
			name: "first",
			description: "before the change",
			imageName: "tiny",
			memoryMiB: 128,
		});
		expect(header.stateSha256).toBe(createHash("sha256").update(bytes).digest("hex"));
		expect((await readBack("first")).equals(bytes)).toBe(true);
		expect((await readBack(header.id)).equals(bytes)).toBe(true);
		const unnamed = await store.save(saved(Buffer.from("x")), {});
		expect((await readBack(unnamed.header.id)).toString()).toBe("x");
		expect((await store.list()).map((found) => found.header.id).sort()).toEqual([header.id, unnamed.header.id].sort());
	});

	it("refuses a name that is taken and leaves nothing behind", async () => {
		await store.save(saved(Buffer.from("one")), { name: "n" });
		await expect(store.checkNameIsFree("n")).rejects.toMatchObject({ code: "already-exists" });
		await expect(store.save(saved(Buffer.from("two")), { name: "n" })).rejects.toMatchObject({
			code: "already-exists",
		});
		expect((await readBack("n")).toString()).toBe("one");
		onlyFile();
	});

	it("gives a name to one of two that save it at once", async () => {
		const other = await openSnapshotStore(folder, silentLog);
		const both = await Promise.allSettled([
			store.save(saved(randomBytes(10_000)), { name: "race" }),
			other.save(saved(randomBytes(10_000)), { name: "race" }),
		]);
		expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
		onlyFile();
	});

	it.each([
		"",
		"a/b",
		"../x",
		"a b",
		"x".repeat(65),
		"s-20260101-000000-0123abcd",
	])("refuses the name %j", async (name) => {
		await expect(store.save(saved(Buffer.from("x")), { name })).rejects.toMatchObject({ code: "invalid-argument" });
	});

	it("says which snapshots there are when one is unknown", async () => {
		await expect(store.open("x")).rejects.toMatchObject({
			code: "not-found",
			hint: expect.stringContaining("no snapshots yet"),
		});
		await store.save(saved(Buffer.from("x")), { name: "known" });
		for (const wrong of ["unknown", "../known", "s-20260101-000000-0123abcd", "a\0b"]) {
			await expect(store.open(wrong)).rejects.toMatchObject({ code: "not-found", hint: "there is known" });
		}
	});

	it("removes a snapshot", async () => {
		const { header } = await store.save(saved(Buffer.from("x")), { name: "gone" });
		await store.remove(header.id);
		expect(readdirSync(folder)).toEqual([]);
	});

	it("leaves nothing behind when the machine dies halfway or tells a wrong length", async () => {
		const bytes = randomBytes(5000);
		const dying = (async function* () {
			yield bytes.subarray(0, 2000);
			throw new Error("the machine died");
		})();
		await expect(store.save(saved(bytes, dying), {})).rejects.toThrow("the machine died");
		await expect(store.save({ ...saved(bytes), stateBytes: 4999 }, {})).rejects.toMatchObject({ code: "internal" });
		expect(readdirSync(folder)).toEqual([]);
	});

	it("removes on close what is being written", async () => {
		let release: () => void = () => {};
		const waiting = new Promise<void>((resolve) => {
			release = resolve;
		});
		const slow = (async function* () {
			yield Buffer.from("abc");
			await waiting;
		})();
		const saving = store.save(saved(Buffer.from("abc"), slow), {}).catch((error: unknown) => error);
		await expect.poll(() => readdirSync(folder).length).toBe(1);
		store.close();
		expect(readdirSync(folder)).toEqual([]);
		release();
		expect(await saving).toMatchObject({ code: "cancelled" });
	});

	it("removes leftovers of dead processes at start, and leaves those of living ones", async () => {
		const dead = spawnSync(process.execPath, ["-e", ""]).pid;
		const alive = process.ppid;
		const old = new Date(Date.now() - 60_000);
		for (const pid of [dead, alive]) {
			const path = join(folder, `.tmp-${pid}-0123456789ab`);
			writeFileSync(path, "unfinished");
			utimesSync(path, old, old);
		}
		writeFileSync(join(folder, `.tmp-${dead}-ba9876543210`), "just written, perhaps in another container");
		await openSnapshotStore(folder, silentLog);
		expect(readdirSync(folder).sort()).toEqual([`.tmp-${dead}-ba9876543210`, `.tmp-${alive}-0123456789ab`].sort());
	});
});

describe("a damaged snapshot file", () => {
	const bytes = randomBytes(50_000);
	let path: string;
	beforeEach(async () => {
		await store.save(saved(bytes), { name: "hurt" });
		path = onlyFile();
	});

	async function expectCorrupt(): Promise<void> {
		await expect(store.open("hurt")).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringContaining(path),
			hint: expect.stringContaining("delete that file"),
		});
	}

	it("is refused wherever it was cut", async () => {
		const size = readFileSync(path).length;
		for (const length of [size - 1, size - 30_000, 300, 48, 47, 8, 1, 0]) {
			truncateSync(path, length);
			await expectCorrupt();
		}
	});

	it("is refused when it has grown", async () => {
		writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.from("x")]));
		await expectCorrupt();
	});

	it("is refused wherever a bit was flipped", async () => {
		const original = readFileSync(path);
		for (let at = 0; at < original.length; at += at < 600 ? 7 : 4999) {
			const flipped = Buffer.from(original);
			flipped[at] = (flipped[at] ?? 0) ^ 0x10;
			writeFileSync(path, flipped);
			await expectCorrupt();
		}
	});

	it("does not hide the others from the list", async () => {
		await store.save(saved(Buffer.from("x")), { name: "whole" });
		truncateSync(path, 10);
		expect((await store.list()).map(({ header }) => header.name)).toEqual(["whole"]);
	});
});

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { silentLog } from "../../src/log.js";
import { runSnapshotCommand, SNAPSHOT_USAGE } from "../../src/snapshot-commands.js";
import { openSnapshotStore } from "../../src/vm/snapshot/store.js";

let folder: string;
let printed: string;
beforeEach(async () => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-snapshots-"));
	printed = "";
	const store = await openSnapshotStore(folder, silentLog);
	const saved = {
		imageName: "tiny",
		imageDigest: "0".repeat(64),
		memoryMiB: 128,
		emulatorVersion: "0.5.462",
		openFlows: [],
		stateBytes: 3,
	};
	const state = async function* () {
		yield new Uint8Array(3);
	};
	await store.save({ ...saved, state: state() }, { name: "before", description: "a\u001b[31mred" });
	store.close();
});
afterEach(() => rmSync(folder, { recursive: true }));

function run(...args: string[]): Promise<number> {
	return runSnapshotCommand(args, { folder, log: silentLog, stdout: { write: (text) => (printed += text) } });
}

describe("sandbox86 snapshot", () => {
	it("lists the snapshots, with no control characters of theirs", async () => {
		expect(await run("list")).toBe(0);
		expect(printed).toMatch(/^before +s-\d{8}-\d{6}-[0-9a-f]{8} .* tiny +128 MiB .*a\\x1b\[31mred$/m);
	});

	it("removes one by its name", async () => {
		expect(await run("rm", "before")).toBe(0);
		expect(printed).toBe("snapshot before is removed: 0.0 MiB\n");
		await run("list");
		expect(printed).not.toMatch(/^before/m);
	});

	it("names the snapshots there are when it is asked for another", async () => {
		await expect(run("rm", "after")).rejects.toMatchObject({
			code: "not-found",
			hint: expect.stringContaining("before"),
		});
	});

	it("shows its usage when asked, and fails without a command or with an unknown one", async () => {
		expect(await run("--help")).toBe(0);
		expect(await run()).toBe(2);
		expect(printed).toBe(SNAPSHOT_USAGE + SNAPSHOT_USAGE);
		await expect(run("prune")).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(run("rm")).rejects.toMatchObject({ code: "invalid-argument" });
	});
});

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { IMAGE_USAGE, runImageCommand } from "../../../src/image/commands.js";
import { imageUsage } from "../../../src/image/usage.js";
import { silentLog } from "../../../src/log.js";
import { addBootSnapshot, commitFixture, link } from "./image-fixture.js";

let home: string;

beforeEach(async () => {
	home = mkdtempSync(join(tmpdir(), "sandbox86-compare-"));
	await commitFixture(home, "a", { "bin/x": "shared", "bin/y": "mine", "etc/same": "shared", l: link("bin/x") });
	await commitFixture(home, "b", { "bin/x": "shared", "bin/y": "MINE!", "etc/new": "n", l: link("bin/y") });
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

async function run(...args: string[]): Promise<{ code: number; text: string }> {
	let text = "";
	const out = {
		write: (part: string) => {
			text += part;
		},
	};
	const code = await runImageCommand(args, { home, log: silentLog, stdout: out, stderr: out });
	return { code, text };
}

describe("image list and inspect", () => {
	it("tell what an image shares, each content counted once", async () => {
		const usage = await imageUsage(home);
		expect(usage.get("a")).toEqual({
			files: 2,
			bytes: 10,
			ownFiles: 1,
			ownBytes: 4,
			sharedWith: [{ name: "b", files: 1, bytes: 6 }],
		});
		const { text } = await run("list");
		expect(text).toMatch(/^a +built +10 B +4 B +- /m);
		expect(text).toMatch(/^b +built +12 B +6 B /m);
	});

	it("tell everything about one image, as a table and as JSON", async () => {
		await addBootSnapshot(home, "a", 64, Buffer.from("state"));
		const { text } = await run("inspect", "a");
		expect(text).toMatch(/^packages +1\nentries +6, with 2 different contents\nsize +10 B\n/m);
		expect(text).toMatch(/^shared +6 B with b\nboot snapshot +64 MiB of memory, \d+ B\nwarmed with +true\n/m);
		const details = JSON.parse((await run("inspect", "a", "--json")).text) as Record<string, unknown>;
		expect(details).toMatchObject({
			name: "a",
			digest: expect.stringMatching(/^[0-9a-f]{64}$/),
			packages: [{ name: "bash", version: "5.2" }],
			biggestFolders: [
				{ path: "/bin", bytes: 10 },
				{ path: "/etc", bytes: 6 },
			],
			bootSnapshots: [{ memoryMiB: 64, fits: true }],
		});
	});

	it("know tiny, which has no manifest", async () => {
		expect((await run("inspect", "tiny")).text).toContain("part of the package");
	});
});

describe("image diff", () => {
	it("of an image with itself is empty, exit code 0", async () => {
		expect(await run("diff", "a", "a")).toEqual({ code: 0, text: "a and a have the same tree\n" });
	});

	it("tells what was added, removed and changed in the order of the paths, exit code 1", async () => {
		expect(await run("diff", "a", "b")).toEqual({
			code: 1,
			text:
				"~ /bin/y  size 4 → 5\n+ /etc/new  file 1 B\n- /etc/same  file 6 B\n~ /l  target bin/x → bin/y\n" +
				"1 added, 1 removed, 2 changed\n",
		});
	});

	it("tells kind, content, mode, owner and time apart", async () => {
		const sha = "0".repeat(64);
		const plain = { kind: "file", mode: 0o644, uid: 0, gid: 0, mtime: 0, sizeBytes: 0, sha256: sha } as const;
		const c = { content: plain, kind: plain, mode: plain, owner: plain, time: plain, "bad\u001b": plain };
		await commitFixture(home, "c", c);
		await commitFixture(home, "d", {
			content: { ...plain, sha256: "1".repeat(64) },
			kind: link("x"),
			mode: { ...plain, mode: 0o4755 },
			owner: { ...plain, uid: 1, gid: 2 },
			time: { ...plain, mtime: 1 },
		});
		expect((await run("diff", "c", "d")).text).toBe(
			"- /bad\\x1b  file 0 B\n~ /content  content\n~ /kind  kind file → symlink\n~ /mode  mode 0644 → 4755\n" +
				"~ /owner  owner 0:0 → 1:2\n0 added, 1 removed, 4 changed, 1 with another time only\n",
		);
	});
});

describe("the image command", () => {
	it("has a help of one screen", () => {
		const lines = IMAGE_USAGE.split("\n");
		expect(lines.length).toBeLessThan(24);
		expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(120);
	});

	it("moves an image through a file", async () => {
		const file = join(home, "a.tar.gz");
		expect((await run("export", "a", file)).text).toMatch(
			/^image a is in .*a\.tar\.gz: .*, 2 files, 0 boot snapshots, SHA-256 /,
		);
		expect((await run("import", file)).text).toBe(
			"image a is here already, with the same tree; --force writes it again\n",
		);
		expect((await run("import", file, "--name", "c")).text).toBe("image c is ready: 2 files, 10 B, 0 boot snapshots\n");
		await expect(run("import", file, "--name", "b")).rejects.toMatchObject({ code: "already-exists" });
		expect((await run("import", file, "--name", "b", "--force")).text).toContain("fit no more");
		expect((await run("diff", "a", "b")).code).toBe(0);
		expect((await run("export", "a", "--npm", join(home, "p"), "--scope", "@me")).text).toContain(
			"image a is the package @me/sandbox86-image-a 1.0.0 in ",
		);
	});

	it.each([
		[["export", "a"], "there is 1 name where 2 belong"],
		[["export", "a", "f", "--version", "1.0.0"], "only a package has a version"],
		[["diff", "a"], "there is 1 name where 2 belong"],
		[["inspect"], "there are 0 names where 1 belong"],
		[["import", "f", "--bogus"], "Unknown option '--bogus'"],
	])("says what is wrong with %j", async (args, message) => {
		await expect(run(...args)).rejects.toMatchObject({
			code: "invalid-argument",
			message: expect.stringContaining(message),
			hint: expect.stringContaining(`usage: sandbox86 image ${args[0]}`),
		});
	});
});

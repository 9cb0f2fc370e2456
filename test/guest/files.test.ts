import { createHash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Guest, startGuest } from "./support.js";

const MIB = 1024 * 1024;

let guest: Guest;
beforeAll(async () => {
	guest = await startGuest({ memoryMiB: 256 });
});
afterAll(() => guest.dispose());

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

describe("files through the channel", () => {
	it("carries 64 MiB of random bytes in and out unharmed", async () => {
		const content = randomBytes(64 * MIB);
		await guest.machine.writeFile("/big", content);
		expect((await guest.run("sha256sum /big", { timeoutMs: 120_000 })).stdout).toBe(`${sha256(content)}  /big\n`);
		const back = await guest.machine.readFile("/big", { limit: 64 * MIB });
		expect(back).toMatchObject({ sizeBytes: 64 * MIB, truncated: false });
		expect(sha256(back.bytes)).toBe(sha256(content));
		await guest.run("rm /big");
	});

	it("reads a range and tells whether more follows", async () => {
		await guest.machine.writeFile("/tmp/digits", Buffer.from("0123456789"));
		const part = await guest.machine.readFile("/tmp/digits", { offset: 2, limit: 3 });
		expect([Buffer.from(part.bytes).toString(), part.sizeBytes, part.truncated]).toEqual(["234", 10, true]);
		const rest = await guest.machine.readFile("/tmp/digits", { offset: 5, limit: 5 });
		expect([Buffer.from(rest.bytes).toString(), rest.truncated]).toEqual(["56789", false]);
		const beyond = await guest.machine.readFile("/tmp/digits", { offset: 100, limit: 5 });
		expect([beyond.bytes.length, beyond.truncated]).toEqual([0, false]);
	});

	it("reads files of /proc, which tell no size", async () => {
		const { bytes } = await guest.machine.readFile("/proc/version", { limit: 4096 });
		expect(Buffer.from(bytes).toString()).toMatch(/^Linux version/);
	});

	it("makes parent folders, keeps a replaced file's mode, sets a given one, and follows links", async () => {
		const written = await guest.machine.writeFile("/srv/new/deep/run.sh", Buffer.from("#!/bin/sh\necho hi\n"), {
			mode: 0o755,
		});
		expect(written).toMatchObject({ path: "/srv/new/deep/run.sh", sizeBytes: 18 });
		expect((await guest.run("/srv/new/deep/run.sh")).stdout).toBe("hi\n");
		await guest.machine.writeFile("/srv/new/deep/run.sh", Buffer.from("#!/bin/sh\necho ho\n"));
		await guest.run("ln -s deep/run.sh /srv/new/link");
		await guest.machine.writeFile("/srv/new/link", Buffer.from("#!/bin/sh\necho linked\n"));
		expect((await guest.run("test -L /srv/new/link && /srv/new/deep/run.sh")).stdout).toBe("linked\n");
		await guest.machine.writeFile("/tmp/plain", Buffer.from("x"));
		expect((await guest.run("stat -c %a /tmp/plain")).stdout).toBe("644\n");
	});

	it("appends", async () => {
		await guest.machine.writeFile("/tmp/log", Buffer.from("one\n"), { append: true });
		expect(await guest.machine.writeFile("/tmp/log", Buffer.from("two\n"), { append: true })).toMatchObject({
			sizeBytes: 8,
		});
		expect((await guest.run("cat /tmp/log")).stdout).toBe("one\ntwo\n");
	});

	it("resolves relative paths against the shell's folder", async () => {
		await guest.run("mkdir -p /tmp/here && cd /tmp/here");
		expect(await guest.machine.writeFile("f.txt", Buffer.from("x"))).toMatchObject({ path: "/tmp/here/f.txt" });
		expect((await guest.machine.readFile("f.txt", { limit: 10 })).bytes).toHaveLength(1);
		await guest.run("cd /");
	});

	it.each([
		["a missing file", "/no/such/file", /no such file/i],
		["a directory", "/tmp", /is a directory/i],
		["a device", "/dev/zero", /device/i],
		["a FIFO", "/tmp/fifo", /fifo/i],
	])("refuses to read %s and says why", async (_what, path, message) => {
		await guest.run("[ -e /tmp/fifo ] || mkfifo /tmp/fifo");
		await expect(guest.machine.readFile(path, { limit: 10 })).rejects.toMatchObject({
			code: "guest-file",
			message: expect.stringMatching(message),
		});
	});

	it.each([
		["an empty path", "", /empty/],
		["a path with a NUL", "/tmp/a\0b", /NUL/],
		["a path of 5000 bytes", `/${"x".repeat(5000)}`, /at most 4095/],
	])("refuses %s before it reaches the guest", async (_what, path, message) => {
		await expect(guest.machine.readFile(path, { limit: 10 })).rejects.toMatchObject({
			code: "invalid-argument",
			message: expect.stringMatching(message),
		});
	});

	it("leaves the old file and no temporary one when the guest's disk is full", async () => {
		await guest.run("mkdir -p /full && mount -t tmpfs -o size=1m tmpfs /full && echo old >/full/f");
		await expect(guest.machine.writeFile("/full/f", new Uint8Array(4 * MIB))).rejects.toMatchObject({
			code: "guest-file",
			message: expect.stringMatching(/no space/i),
		});
		expect((await guest.run("cat /full/f; ls -A /full | wc -l")).stdout).toBe("old\n1\n");
	});
});

import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, inject, it } from "vitest";
import { type Connection, childrenOf, connect, MEMORY_MIB, newHome, removeHome, temporaryFiles } from "./support.js";

let home: string;
const open: Connection[] = [];

beforeEach(() => {
	home = newHome(inject("templateHome"));
});
afterEach(async () => {
	await Promise.all(open.splice(0).map((server) => server.close()));
	removeHome(home);
});

async function start(args: string[] = [], folder = home): Promise<Connection> {
	const server = await connect({ home: folder, args });
	open.push(server);
	return server;
}

describe("a machine process that is killed", () => {
	it("costs the caller an error, and the next call gets a fresh machine and is told so", async () => {
		const server = await start();
		await server.bash("echo here >/tmp/mark");
		const [machine = 0] = childrenOf(server.pid);
		process.kill(machine, "SIGKILL");
		await expect.poll(() => childrenOf(server.pid)).toEqual([]);
		const answer = await server.call("bash", { command: "ls /tmp/mark || echo fresh" });
		expect(answer.text).toMatch(/fresh/);
		expect(answer.text).toMatch(/earlier machine failed/);
	});

	it("in the middle of a command is reported at once", async () => {
		const server = await start();
		await server.bash("true");
		const running = server.call("bash", { command: "sleep 30" }, { onprogress: () => {} });
		const [machine = 0] = childrenOf(server.pid);
		await new Promise((resolve) => setTimeout(resolve, 300));
		process.kill(machine, "SIGKILL");
		const { isError, text } = await running;
		expect(isError).toBe(true);
		expect(text).toMatch(/machine-failed/);
		expect(await server.bash("echo again")).toBe("again\n");
	});
});

describe("snapshots", () => {
	it("bring the wrecked machine back, in place and in a new server process", async () => {
		const server = await start();
		await server.bash(
			"mkdir /srv; echo precious >/srv/file; var=kept; (while :; do date >/tmp/beat; sleep 0.2; done) & true",
		);
		const saved = await server.call("snapshot", { name: "before", description: "all is well" });
		expect(saved.structured).toMatchObject({ snapshot: expect.stringMatching(/^s-/), size_bytes: expect.any(Number) });
		await server.bash("rm -rf /srv /usr; var=lost");
		const restored = await server.call("restore", { snapshot: "before" });
		expect(restored.structured).toMatchObject({ snapshot: saved.structured?.snapshot });
		expect(restored.text).toContain("all is well");
		expect(
			await server.bash(
				'cat /srv/file; echo $var; a=$(cat /tmp/beat); sleep 1.5; [ "$a" != "$(cat /tmp/beat)" ] && echo beats',
			),
		).toBe("precious\nkept\nbeats\n");
		await server.close();
		const later = await start();
		await later.call("restore", { snapshot: String(saved.structured?.snapshot) });
		expect(await later.bash("cat /srv/file; echo $var")).toBe("precious\nkept\n");
		expect((await later.call("snapshot", { name: "before" })).text).toMatch(/the snapshot name "before" is taken/);
	});

	it("of another memory size are refused, and the machine goes on", async () => {
		const small = await start();
		await small.call("snapshot", { name: "small" });
		const large = await start(["--memory", String(MEMORY_MIB + 32)]);
		await large.bash("still=here");
		const { text, isError } = await large.call("restore", { snapshot: "small" });
		expect(isError).toBe(true);
		expect(text).toMatch(new RegExp(`mismatch.*${MEMORY_MIB} MiB.*\\n.*--memory ${MEMORY_MIB}`));
		expect(await large.bash("echo $still")).toBe("here\n");
	});

	it("that are damaged are refused before the machine is touched", async () => {
		const server = await start();
		await server.bash("still=here");
		await server.call("snapshot", { name: "hurt" });
		const folder = join(home, "snapshots");
		const path = join(folder, readdirSync(folder)[0] ?? "");
		const bytes = readFileSync(path);
		const flipped = Buffer.from(bytes);
		flipped[bytes.length - 1000] = (flipped[bytes.length - 1000] ?? 0) ^ 1;
		writeFileSync(path, flipped);
		expect((await server.call("restore", { snapshot: "hurt" })).text).toMatch(
			/corrupt.*is damaged.*SHA-256[\s\S]*delete that file/,
		);
		truncateSync(path, bytes.length - 1);
		expect((await server.call("restore", { snapshot: "hurt" })).text).toMatch(/corrupt.*instead of/);
		expect(await server.bash("echo $still")).toBe("here\n");
	});

	it.skipIf(process.getuid?.() !== 0)("that no disk has room for leave nothing behind", async () => {
		const server = await start();
		await server.bash("still=here");
		const folder = join(home, "snapshots");
		mkdirSync(folder, { recursive: true });
		execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]);
		try {
			const { text, isError } = await server.call("snapshot", { name: "large" });
			expect(isError).toBe(true);
			expect(text).toMatch(/no-space.*ENOSPC[\s\S]*free space on that disk/);
			expect(readdirSync(folder)).toEqual([]);
		} finally {
			execFileSync("umount", [folder]);
		}
		expect(await server.bash("echo $still")).toBe("here\n");
	});
});

describe("two servers on one data folder", () => {
	it("do not disturb each other", async () => {
		const [one, two] = await Promise.all([start(), start()]);
		await Promise.all([one.bash("echo one >/tmp/who; who=one"), two.bash("echo two >/tmp/who; who=two")]);
		const saves = await Promise.all([one.call("snapshot", { name: "mine" }), two.call("snapshot", { name: "mine" })]);
		expect(saves.map(({ isError }) => isError).sort()).toEqual([false, true]);
		await Promise.all([one.call("snapshot", { name: "one" }), two.call("snapshot", { name: "two" })]);
		await Promise.all([one.bash("who=nobody"), two.bash("who=nobody")]);
		await Promise.all([one.call("restore", { snapshot: "one" }), two.call("restore", { snapshot: "two" })]);
		expect(await Promise.all([one.bash("cat /tmp/who; echo $who"), two.bash("cat /tmp/who; echo $who")])).toEqual([
			"one\none\n",
			"two\ntwo\n",
		]);
		await one.close();
		expect(await two.bash("echo on")).toBe("on\n");
		expect(temporaryFiles(home)).toEqual([]);
	});

	it("both boot where no boot snapshot is there yet", async () => {
		const [one, two] = await Promise.all([start(["--memory", "80"]), start(["--memory", "80"])]);
		expect(await Promise.all([one.bash("echo 1"), two.bash("echo 2")])).toEqual(["1\n", "2\n"]);
		expect(temporaryFiles(home)).toEqual([]);
	});
});

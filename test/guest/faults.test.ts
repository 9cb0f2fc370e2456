import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Guest, startGuest, succeeded } from "./support.js";

let guest: Guest;
beforeAll(async () => {
	guest = await startGuest();
});
afterAll(() => guest.dispose());

/** The machine process's id, found by its parent and its entry point. */
function machineProcessIds(): number[] {
	const out = execFileSync("ps", ["-o", "pid=,args=", "--ppid", String(process.pid)], { encoding: "utf8" });
	return out
		.split("\n")
		.filter((line) => line.includes("machine-process"))
		.map((line) => Number.parseInt(line, 10));
}

describe("a guest under attack from inside", () => {
	it("answers a fork bomb in time and works afterwards", async () => {
		await guest.run("bomb() { bomb | bomb & }; bomb; sleep 3", { timeoutMs: 3000 });
		const next = await guest.run("echo alive");
		expect(next).toMatchObject({ stdout: "alive\n", exitCode: 0 });
	});

	it("answers a memory bomb in time and works afterwards", async () => {
		const bomb = await guest.run("tail -c 2000000000 /dev/zero | tail -n 1 | wc -c", { timeoutMs: 20_000 });
		expect(bomb.exitCode === 0 && !bomb.timedOut && bomb.stderr === "").toBe(false);
		expect(await guest.run("echo alive")).toMatchObject({ stdout: "alive\n" });
	});

	it("survives `kill -9 -1`, which kills all but init and the shell that says it", async () => {
		await guest.run("sleep 50 &");
		expect(await guest.run("kill -9 -1; echo still here")).toMatchObject({ stdout: "still here\n" });
		expect(await guest.run("kill -9 $$")).toMatchObject({ exitCode: 137 });
		expect(await guest.run("echo alive; pgrep sleep")).toMatchObject({
			stdout: "alive\n",
			notices: [expect.stringContaining("new shell")],
		});
	});

	it("fills its disk without losing the machine", async () => {
		const full = await guest.run("dd if=/dev/zero of=/fill bs=1M count=100000; rm /fill", { timeoutMs: 60_000 });
		expect(full.stderr).toMatch(/no space left/i);
		expect(await guest.run("echo alive")).toMatchObject(succeeded("alive\n"));
	});

	it("keeps answering when its user removes /run and all that can be removed of the agent's files", async () => {
		await guest.run("rm -rf /run /run/sandbox86 2>/dev/null; true");
		expect(await guest.run("echo alive")).toMatchObject({ stdout: "alive\n" });
	});

	it("that prints for ever costs a bounded buffer, not the host's memory", async () => {
		const before = process.memoryUsage().rss;
		const result = await guest.machine.run("yes", { timeoutMs: 5000, maxOutputBytes: 64 * 1024 });
		expect(result.timedOut).toBe(true);
		expect(result.stdout.omittedBytes).toBeGreaterThan(1024 * 1024);
		expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024);
	});
});

describe("a machine that dies", () => {
	it("of a kernel panic answers with the console's last lines, and the next call gets a fresh one and says so", async () => {
		await guest.run("touch /tmp/lost");
		await expect(guest.run("echo c > /proc/sysrq-trigger")).rejects.toMatchObject({
			code: "machine-failed",
			message: expect.stringMatching(/Kernel panic[\s\S]*console's last lines/),
			hint: expect.stringContaining("console.log"),
		});
		expect(readFileSync(join(guest.home, "console.log"), "utf8")).toContain("panic");
		expect(await guest.run("ls /tmp/lost 2>/dev/null | wc -l")).toMatchObject({
			stdout: "0\n",
			notices: [expect.stringMatching(/earlier machine failed[\s\S]*fresh/)],
		});
		expect(await guest.run("true")).toMatchObject({ notices: [] });
	});

	it("with its process killed from outside is replaced in the same way", async () => {
		const running = guest.run("sleep 100", { timeoutMs: 60_000, onOutput: () => {} });
		const [pid] = machineProcessIds();
		expect(pid).toBeGreaterThan(0);
		process.kill(pid as number, "SIGKILL");
		await expect(running).rejects.toMatchObject({
			code: "machine-failed",
			message: expect.stringContaining("SIGKILL"),
		});
		expect(await guest.run("echo alive")).toMatchObject({ stdout: "alive\n" });
	});

	it("by powering itself off is replaced, too", async () => {
		await expect(guest.run("poweroff -f", { timeoutMs: 10_000 })).rejects.toMatchObject({ code: "machine-failed" });
		expect(await guest.run("echo alive")).toMatchObject({ stdout: "alive\n" });
	});
});

describe("the machine process", () => {
	it("may read its image and nothing else, and may write nothing", () => {
		const [pid] = machineProcessIds();
		const flags = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
		expect(flags).toContainEqual(expect.stringMatching(/^--(experimental-)?permission$/));
		expect(flags.filter((flag) => /allow-fs-write|allow-child-process|allow-addons|allow-worker/.test(flag))).toEqual(
			[],
		);
		expect(
			readFileSync(`/proc/${pid}/environ`, "utf8")
				.split("\0")
				.filter((entry) => !/^(NODE_CHANNEL|$)/.test(entry)),
		).toEqual([]);
	});
});

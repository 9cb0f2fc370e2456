import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type Guest, startGuest } from "../guest/support.js";

let guest: Guest;
beforeAll(async () => {
	guest = await startGuest({ image: "base", imageHome: inject("home"), memoryMiB: 512 });
});
afterAll(() => guest.dispose());

describe("the lasting bash", () => {
	it("expands an alias in the calls after the one that defined it", async () => {
		await guest.run("alias greet='echo hello'");
		expect((await guest.run("greet you")).stdout).toBe("hello you\n");
	});

	it("goes on after a command that throws all aliases away", async () => {
		await guest.run("unalias -a; shopt -u expand_aliases; kept=yes");
		expect((await guest.run("echo $kept; (exit 3)")).exitCode).toBe(3);
		expect((await guest.run("echo $? $kept")).stdout).toBe("3 yes\n");
	});

	it("does not export the command's text under set -a", async () => {
		await guest.run("set -a");
		expect((await guest.run("env | grep -c sandbox86; set +a")).stdout).toBe("0\n");
	});

	it("takes a command of 1 MiB under set -a and still starts programs", async () => {
		await guest.run("set -a");
		const { stdout } = await guest.run(`: '${"x".repeat(1_000_000)}'; /bin/echo started; set +a`);
		expect(stdout).toBe("started\n");
	});

	it("answers a command that closes every descriptor that it can, and goes on in a new shell", async () => {
		const closed = await guest.run('for n in $(seq 3 40); do eval "exec $n>&-"; done; echo closed');
		expect(closed.stdout).toMatch(/^closed\n/);
		expect(closed.notices).toEqual([expect.stringMatching(/The shell ended with this command/)]);
		expect(await guest.run("cat; echo here; echo there >&2; (exit 6)")).toMatchObject({
			stdout: "here\n",
			stderr: "there\n",
			exitCode: 6,
		});
	});

	it("takes a DEBUG trap's output for no answer, whatever that prints", async () => {
		await guest.run("trap 'printf %s 1' DEBUG");
		expect(await guest.run("false")).toMatchObject({ stdout: "1", exitCode: 1 });
		await guest.run("trap 'head -c 5000 /dev/zero | tr \"\\0\" i; echo' DEBUG");
		expect((await guest.run("(exit 8)")).exitCode).toBe(8);
		await guest.run("trap - DEBUG");
	});

	it("shows nothing of its own under set -x", async () => {
		await guest.run("set -x");
		expect(await guest.run("echo $((6 * 7)); false")).toMatchObject({ stderr: "++ echo 42\n++ false\n", exitCode: 1 });
		expect((await guest.run("echo $?; set +x")).stderr).toBe("++ echo 1\n++ set +x\n");
	});

	it("lets a command find the exit code of the one before, which an ERR trap does not see again", async () => {
		await guest.run("failures=0; trap 'failures=$((failures + 1))' ERR");
		await guest.run("false");
		// As for `bash -c 'eval false'`: once for the command, once for eval.
		expect((await guest.run("echo $? $failures; trap - ERR")).stdout).toBe("1 2\n");
	});
});

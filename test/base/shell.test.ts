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
});

import { spawnSync } from "node:child_process";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type Guest, startGuest } from "../guest/support.js";
import { scripts } from "./script-generator.js";

const SCRIPTS = 1000;
const SEED = 86;

let guest: Guest;
beforeAll(async () => {
	guest = await startGuest({ image: "base", imageHome: inject("home"), memoryMiB: 512 });
});
afterAll(() => guest.dispose());

/** bash names the place of an error inside a function after the way in which it got its script; the words are the same. */
function withoutFunctionPlaces(stderr: string): string {
	return stderr.replace(/^(?:environment|main): line \d+: /gm, "in a function: ");
}

describe("bash in the guest", () => {
	it(`gives the output, the errors and the exit code of the host's bash for ${SCRIPTS} generated scripts`, async () => {
		await guest.run("cd /tmp");
		const differences: unknown[] = [];
		for (const script of fc.sample(scripts, { numRuns: SCRIPTS, seed: SEED })) {
			const host = spawnSync("bash", ["--norc", "-c", script], {
				cwd: "/tmp",
				env: { PATH: "/usr/bin:/bin", LANG: "C.UTF-8", HOME: "/root" },
				stdio: ["ignore", "pipe", "pipe"],
				encoding: "utf8",
			});
			const { stdout, stderr, exitCode } = await guest.run(script);
			const same =
				stdout === host.stdout &&
				withoutFunctionPlaces(stderr) === withoutFunctionPlaces(host.stderr) &&
				exitCode === host.status;
			if (!same) differences.push({ script, host, guest: { stdout, stderr, exitCode } });
		}
		expect(differences).toEqual([]);
	}, 600_000);
});

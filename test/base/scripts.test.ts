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

/**
 * bash numbers the lines of everything that its shell has read, and names the place of an error inside a function after the way
 * in which it got its script (docs/limitations.md). The words are the same.
 */
function withoutPlaces(output: string): string {
	return output.replace(/^(?:bash|environment|main): line \d+: /gm, "bash: ");
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
				withoutPlaces(stdout) === withoutPlaces(host.stdout) &&
				withoutPlaces(stderr) === withoutPlaces(host.stderr) &&
				exitCode === host.status;
			if (!same) differences.push({ script, host, guest: { stdout, stderr, exitCode } });
		}
		expect(differences).toEqual([]);
	}, 600_000);
});

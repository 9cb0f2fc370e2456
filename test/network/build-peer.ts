/** Before the tests with a real kernel: builds tap-peer, or tells why there is no such kernel here. */

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TestProject } from "vitest/node";

declare module "vitest" {
	interface ProvidedContext {
		/** The program that joins a kernel to the relay; "" where the tests can't run. */
		tapPeer: string;
	}
}

/** What of it is missing, with the Debian package that has it; undefined: nothing. */
function missing(): string | undefined {
	if (process.platform !== "linux") return "Linux";
	if (process.getuid?.() !== 0) return "root";
	if (!existsSync("/dev/net/tun")) return "/dev/net/tun";
	if (!has("gcc", "--version")) return "gcc (Debian: gcc libc6-dev)";
	if (!has("ip", "-V")) return "ip (Debian: iproute2)";
	if (!has("curl", "--version")) return "curl";
	const name = `sandbox86-${process.pid}`;
	if (spawnSync("ip", ["netns", "add", name]).status !== 0) return "the right to make network namespaces";
	spawnSync("ip", ["netns", "del", name]);
	return undefined;
}

function has(program: string, versionFlag: string): boolean {
	return spawnSync(program, [versionFlag]).error === undefined;
}

export default function setup(project: TestProject): () => void {
	const lacking = missing();
	if (lacking !== undefined) {
		process.stdout.write(`\nthe relay is not tried with a real kernel here: that takes ${lacking}\n`);
		project.provide("tapPeer", "");
		return () => {};
	}
	const folder = mkdtempSync(join(tmpdir(), "sandbox86-tap-peer-"));
	const program = join(folder, "tap-peer");
	const source = fileURLToPath(new URL("tap-peer.c", import.meta.url));
	execFileSync("gcc", ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, source], { stdio: "inherit" });
	project.provide("tapPeer", program);
	return () => rmSync(folder, { recursive: true });
}

/** A real machine for the guest tests: image tiny, its own data folder, and words to speak with it. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadImage } from "../../src/image/store.js";
import { silentLog } from "../../src/log.js";
import { type NetworkSettings, openNetwork, type ServerNetwork } from "../../src/network.js";
import { createMachine } from "../../src/vm/guest-machine.js";
import type { CapturedOutput, Machine, RunOptions, RunResult } from "../../src/vm/machine.js";
import type { MachineImage } from "../../src/vm/machine-image.js";

export interface Guest {
	readonly machine: Machine;
	readonly home: string;
	readonly image: MachineImage;
	readonly network: ServerNetwork;
	/** Runs a command, 30 s at most unless told otherwise. */
	run(command: string, options?: Partial<RunOptions>): Promise<Outcome>;
	/** Ends the machine and its network, and removes its folder. */
	dispose(): Promise<void>;
}

export interface Outcome extends Omit<RunResult, "stdout" | "stderr"> {
	readonly stdout: string;
	readonly stderr: string;
}

export interface GuestOptions {
	/** Default: 128. */
	readonly memoryMiB?: number;
	/** Default: tiny. */
	readonly image?: string;
	/** The data folder that has the image, and its boot snapshot; tiny needs none. */
	readonly imageHome?: string;
	/** As on the command line; default: no network. */
	readonly network?: Partial<NetworkSettings>;
}

const NO_NETWORK: NetworkSettings = {
	network: "none",
	allow: [],
	deny: [],
	hostPort: [],
	forward: [],
	dns: [],
	auditLog: undefined,
	pcap: undefined,
	bandwidth: undefined,
	maxBytes: undefined,
	maxFlowBytes: undefined,
};

/** Starts nothing yet: the first call does. */
export async function startGuest(options: GuestOptions = {}): Promise<Guest> {
	const home = mkdtempSync(join(tmpdir(), "sandbox86-guest-"));
	const image = await loadImage(options.imageHome ?? home, options.image ?? "tiny");
	const network = await openNetwork({ ...NO_NETWORK, ...options.network }, auditLogPath(home), silentLog);
	const machine = createMachine({
		image,
		memoryMiB: options.memoryMiB ?? 128,
		log: silentLog,
		consoleLogPath: join(home, "console.log"),
		network,
	});
	network.serve(machine);
	return {
		machine,
		home,
		image,
		network,
		run: async (command, runOptions = {}) =>
			readable(await machine.run(command, { timeoutMs: 30_000, maxOutputBytes: 16 * 1024 * 1024, ...runOptions })),
		dispose: async () => {
			await machine.stop();
			await network.close();
			rmSync(home, { recursive: true, force: true });
		},
	};
}

/** Where a guest's network writes what it let through and what not. */
export function auditLogPath(home: string): string {
	return join(home, "network.jsonl");
}

function readable(result: RunResult): Outcome {
	return { ...result, stdout: textOf(result.stdout), stderr: textOf(result.stderr) };
}

export function textOf(output: CapturedOutput): string {
	return Buffer.concat([output.head, output.tail]).toString("utf8");
}

/** What a RunResult of a command that simply worked looks like. */
export function succeeded(stdout: string): object {
	return { stdout, stderr: "", exitCode: 0, timedOut: false, cancelled: false };
}

/** Work inside a guest that boots a tree: with the tree's own programs, and what changed brought home. */

import { SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { createMachine } from "../vm/guest-machine.js";
import type { Machine, MachineNetwork } from "../vm/machine.js";
import type { MachineImage } from "../vm/machine-image.js";
import type { ContentStore } from "./content-store.js";
import { limits } from "./limits.js";
import { applyTarLayer } from "./tar-layer.js";
import type { Tree } from "./tree.js";

export interface GuestStep {
	/** For the progress and for errors: "setting up packages". */
	readonly title: string;
	readonly script: string;
	/** Share of the work, any unit. */
	readonly weight: number;
	/** Number of output lines that match `counts`, if they tell the progress. */
	readonly expected?: number;
	readonly counts?: RegExp;
}

export interface GuestWork {
	/** Files to write first, by absolute path. */
	readonly files: ReadonlyMap<string, string>;
	readonly steps: readonly GuestStep[];
}

export interface GuestWorkOptions extends GuestWork {
	/** What the tree boots as. */
	readonly image: MachineImage;
	readonly memoryMiB: number;
	readonly network: MachineNetwork | undefined;
	readonly consoleLogPath: string;
	readonly log: Log;
	readonly signal: AbortSignal | undefined;
	/** How much of all this is done (0..1), and what is being done. */
	readonly onProgress: (fraction: number, stage: string) => void;
	/** Gets each line that a step prints. */
	readonly onLine?: ((line: string) => void) | undefined;
}

const KEPT_LINES = 15;
/** Of the progress: the machine's start, and the steps; the rest is for the changes. */
const BOOT_SHARE = 0.02;
const STEPS_SHARE = 0.96;

/** Boots the image cold, runs the steps and lays what they changed over the tree. */
export async function workInGuest(tree: Tree, store: ContentStore, options: GuestWorkOptions): Promise<void> {
	const { image, memoryMiB, network, log, consoleLogPath, onProgress, signal } = options;
	const machine = createMachine({
		image,
		memoryMiB,
		log,
		consoleLogPath,
		startFrom: "cold",
		...(network === undefined ? {} : { network }),
	});
	const onAbort = () => void machine.stop();
	signal?.addEventListener("abort", onAbort, { once: true });
	try {
		onProgress(0, "starting a machine to work in");
		await machine.start();
		for (const [path, content] of options.files) await machine.writeFile(path, Buffer.from(content));
		const total = options.steps.reduce((sum, { weight }) => sum + weight, 0);
		let before = 0;
		for (const step of options.steps) {
			const from = BOOT_SHARE + (before / total) * STEPS_SHARE;
			await runStep(machine, step, options, from, (step.weight / total) * STEPS_SHARE);
			before += step.weight;
		}
		onProgress(BOOT_SHARE + STEPS_SHARE, "collecting what changed");
		await applyTarLayer(tree, store, machine.exportChanges(), {
			source: "the guest's changes",
			whiteouts: true,
			directorySymlinks: "replace",
		});
	} catch (error) {
		if (signal?.aborted === true) throw cancelled(error);
		throw error;
	} finally {
		signal?.removeEventListener("abort", onAbort);
		await machine.stop();
	}
}

async function runStep(
	machine: Machine,
	step: GuestStep,
	{ onProgress, log, signal, consoleLogPath, onLine }: GuestWorkOptions,
	from: number,
	share: number,
): Promise<void> {
	const lines: string[] = [];
	let rest = "";
	let counted = 0;
	onProgress(from, step.title);
	const result = await machine.run(step.script, {
		timeoutMs: limits.stepTimeoutMs,
		maxOutputBytes: 64 * 1024,
		...(signal === undefined ? {} : { signal }),
		onOutput: (_stream, bytes) => {
			rest += Buffer.from(bytes).toString("utf8");
			const complete = rest.split("\n");
			rest = (complete.pop() ?? "").slice(-4096);
			for (const line of complete) {
				log.debug(`guest: ${line}`);
				onLine?.(line);
				lines.push(line);
				if (lines.length > KEPT_LINES) lines.shift();
				if (step.counts?.test(line) !== true) continue;
				counted++;
				const fraction = from + (share * Math.min(counted, step.expected ?? counted)) / (step.expected ?? counted);
				onProgress(fraction, `${step.title}: ${line.slice(0, 60)}`);
			}
		},
	});
	if (rest !== "") onLine?.(rest);
	log.debug(`${step.title}: exit code ${result.exitCode} after ${(result.durationMs / 1000).toFixed(1)} s`);
	if (result.exitCode === 0 && !result.timedOut) return;
	if (signal?.aborted === true) throw cancelled();
	const last = [...lines, rest].filter((line) => line.trim() !== "").join("\n");
	const how = result.timedOut
		? `did not end within ${limits.stepTimeoutMs / 60_000} minutes`
		: `failed with exit code ${result.exitCode}`;
	throw new SandboxError(
		"build-failed",
		`${step.title} ${how}; the last lines were:\n${last}`,
		`the console's log is ${consoleLogPath}`,
	);
}

function cancelled(cause?: unknown): SandboxError {
	return new SandboxError("cancelled", "the build was cancelled", "what is downloaded is kept", { cause });
}

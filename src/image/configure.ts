/** Sets up an unpacked userland inside a guest, with its own tools, and brings home what changed. */

import { SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { createMachine } from "../vm/guest-machine.js";
import type { Machine } from "../vm/machine.js";
import type { MachineImage } from "../vm/machine-image.js";
import type { ContentStore } from "./content-store.js";
import type { ProgressTracker } from "./progress.js";
import { applyTarLayer } from "./tar-layer.js";
import type { Tree } from "./tree.js";

export interface GuestStep {
	/** For the progress and for errors: "setting up packages". */
	readonly title: string;
	readonly script: string;
	/** Share of the phase, any unit. */
	readonly weight: number;
	/** Number of output lines that match `counts`, if they tell the progress. */
	readonly expected?: number;
	readonly counts?: RegExp;
}

export interface ConfigureOptions {
	readonly image: MachineImage;
	readonly memoryMiB: number;
	readonly consoleLogPath: string;
	readonly log: Log;
	readonly signal: AbortSignal | undefined;
	readonly progress: ProgressTracker;
	/** Files to write first, by absolute path. */
	readonly files: ReadonlyMap<string, string>;
	readonly steps: readonly GuestStep[];
}

const STEP_TIMEOUT_MS = 60 * 60 * 1000;
const KEPT_LINES = 15;

/** Boots the image cold, runs the steps and lays what they changed over the tree. */
export async function configureInGuest(tree: Tree, store: ContentStore, options: ConfigureOptions): Promise<void> {
	const { image, memoryMiB, log, consoleLogPath, progress, signal } = options;
	const machine = createMachine({ image, memoryMiB, log, consoleLogPath, startFrom: "cold" });
	const onAbort = () => void machine.stop();
	signal?.addEventListener("abort", onAbort, { once: true });
	try {
		progress.update("boot", 0, "starting a machine to set the packages up in");
		await machine.start();
		for (const [path, content] of options.files) await machine.writeFile(path, Buffer.from(content));
		const total = options.steps.reduce((sum, { weight }) => sum + weight, 0);
		let before = 0;
		for (const step of options.steps) {
			await runStep(machine, step, options, before / total, step.weight / total);
			before += step.weight;
		}
		progress.update("layer", 0, "collecting what changed");
		await applyTarLayer(tree, store, machine.exportChanges(), {
			source: "the guest's changes",
			whiteouts: true,
			directorySymlinks: "replace",
		});
	} catch (error) {
		if (signal?.aborted === true) {
			throw new SandboxError("cancelled", "the build was cancelled", "what is downloaded is kept", { cause: error });
		}
		throw error;
	} finally {
		signal?.removeEventListener("abort", onAbort);
		await machine.stop();
	}
}

async function runStep(
	machine: Machine,
	step: GuestStep,
	{ progress, log, signal, consoleLogPath }: ConfigureOptions,
	from: number,
	share: number,
): Promise<void> {
	const lines: string[] = [];
	let rest = "";
	let counted = 0;
	progress.update("configure", from, step.title);
	const result = await machine.run(step.script, {
		timeoutMs: STEP_TIMEOUT_MS,
		maxOutputBytes: 64 * 1024,
		...(signal === undefined ? {} : { signal }),
		onOutput: (_stream, bytes) => {
			rest += Buffer.from(bytes).toString("utf8");
			const complete = rest.split("\n");
			rest = (complete.pop() ?? "").slice(-4096);
			for (const line of complete) {
				log.debug(`guest: ${line}`);
				lines.push(line);
				if (lines.length > KEPT_LINES) lines.shift();
				if (step.counts?.test(line) !== true) continue;
				counted++;
				const fraction = from + (share * Math.min(counted, step.expected ?? counted)) / (step.expected ?? counted);
				progress.update("configure", fraction, `${step.title}: ${line.slice(0, 60)}`);
			}
		},
	});
	log.debug(`${step.title}: exit code ${result.exitCode} after ${(result.durationMs / 1000).toFixed(1)} s`);
	if (result.exitCode === 0 && !result.timedOut) return;
	if (signal?.aborted === true)
		throw new SandboxError("cancelled", "the build was cancelled", "what is downloaded is kept");
	const last = [...lines, rest].filter((line) => line.trim() !== "").join("\n");
	throw new SandboxError(
		"build-failed",
		`${step.title} failed with exit code ${result.exitCode}; the last lines were:\n${last}`,
		`the console's log is ${consoleLogPath}`,
	);
}

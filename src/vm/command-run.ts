/** One command on a live guest: its output is captured, a timeout or the caller's signal stops it. */

import { RunFlag } from "./channel/messages.js";
import type { LiveMachine } from "./live-machine.js";
import type { RunOptions, RunResult } from "./machine.js";
import { OutputCapture } from "./output-capture.js";

/** A command that was told to stop has this long to do so; the guest's agent itself gives up after 3 s. */
const CANCEL_GRACE_MS = 10_000;
const DEFAULT_MAX_OUTPUT_BYTES = 64 * 1024;

export interface CommandRun {
	readonly result: RunResult;
	/** Processes that commands have left running. */
	readonly processes: number;
}

/** Runs `command` (UTF-8) in the guest's lasting shell. */
export async function runCommand(live: LiveMachine, command: Uint8Array, options: RunOptions): Promise<CommandRun> {
	const maxBytes = options.maxOutputBytes ?? DEFAULT_MAX_OUTPUT_BYTES;
	const captures = { stdout: new OutputCapture(maxBytes), stderr: new OutputCapture(maxBytes) };
	const startedAt = performance.now();
	let stoppedBy: "timeout" | "caller" | undefined;
	let graceTimer: NodeJS.Timeout | undefined;
	const call = live.openRun({
		onOutput: (stream, bytes) => {
			captures[stream].push(bytes);
			options.onOutput?.(stream, bytes);
		},
	});
	const stopCommand = (by: "timeout" | "caller") => {
		if (stoppedBy !== undefined) return;
		stoppedBy = by;
		call.cancel();
		graceTimer = setTimeout(
			() => live.fail(`the guest did not stop a command within ${CANCEL_GRACE_MS} ms`),
			CANCEL_GRACE_MS,
		);
	};
	const timer = setTimeout(() => stopCommand("timeout"), options.timeoutMs);
	const onAbort = () => stopCommand("caller");
	options.signal?.addEventListener("abort", onAbort);
	if (options.signal?.aborted) onAbort();
	try {
		const [payload] = await Promise.all([call.done, call.write(command).then(() => call.end())]);
		const done = live.parseRun(payload);
		const result = {
			stdout: captures.stdout.result(),
			stderr: captures.stderr.result(),
			exitCode: done.exitCode,
			durationMs: Math.round(performance.now() - startedAt),
			cwd: done.cwd,
			timedOut: stoppedBy === "timeout",
			cancelled: stoppedBy === "caller",
			notices: shellNotices(done.flags),
		};
		return { result, processes: done.processes };
	} finally {
		clearTimeout(timer);
		clearTimeout(graceTimer);
		options.signal?.removeEventListener("abort", onAbort);
	}
}

function shellNotices(flags: number): string[] {
	const notices: string[] = [];
	if (flags & RunFlag.newShell) notices.push("This command ran in a new shell, because the one before had ended.");
	if (flags & RunFlag.shellEnded) {
		notices.push(
			"The shell ended with this command; the next one gets a new shell, without this one's variables and functions.",
		);
	}
	if (flags & RunFlag.shellReplaced) {
		notices.push("The shell did not stop and was replaced; its variables and functions are gone, its folder is kept.");
	}
	if (flags & RunFlag.processLimit) {
		notices.push("The machine's limit of processes was reached; everything that commands had left running was killed.");
	}
	return notices;
}

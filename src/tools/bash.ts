import { z } from "zod";
import type { RunResult } from "../vm/machine.js";
import { limits } from "./limits.js";
import { OutputProgress } from "./output-progress.js";
import { boundedInteger, boundedText, defineTool, type ToolContext } from "./tool.js";
import { type DecodedOutput, decodeOutput } from "./utf8.js";

const output = z.object({
	stdout: z.string(),
	stderr: z.string(),
	exit_code: z.int().min(0).max(255),
	duration_ms: z.int().min(0),
	cwd: z.string(),
	timed_out: z.boolean(),
	truncated: z.boolean().describe("output was cut in the middle"),
});

export const bashTool = defineTool({
	name: "bash",
	title: "Run a command",
	description:
		"Runs a script in the machine's one persistent shell: folder, variables and functions last between calls. " +
		"Standard input is empty. A non-zero exit code is a result, not an error. " +
		`Of each stream the first and last ${limits.maxOutputBytes / 2048} KiB are kept; redirect to a file to keep all. ` +
		"A timeout stops the command and keeps the shell. For work that lasts, use: command >/tmp/log 2>&1 &",
	input: z.strictObject({
		command: boundedText("command", limits.maxCommandBytes).describe("shell script, any number of lines"),
		timeout_ms: boundedInteger(1, limits.maxTimeoutMs, "milliseconds")
			.optional()
			.describe("default 50000; clients often give up after 60000"),
	}),
	output,
	annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
	async run({ command, timeout_ms }, context) {
		const askedAt = performance.now();
		const machine = await context.machine();
		const timeoutMs = timeout_ms ?? remainingMs(context.defaultTimeoutMs, performance.now() - askedAt);
		const progress = context.progress === undefined ? undefined : new OutputProgress(context.progress);
		try {
			const result = await machine.run(command, runOptions(timeoutMs, context, progress));
			return present(result, timeoutMs);
		} finally {
			await progress?.end();
		}
	},
});

/** The client's patience began with the call, not with the command: an image that was built meanwhile is paid from it. */
function remainingMs(defaultTimeoutMs: number, waitedMs: number): number {
	return Math.max(Math.min(defaultTimeoutMs, 5_000), Math.round(defaultTimeoutMs - waitedMs));
}

function runOptions(timeoutMs: number, { signal }: ToolContext, progress: OutputProgress | undefined) {
	const options = { timeoutMs, signal, maxOutputBytes: limits.maxOutputBytes };
	if (progress === undefined) return options;
	return {
		...options,
		onOutput: (stream: "stdout" | "stderr", bytes: Uint8Array) => progress.push(stream, bytes),
	};
}

function present(result: RunResult, timeoutMs: number) {
	const stdout = decodeOutput(result.stdout);
	const stderr = decodeOutput(result.stderr);
	const structured = {
		stdout: stdout.text,
		stderr: stderr.text,
		exit_code: result.exitCode,
		duration_ms: result.durationMs,
		cwd: result.cwd,
		timed_out: result.timedOut,
		truncated: stdout.omittedBytes > 0 || stderr.omittedBytes > 0,
	};
	const notices = [...result.notices, ...ownNotices(result, timeoutMs, stdout, stderr)];
	const lines = [
		stdout.text.trimEnd(),
		stderr.text === "" ? "" : `[stderr]\n${stderr.text.trimEnd()}`,
		`[exit code ${result.exitCode}, ${result.durationMs} ms, in ${result.cwd}]`,
		...notices.map((notice) => `[${notice}]`),
	];
	return { structured, text: lines.filter((line) => line !== "").join("\n") };
}

function ownNotices(result: RunResult, timeoutMs: number, stdout: DecodedOutput, stderr: DecodedOutput): string[] {
	const notices: string[] = [];
	if (result.timedOut) {
		notices.push(
			`Timed out: the command was stopped after ${timeoutMs} ms, the shell goes on. Give timeout_ms (at most ${limits.maxTimeoutMs}), or run it in the background with its output in a file.`,
		);
	}
	for (const [name, { omittedBytes }] of [
		["stdout", stdout],
		["stderr", stderr],
	] as const) {
		if (omittedBytes > 0) {
			notices.push(
				`${omittedBytes} bytes of ${name} are left out of the middle. Redirect to a file and read it in parts to see all.`,
			);
		}
	}
	return notices;
}

#!/usr/bin/env node
/** The command line. Exit codes: 0 done, 1 failed, 2 wrong usage. */

import { type Config, dataFolders, helpText, parseCommandLine } from "./config.js";
import { makeDataFolder } from "./data-folder.js";
import { describeError, SandboxError } from "./errors.js";
import { createLog, type Log } from "./log.js";
import { packageVersion } from "./package-version.js";

async function main(argv: readonly string[]): Promise<void> {
	const commandLine = parseCommandLine(argv);
	switch (commandLine.kind) {
		case "help":
			process.stdout.write(helpText());
			return;
		case "version":
			process.stdout.write(`${packageVersion()}\n`);
			return;
		case "run":
			break;
	}
	const { command, config, args } = commandLine;
	await makeDataFolder(config.home);
	const log = createLog(config.logLevel);
	switch (command) {
		case "serve": {
			// The SDK takes 0.2 s to load: only a server needs it.
			const { serve } = await import("./serve.js");
			return serve(config, packageVersion(), log);
		}
		case "image":
			process.exitCode = await manageImages(config, log, args);
			return;
		case "snapshot": {
			const { runSnapshotCommand } = await import("./snapshot-commands.js");
			const folder = dataFolders(config.home).snapshots;
			process.exitCode = await runSnapshotCommand(args, { folder, log, stdout: process.stdout });
			return;
		}
		case "relay":
			process.exitCode = await relay(config, log, args);
			return;
	}
}

async function relay(config: Config, log: Log, args: readonly string[]): Promise<number> {
	const { runRelay } = await import("./relay/command.js");
	return runRelay(args, { settings: config, log, stdout: process.stdout, signal: interruption() });
}

/** Aborted by the first SIGINT or SIGTERM; the second ends the process at once. */
function interruption(): AbortSignal {
	const ending = new AbortController();
	const interrupt = () =>
		ending.abort(new SandboxError("cancelled", "interrupted", "start the command again, it goes on where it was"));
	process.once("SIGINT", interrupt);
	process.once("SIGTERM", interrupt);
	return ending.signal;
}

async function manageImages(config: Config, log: Log, args: readonly string[]): Promise<number> {
	const { runImageCommand } = await import("./image/commands.js");
	return runImageCommand(args, {
		home: config.home,
		mirror: config.mirror,
		memoryMiB: config.memoryMiB,
		openNetwork: async () => (await import("./network.js")).openBuildNetwork(config, log),
		log,
		signal: interruption(),
		stdout: process.stdout,
		stderr: process.stderr,
	});
}

main(process.argv.slice(2)).catch((error: unknown) => {
	process.stderr.write(`sandbox86: ${describeError(error)}\n`);
	process.exitCode = error instanceof SandboxError && error.code === "invalid-argument" ? 2 : 1;
});

/** The stdio server as a process: everything is put together here, and taken apart when the client goes. */

import { type Config, dataFolders } from "./config.js";
import { prepareConsoleLog } from "./console-logs.js";
import { describeError } from "./errors.js";
import { loadImage } from "./image/store.js";
import type { Log } from "./log.js";
import { defaultAuditLog, openBuildNetwork, openNetwork } from "./network.js";
import { createServer } from "./server.js";
import { type ImageSource, Session } from "./session.js";
import { StdioTransport } from "./stdio.js";
import { claimStdout } from "./stdout-guard.js";
import { createMachine } from "./vm/guest-machine.js";
import { openSnapshotStore } from "./vm/snapshot/store.js";

/** The machine has this long to end, ms; its process then dies with ours. */
const STOP_MS = 1_200;
/** Rules that the instructions name. */
const MAX_LISTED = 8;
/** Answers that are on their way have this long to leave, ms. */
const FLUSH_MS = 300;

/** Serves one client until stdin ends or a signal comes; then ends the process. */
export async function serve(config: Config, version: string, log: Log): Promise<void> {
	const output = claimStdout();
	const folders = dataFolders(config.home);
	const snapshots = await openSnapshotStore(folders.snapshots, log);
	const consoleLogPath = await prepareConsoleLog(folders.logs);
	const network = await openNetwork(config, defaultAuditLog(config.home), log);
	const session = new Session({
		images: imageSource(config, log),
		createMachine: (image) => {
			const machine = createMachine({
				image,
				memoryMiB: config.memoryMiB ?? image.memoryMiB,
				log,
				consoleLogPath,
				network,
			});
			network.serve(machine);
			return machine;
		},
		log,
	});
	const server = createServer({
		version,
		machine: (wait) => session.machine(wait),
		snapshots,
		forwardPort: (guestPort) => network.forwardPort(guestPort),
		networkSummary: summarizeNetwork(config),
		defaultTimeoutMs: config.timeoutMs,
		log,
	});
	const transport = new StdioTransport(process.stdin, output);

	let ending = false;
	const end = async (why: string, exitCode = 0) => {
		if (ending) return;
		ending = true;
		log.info(`ending: ${why}`);
		await within(STOP_MS, Promise.allSettled([server.close(), session.stop(), network.close()]));
		await within(FLUSH_MS, new Promise((resolve) => output.end(resolve)));
		process.exit(exitCode);
	};
	process.once("exit", () => snapshots.close());
	process.on("SIGTERM", () => void end("SIGTERM"));
	process.on("SIGINT", () => void end("SIGINT"));
	process.on("SIGHUP", () => void end("SIGHUP"));
	process.on("unhandledRejection", (reason) => log.error(`a defect of sandbox86: ${stackOf(reason)}`));
	process.on("uncaughtException", (error) => {
		log.error(`a defect of sandbox86: ${stackOf(error)}`);
		void end("uncaught exception", 1);
	});
	// The SDK puts its own handler before ours when it connects.
	transport.onclose = () => void end("the client closed the connection");
	await server.connect(transport);
	log.info(`sandbox86 ${version} serves image ${config.image}; data in ${config.home}`);
}

function imageSource(config: Config, log: Log): ImageSource {
	const { home, image, memoryMiB, mirror } = config;
	return {
		name: image,
		load: () =>
			loadImage(home, image).catch(async (error: unknown) => {
				const { explainMissing } = await import("./image/obtain.js");
				throw await explainMissing(image, error);
			}),
		async build({ signal, onProgress }) {
			// Only a build needs the code for archives and signatures.
			const { obtainImage } = await import("./image/obtain.js");
			return obtainImage(home, image, {
				...(mirror === undefined ? {} : { mirror }),
				...(memoryMiB === undefined ? {} : { memoryMiB }),
				openNetwork: () => openBuildNetwork(config, log),
				signal,
				onProgress,
				log,
			});
		},
	};
}

/** What the client is told of the machine's network. */
function summarizeNetwork({ network, allow, deny, hostPort }: Config): string {
	if (network === "none") return "The machine has no network.";
	if (network === "fetch") return "The machine reaches the network by HTTP on port 80 only.";
	const open = allow.length === 0 ? "public addresses" : shortList(allow);
	const closed = deny.length === 0 ? "" : `, but not ${shortList(deny)}`;
	const host = hostPort.length === 0 ? "" : `, and the host's own ports ${shortList(hostPort)} at 10.0.2.2`;
	return `The machine reaches ${open}${closed}${host}, and nothing else. forward_port opens one of its ports on the host.`;
}

/** Names some and counts the rest: instructions are read by a model, which pays for each word. */
function shortList(words: readonly string[]): string {
	const more = words.length - MAX_LISTED;
	return words.slice(0, MAX_LISTED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

function within(ms: number, work: Promise<unknown>): Promise<unknown> {
	return Promise.race([work, new Promise((resolve) => setTimeout(resolve, ms))]);
}

function stackOf(error: unknown): string {
	return error instanceof Error ? (error.stack ?? error.message) : describeError(error);
}

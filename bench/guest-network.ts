/**
 * A real guest's network speed through the relay, against a relay that does nothing and against v86's own backends for
 * the same bytes. Uses the tiny image:
 *   npm run build:tools && node build/bench/guest-network.js
 */

import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttpServer, type Server as HttpServer } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { logging, server as wisp } from "@mercuryworkshop/wisp-js/server";
import { WebSocketServer } from "ws";
import type { Relay } from "../src/relay/relay.js";
import type { Machine, MachineNetwork } from "../src/vm/machine.js";
import type { NetworkAttachment } from "../src/vm/process-messages.js";
import { built } from "./built.js";
import { NullRelay } from "./null-relay.js";
import { median } from "./statistics.js";

const { createMachine } = await built<typeof import("../src/vm/guest-machine.js")>("vm/guest-machine.js");
const { NETWORK_MTU } = await built<typeof import("../src/vm/machine.js")>("vm/machine.js");
const { emulatorVersion } = await built<typeof import("../src/vm/emulator-version.js")>("vm/emulator-version.js");
const { loadImage } = await built<typeof import("../src/image/store.js")>("image/store.js");
const { createRelay } = await built<typeof import("../src/relay/relay.js")>("relay/relay.js");
const { silentLog } = await built<typeof import("../src/log.js")>("log.js");

const IMAGE = "tiny";
const MEMORY_MIB = 128;
const MEBIBYTES = 16;
const TRANSFER_BYTES = MEBIBYTES * 2 ** 20;
const GATEWAY = "10.0.2.2";
/** The emulator compiles what the guest's kernel runs often; it is fast from about the fourth run on. */
const WARM_UP_RUNS = 4;
const RUNS = 7;
const TIMEOUT_MS = 120_000;
const MACHINE_NAME = "guest";

function portOf(server: Server | HttpServer): number {
	return (server.address() as AddressInfo).port;
}

async function listening<T extends Server | HttpServer>(server: T): Promise<T> {
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	return server;
}

/** Calls the listener of the moment with the number of each piece of bytes that arrives. */
class Arrivals {
	#listener: (bytes: number) => void = () => {};

	add(bytes: number): void {
		this.#listener(bytes);
	}

	/** Resolves when all of a transfer is here. */
	complete(): Promise<void> {
		return new Promise((resolve, reject) => {
			let missing = TRANSFER_BYTES;
			const timer = setTimeout(() => reject(new Error(`${missing} bytes of an upload did not arrive`)), TIMEOUT_MS);
			this.#listener = (bytes) => {
				missing -= bytes;
				if (missing > 0) return;
				clearTimeout(timer);
				resolve();
			};
		});
	}
}

/** The host's ends. */
class Host {
	readonly #web: HttpServer;
	readonly #sink: Server;
	readonly arrivals: Arrivals;

	private constructor(web: HttpServer, sink: Server, arrivals: Arrivals) {
		this.#web = web;
		this.#sink = sink;
		this.arrivals = arrivals;
	}

	static async start(): Promise<Host> {
		const content = Buffer.alloc(TRANSFER_BYTES);
		const arrivals = new Arrivals();
		const web = await listening(createHttpServer((_request, response) => response.end(content)));
		const sink = await listening(
			createServer((socket) => {
				socket.on("data", (bytes) => arrivals.add(bytes.length));
				socket.on("error", () => {});
			}),
		);
		return new Host(web, sink, arrivals);
	}

	get webPort(): number {
		return portOf(this.#web);
	}

	get sinkPort(): number {
		return portOf(this.#sink);
	}

	close(): void {
		this.#web.close();
		this.#web.closeAllConnections();
		this.#sink.close();
	}
}

/** A wisp server with the relay's alias for the host's localhost. */
class LoopbackConnection extends wisp.ServerConnection {
	override create_stream(stream: number, type: number, hostname: string, port: number): void {
		super.create_stream(stream, type, hostname === GATEWAY ? "127.0.0.1" : hostname, port);
	}
}

async function startWisp(): Promise<HttpServer> {
	logging.set_level(logging.NONE);
	wisp.options.allow_loopback_ips = true;
	wisp.options.allow_private_ips = true;
	const server = await listening(createHttpServer());
	const webSockets = new WebSocketServer({ noServer: true });
	server.on("upgrade", (request, socket, head) => {
		webSockets.handleUpgrade(request, socket, head, async (webSocket) => {
			webSocket.binaryType = "arraybuffer";
			// v86 speaks version 1.
			const connection = new LoopbackConnection(webSocket, "/", { wisp_version: 1 });
			await connection.setup();
			await connection.run();
		});
	});
	return server;
}

/** One way for the guest's frames to go. */
interface Backend {
	readonly name: string;
	readonly attachment: NetworkAttachment;
	readonly downloadUrl: string;
	readonly guestIsUp: () => void;
	/** What was uploaded arrives here; none: the backend has HTTP only. */
	readonly arrivals?: Arrivals;
}

interface Guest {
	readonly backend: Backend;
	readonly machine: Machine;
	readonly downloads: number[];
	readonly uploads: number[];
}

async function run(machine: Machine, command: string): Promise<void> {
	const result = await machine.run(command, { timeoutMs: TIMEOUT_MS });
	if (result.exitCode === 0) return;
	throw new Error(`${command}: ${result.exitCode} ${Buffer.from(result.stderr.head).toString()}`);
}

/** MiB/s, with the start of the program in it. */
async function download({ machine, backend }: Guest): Promise<number> {
	const started = performance.now();
	await run(machine, `wget -q -O /dev/null ${backend.downloadUrl}`);
	return MEBIBYTES / ((performance.now() - started) / 1000);
}

/**
 * MiB/s until the last byte has arrived. dd writes to the connection itself, as nc would copy 1 KiB at a time. The end of
 * the connection waits: v86's wisp backend loses what is on its way then.
 */
async function upload({ machine }: Guest, port: number, arrivals: Arrivals): Promise<number> {
	const script = `dd if=/dev/zero bs=64k count=${TRANSFER_BYTES / 65_536}; sleep 1`;
	const started = performance.now();
	const complete = arrivals.complete().then(() => performance.now() - started);
	await run(machine, `nc ${GATEWAY} ${port} -e sh -c '${script}'`);
	return MEBIBYTES / ((await complete) / 1000);
}

function report(what: string, values: readonly number[], baseline: readonly number[]): void {
	const ratio = median(values) / median(baseline);
	process.stdout.write(
		`${what.padEnd(34)} ${median(values).toFixed(1).padStart(6)} MiB/s ${`${Math.round(ratio * 100)} %`.padStart(6)}  ` +
			`${values.length} runs, ${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)}\n`,
	);
}

function reportDirection(what: string, guests: readonly Guest[], valuesOf: (guest: Guest) => readonly number[]): void {
	const [baseline] = guests;
	for (const guest of guests) {
		const values = valuesOf(guest);
		if (baseline === undefined || values.length === 0) continue;
		report(`${what}, ${guest.backend.name}`, values, valuesOf(baseline));
	}
}

function backends(host: Host, relay: Relay, nullRelay: NullRelay, wispServer: HttpServer): Backend[] {
	const nullArrivals = new Arrivals();
	nullRelay.on("swallowed", (bytes) => nullArrivals.add(bytes));
	const downloadUrl = `http://${GATEWAY}:${host.webPort}/`;
	const ignore = () => {};
	return [
		{
			name: "null relay",
			attachment: { kind: "relay", url: nullRelay.url },
			downloadUrl,
			guestIsUp: ignore,
			arrivals: nullArrivals,
		},
		{
			name: "relay",
			attachment: { kind: "relay", url: relay.machineUrl(MACHINE_NAME) },
			downloadUrl,
			guestIsUp: () => relay.network(MACHINE_NAME)?.guestIsUp(),
			arrivals: host.arrivals,
		},
		{
			name: "v86's fetch",
			attachment: { kind: "v86", relayUrl: "fetch" },
			downloadUrl: `http://${host.webPort}.external/`,
			guestIsUp: ignore,
		},
		{
			name: "v86's wisp",
			attachment: { kind: "v86", relayUrl: `wisp://127.0.0.1:${portOf(wispServer)}/` },
			downloadUrl,
			guestIsUp: ignore,
			arrivals: host.arrivals,
		},
	];
}

/** The guests take turns, so that what else the host does meets all of them. */
async function measure(guests: readonly Guest[], host: Host): Promise<void> {
	for (let turn = 0; turn < WARM_UP_RUNS + RUNS; turn++) {
		for (const guest of guests) {
			const speed = await download(guest);
			if (turn >= WARM_UP_RUNS) guest.downloads.push(speed);
		}
	}
	for (let turn = 0; turn < WARM_UP_RUNS + RUNS; turn++) {
		for (const guest of guests) {
			const { arrivals } = guest.backend;
			if (arrivals === undefined) continue;
			const speed = await upload(guest, host.sinkPort, arrivals);
			if (turn >= WARM_UP_RUNS) guest.uploads.push(speed);
		}
	}
}

function versionOf(dependency: string): string {
	const path = new URL(`../../node_modules/${dependency}/package.json`, import.meta.url);
	return (JSON.parse(readFileSync(path, "utf8")) as { version: string }).version;
}

process.stdout.write(
	`Node ${process.version}, v86 ${emulatorVersion()}, wisp-js ${versionOf("@mercuryworkshop/wisp-js")}, ` +
		`image ${IMAGE}, ${MEMORY_MIB} MiB, MTU ${NETWORK_MTU}, ${MEBIBYTES} MiB each\n` +
		`${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform}\n\n`,
);
const home = mkdtempSync(join(tmpdir(), "sandbox86-bench-"));
const host = await Host.start();
const relay = await createRelay({ hostPorts: [host.webPort, host.sinkPort], mtu: NETWORK_MTU, log: silentLog });
const nullRelay = await NullRelay.start(TRANSFER_BYTES, NETWORK_MTU);
const wispServer = await startWisp();
const image = await loadImage(home, IMAGE);
const guests = backends(host, relay, nullRelay, wispServer).map((backend): Guest => {
	const network: MachineNetwork = {
		attach: async () => backend.attachment,
		guestIsUp: backend.guestIsUp,
		guestPaused: () => {},
		guestResumed: () => {},
		openFlows: () => [],
		abandonFlows: () => {},
	};
	const consoleLogPath = join(home, "console.log");
	const machine = createMachine({ image, memoryMiB: MEMORY_MIB, network, log: silentLog, consoleLogPath });
	return { backend, machine, downloads: [], uploads: [] };
});
try {
	// One after the other: the first leaves a boot snapshot for the rest.
	for (const { machine } of guests) await machine.start();
	await measure(guests, host);
	reportDirection("to the guest", guests, (guest) => guest.downloads);
	reportDirection("from the guest", guests, (guest) => guest.uploads);
} finally {
	for (const { machine } of guests) await machine.stop();
	await relay.close();
	nullRelay.close();
	wispServer.close();
	wispServer.closeAllConnections();
	host.close();
	rmSync(home, { recursive: true });
}

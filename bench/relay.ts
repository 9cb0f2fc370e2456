/**
 * The relay's speed, with a kernel as its machine (as in test/network), against the host's own loopback. Needs root, gcc,
 * iproute2 and iperf3:
 *   npm run build:tools && node build/bench/relay.js
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { KernelPeer } from "../test/network/kernel-peer.js";
import { cpuSeconds } from "./server-client.js";
import { median, percentile } from "./statistics.js";

const GATEWAY = "10.0.2.2";
const SECONDS = 4;
const RUNS = 3;

function report(what: string, value: string, note = ""): void {
	process.stdout.write(`${what.padEnd(46)} ${value.padStart(14)}  ${note}\n`);
}

async function lineOf(child: ChildProcess): Promise<string> {
	if (child.stdout === null) throw new Error("no stdout");
	const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
	return line;
}

interface Transfer {
	readonly mebibytesPerSecond: number;
	readonly cpuSecondsPerGibibyte: number;
}

class Bench {
	readonly #folder: string;
	readonly #relay: ChildProcess;
	readonly #peer: KernelPeer;

	private constructor(folder: string, relay: ChildProcess, peer: KernelPeer) {
		this.#folder = folder;
		this.#relay = relay;
		this.#peer = peer;
	}

	static async start(mtu: number, ports: readonly number[]): Promise<Bench> {
		const folder = mkdtempSync(join(tmpdir(), "sandbox86-bench-"));
		const program = join(folder, "tap-peer");
		const source = fileURLToPath(new URL("../../test/network/tap-peer.c", import.meta.url));
		execFileSync("gcc", ["-O2", "-pthread", "-o", program, source]);
		const script = fileURLToPath(new URL("relay-process.js", import.meta.url));
		const relay = spawn(process.execPath, [script, String(mtu), ...ports.map(String)], {
			stdio: ["ignore", "pipe", "inherit"],
		});
		const peer = await KernelPeer.start({ program, url: await lineOf(relay), mtu });
		return new Bench(folder, relay, peer);
	}

	/** What iperf3 measures in one run. */
	async transfer(port: number, options: readonly string[]): Promise<Transfer> {
		const pid = this.#relay.pid ?? 0;
		const before = cpuSeconds(pid);
		const args = ["-c", GATEWAY, "-p", String(port), "-t", String(SECONDS), "-J", ...options];
		const { stdout } = await this.#peer.run("iperf3", args);
		const used = cpuSeconds(pid) - before;
		const result = JSON.parse(stdout) as {
			error?: string;
			end: { sum_received: { bytes: number; bits_per_second: number } };
		};
		if (result.error !== undefined) throw new Error(result.error);
		const { bytes, bits_per_second } = result.end.sum_received;
		return {
			mebibytesPerSecond: bits_per_second / 8 / 2 ** 20,
			cpuSecondsPerGibibyte: used / (bytes / 2 ** 30),
		};
	}

	run(script: string): Promise<string> {
		return this.#peer.node(script);
	}

	async stop(): Promise<void> {
		await this.#peer.stop();
		const ended = once(this.#relay, "exit");
		this.#relay.kill();
		await ended;
		rmSync(this.#folder, { recursive: true });
	}
}

const freePort = async () => {
	const server = createServer().listen(0, "127.0.0.1");
	await once(server, "listening");
	const address = server.address();
	server.close();
	await once(server, "close");
	return typeof address === "object" && address !== null ? address.port : 0;
};

async function benchThroughput(mtu: number): Promise<void> {
	const port = await freePort();
	const iperf = spawn("iperf3", ["-s", "-B", "127.0.0.1", "-p", String(port)], { stdio: "ignore" });
	const bench = await Bench.start(mtu, [port]);
	try {
		const kinds: [string, readonly string[]][] = [
			["to the guest", ["-R"]],
			["from the guest", []],
			["to the guest, 8 connections", ["-R", "-P", "8"]],
			["from the guest, 8 connections", ["-P", "8"]],
		];
		for (const [what, options] of kinds) {
			const runs: Transfer[] = [];
			for (let run = 0; run < RUNS; run++) runs.push(await bench.transfer(port, options));
			const speeds = runs.map((run) => run.mebibytesPerSecond);
			report(
				`MTU ${mtu}, ${what}`,
				`${Math.round(median(speeds))} MiB/s`,
				`${RUNS} runs, ${Math.round(Math.min(...speeds))} to ${Math.round(Math.max(...speeds))}; ` +
					`relay ${median(runs.map((run) => run.cpuSecondsPerGibibyte)).toFixed(1)} CPU s per GiB`,
			);
		}
	} finally {
		await bench.stop();
		iperf.kill();
	}
}

/** Round trips of one byte, ms; prints them as JSON. */
const roundTrips = (host: string, port: number) => `
	import { connect } from "node:net";
	const socket = connect({ host: "${host}", port: ${port}, noDelay: true });
	const times = [];
	let started = 0;
	const send = () => { started = performance.now(); socket.write("x"); };
	socket.on("connect", send);
	socket.on("data", () => {
		times.push(performance.now() - started);
		if (times.length < 3000) send();
		else { socket.destroy(); console.log(JSON.stringify(times.slice(500))); }
	});
`;

/** Connections, each with one byte there and back, 32 at a time; prints how many there were per second. */
const connections = (host: string, port: number) => `
	import { connect } from "node:net";
	const one = () => new Promise((resolve, reject) => {
		const socket = connect({ host: "${host}", port: ${port}, noDelay: true });
		socket.on("connect", () => socket.write("x"));
		socket.on("data", () => socket.end());
		socket.on("error", reject);
		socket.on("close", resolve);
	});
	const many = async (count) => { for (let done = 0; done < count; done++) await one(); };
	await many(50);
	const started = performance.now();
	await Promise.all(Array.from({ length: 32 }, () => many(100)));
	console.log(3200 / (performance.now() - started) * 1000);
`;

async function benchLatency(): Promise<void> {
	const echo = createServer({ noDelay: true }, (socket) => socket.on("error", () => {}).pipe(socket));
	echo.listen(0, "127.0.0.1");
	await once(echo, "listening");
	const address = echo.address();
	const port = typeof address === "object" && address !== null ? address.port : 0;
	const bench = await Bench.start(1500, [port]);
	const direct = (script: string) =>
		lineOf(spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] }));
	try {
		const through = JSON.parse(await bench.run(roundTrips(GATEWAY, port))) as number[];
		const without = JSON.parse(await direct(roundTrips("127.0.0.1", port))) as number[];
		for (const fraction of [0.5, 0.99]) {
			const added = percentile(through, fraction) - percentile(without, fraction);
			report(
				`added to a round trip, p${fraction * 100}`,
				`${Math.round(added * 1000)} µs`,
				`${Math.round(percentile(through, fraction) * 1000)} µs, without the relay ${Math.round(percentile(without, fraction) * 1000)} µs`,
			);
		}
		const perSecond = Number(await bench.run(connections(GATEWAY, port)));
		report(
			"connections with one byte there and back",
			`${Math.round(perSecond)} /s`,
			`without the relay ${Math.round(Number(await direct(connections("127.0.0.1", port))))} /s`,
		);
	} finally {
		await bench.stop();
		echo.close();
	}
}

process.stdout.write(
	`Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, ${Math.round(totalmem() / 2 ** 30)} GiB\n\n`,
);
await benchThroughput(1500);
await benchThroughput(65_521);
await benchLatency();

/**
 * What the README claims, measured: medians, with the versions and the machine. Needs the image (default: base) to be built:
 *   npm run bench -- [--image NAME] [--memory MIB] [--home FOLDER]
 */

import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { built } from "./built.js";
import { cpuSeconds, residentMiB, type ServerClient, startServer, startServerOverLines } from "./server-client.js";
import { median, percentile, series, timed } from "./statistics.js";

const commandLine = (await built<typeof import("../src/config.js")>("config.js")).parseCommandLine(
	process.argv.slice(2),
);
if (commandLine.kind !== "run") throw new Error("the bench takes the server's options, such as --image NAME");
const { config } = commandLine;
const serverArgs = process.argv.slice(2);
const env = Object.fromEntries(
	Object.entries(process.env).filter((entry): entry is [string, string] => entry[0].startsWith("SANDBOX86_")),
);

const memoryMiB = config.memoryMiB ?? 512;

function report(what: string, value: string, note = ""): void {
	process.stdout.write(`${what.padEnd(46)} ${value.padStart(14)}  ${note}\n`);
}

const ms = (value: number) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const range = (values: readonly number[]) =>
	`${values.length} runs, ${ms(Math.min(...values))} to ${ms(Math.max(...values))}`;

async function benchColdBoot(): Promise<void> {
	const { createMachine } = await built<typeof import("../src/vm/guest-machine.js")>("vm/guest-machine.js");
	const { loadImage } = await built<typeof import("../src/image/store.js")>("image/store.js");
	const { silentLog } = await built<typeof import("../src/log.js")>("log.js");
	const folder = mkdtempSync(join(tmpdir(), "sandbox86-bench-"));
	const image = await loadImage(config.home, config.image);
	try {
		const boots = await series(3, async () => {
			const machine = createMachine({
				image,
				memoryMiB,
				log: silentLog,
				consoleLogPath: join(folder, "console.log"),
				startFrom: "cold",
			});
			const took = await timed(() => machine.start());
			await machine.stop();
			return took;
		});
		report("cold boot to ready", ms(median(boots)), range(boots));
	} finally {
		rmSync(folder, { recursive: true });
	}
}

async function benchFirstResult(): Promise<void> {
	const firsts = await series(5, async () => {
		let server: ServerClient | undefined;
		const took = await timed(async () => {
			server = await startServer(serverArgs, env);
			await server.call("bash", { command: "echo ready" });
		});
		await server?.close();
		return took;
	});
	report("new server process to its first bash result", ms(median(firsts)), range(firsts));
}

async function benchCalls(server: ServerClient): Promise<void> {
	const bash = (command: string) => server.call("bash", { command, timeout_ms: 300_000 });
	await series(30, () => timed(() => bash("true")));
	const trues = await series(300, () => timed(() => bash("true")));
	report("bash true, p50", ms(median(trues)), "300 calls");
	report("bash true, p95", ms(percentile(trues, 0.95)));

	let last = "";
	const snapshots = await series(5, () =>
		timed(async () => {
			last = String((await server.call("snapshot", {})).snapshot);
		}),
	);
	report("snapshot", ms(median(snapshots)), range(snapshots));
	const restores = await series(5, () => timed(() => server.call("restore", { snapshot: last })));
	report("restore in place", ms(median(restores)), range(restores));

	const execs = await series(5, async () => (await timed(() => bash("for i in $(seq 100); do /bin/true; done"))) / 100);
	report("fork and exec of /bin/true", ms(median(execs)), range(execs));
	const workloads: [string, string][] = [
		["python3 -c 1", "python3 -c 1"],
		["python loop, 1 M steps", "python3 -c 'n=0\nfor i in range(1000000): n+=i\n'"],
		["sha256 of 20 MB", "head -c 20000000 /dev/zero | sha256sum"],
		[
			"git init, add, commit",
			"rm -rf /tmp/g && git init -q /tmp/g && cd /tmp/g && echo x >f && git add f && git -c user.name=a -c user.email=a@b commit -qm x",
		],
		["find /usr", "find /usr | wc -l"],
	];
	for (const [what, command] of workloads) {
		const runs = await series(4, () => timed(() => bash(command)));
		report(what, ms(runs[3] ?? 0), `fourth; first ${ms(runs[0] ?? 0)}`);
	}
}

async function benchFiles(server: ServerClient, over: string): Promise<void> {
	const megabytes = 16;
	const content = Buffer.alloc(megabytes * 1024 * 1024, "0123456789abcde\n").toString("latin1");
	const writes = await series(5, () => timed(() => server.call("write_file", { path: "/tmp/big", content })));
	report(`write_file of 16 MiB, ${over}`, `${((megabytes / median(writes)) * 1000).toFixed(1)} MiB/s`, range(writes));
	const reads = await series(5, () =>
		timed(() => server.call("read_file", { path: "/tmp/big", limit: megabytes * 1024 * 1024 })),
	);
	report(`read_file of 16 MiB, ${over}`, `${((megabytes / median(reads)) * 1000).toFixed(1)} MiB/s`, range(reads));
}

async function benchResources(server: ServerClient): Promise<void> {
	await server.call("bash", { command: "true" });
	const pids = server.processIds();
	report(
		"resident memory of both processes",
		`${Math.round(pids.reduce((sum, pid) => sum + residentMiB(pid), 0))} MiB`,
	);
	await new Promise((resolve) => setTimeout(resolve, 2000));
	const used = () => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
	const before = used();
	await new Promise((resolve) => setTimeout(resolve, 10_000));
	report("CPU while idle, both processes", `${((used() - before) * 10).toFixed(1)} %`, "over 10 s");
}

const { version } = await built<{ emulatorVersion: () => string }>("vm/emulator-version.js").then((module) => ({
	version: module.emulatorVersion(),
}));
process.stdout.write(
	`Node ${process.version}, v86 ${version}, image ${config.image}, ${memoryMiB} MiB\n` +
		`${cpus().length} × ${cpus()[0]?.model ?? "unknown CPU"}, ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform}\n\n`,
);
await benchColdBoot();
await benchFirstResult();
const server = await startServer(serverArgs, env);
try {
	await benchCalls(server);
	await benchFiles(server, "the SDK's transport");
	await benchResources(server);
} finally {
	await server.close();
}
const lines = await startServerOverLines(serverArgs, env);
try {
	await benchFiles(lines, "a linear reader");
} finally {
	await lines.close();
}

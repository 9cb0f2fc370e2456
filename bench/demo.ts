/**
 * `npm run demo`: an agent's whole loop through the real server, spoken to by the SDK's own client. Builds the image
 * first where it is missing. Ends with exit code 1 if any answer isn't what it must be.
 */

import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { getDefaultEnvironment, StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const dist = new URL("../../dist/", import.meta.url);
const CLI = fileURLToPath(new URL("cli.js", dist));
/** The programs in `build/` are measured against the package in `dist/`, so its modules come from there. */
const { parseCommandLine, dataFolders } = (await import(
	new URL("config.js", dist).href
)) as typeof import("../src/config.js");
const { loadImage } = (await import(new URL("image/store.js", dist).href)) as typeof import("../src/image/store.js");
const { openSnapshotStore } = (await import(
	new URL("vm/snapshot/store.js", dist).href
)) as typeof import("../src/vm/snapshot/store.js");
const { silentLog } = (await import(new URL("log.js", dist).href)) as typeof import("../src/log.js");

const MAX_SHOWN_LINES = 12;
const CALL_TIMEOUT_MS = 300_000;
const tty = process.stdout.isTTY === true;
const style = (code: number) => (text: string) => (tty ? `\x1b[${code}m${text}\x1b[0m` : text);
const [bold, dim, red, green, cyan] = [style(1), style(2), style(31), style(32), style(36)];

interface Answer {
	readonly text: string;
	readonly structured: Record<string, unknown>;
	readonly isError: boolean;
}

const PROGRAM = `import csv, json, statistics
rows = list(csv.DictReader(open("/root/demo/orders.csv")))
by_city = {}
for row in rows:
    by_city.setdefault(row["city"], []).append(float(row["amount"]))
report = {city: {"orders": len(v), "total": round(sum(v), 2), "median": statistics.median(v)} for city, v in sorted(by_city.items())}
json.dump(report, open("/root/demo/report.json", "w"), indent=2)
print(f"{len(rows)} orders in {len(report)} cities")
`;

const OPENED_PAGE = "a page of this computer\n";

/** Ends when the server listens. */
const SERVE =
	"cd /root/demo && { python3 -m http.server 8000 >/tmp/web 2>&1 & } && " +
	"until (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null; do sleep 0.5; done; echo serving";

/** 500 orders that are the same in every run. */
function orders(): string {
	const cities = ["Oslo", "Lima", "Kyoto", "Zürich"];
	const lines = ["city,amount"];
	for (let i = 0; i < 500; i++) lines.push(`${cities[(i * 7) % 4]},${((i * 37) % 1000) / 10}`);
	return `${lines.join("\n")}\n`;
}

class Demo {
	readonly #client: Client;
	#failures = 0;
	#step = 0;

	constructor(client: Client) {
		this.#client = client;
	}

	get failures(): number {
		return this.#failures;
	}

	/** Does something on the host, shows what came of it, and holds that against `expected`. */
	async onHost(why: string, what: string, act: () => Promise<string>, expected: (text: string) => boolean) {
		this.#step++;
		console.log(`\n${bold(`${this.#step}. ${why}`)}`);
		console.log(cyan(indent(what, "   host → ")));
		const startedAt = performance.now();
		const text = await act().catch((error: unknown) => String(error));
		this.#finish(text, expected(text), performance.now() - startedAt);
	}

	/** Makes a call, shows it with its answer and its time, and holds the answer against `expected`. */
	async call(why: string, tool: string, input: Record<string, unknown>, expected: (answer: Answer) => boolean) {
		this.#step++;
		console.log(`\n${bold(`${this.#step}. ${why}`)}`);
		console.log(cyan(indent(`${tool} ${describe(input)}`, "   → ")));
		const startedAt = performance.now();
		const result = await this.#client.callTool({ name: tool, arguments: input }, undefined, {
			timeout: CALL_TIMEOUT_MS,
		});
		const ms = performance.now() - startedAt;
		const content = result.content as { type: string; text: string }[];
		const answer: Answer = {
			text: content.map(({ text }) => text).join("\n"),
			structured: (result.structuredContent ?? {}) as Record<string, unknown>,
			isError: result.isError === true,
		};
		this.#finish(answer.text, expected(answer), ms);
		return answer;
	}

	#finish(text: string, right: boolean, ms: number): void {
		if (!right) this.#failures++;
		console.log(dim(indent(text, "   ← ")));
		console.log(`   ${right ? green("✓") : red("✗ not the answer that was expected")} ${bold(formatMs(ms))}`);
	}
}

function describe(input: Record<string, unknown>): string {
	const fields = Object.entries(input).map(([name, value]) => {
		const text = typeof value === "string" ? value : JSON.stringify(value);
		return text.includes("\n") ? `${name}:\n${text.trimEnd()}` : `${name}: ${text}`;
	});
	return fields.join("  ");
}

function indent(text: string, first: string): string {
	const lines = text.split("\n");
	const shown =
		lines.length <= MAX_SHOWN_LINES
			? lines
			: [...lines.slice(0, MAX_SHOWN_LINES - 1), `… ${lines.length - MAX_SHOWN_LINES + 1} more lines`];
	return shown.map((line, i) => (i === 0 ? first : " ".repeat(first.length)) + line).join("\n");
}

function formatMs(ms: number): string {
	return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** Builds the image where it is missing; the builder shows its own progress on stderr. */
async function prepareImage(home: string, image: string): Promise<void> {
	try {
		await loadImage(home, image);
		console.log(`Image ${image} is there.`);
		return;
	} catch {
		console.log(`Image ${image} is not there yet: building it. This takes some minutes, once.`);
	}
	const startedAt = performance.now();
	const { status } = spawnSync(process.execPath, [CLI, "image", "build", image, "--home", home], { stdio: "inherit" });
	if (status !== 0) throw new Error(`the image could not be built (exit code ${status}); its messages stand above`);
	console.log(`Image ${image} was built in ${formatMs(performance.now() - startedAt)}.`);
}

const stdout = (answer: Answer) => String(answer.structured.stdout);
const succeeded = (answer: Answer) => !answer.isError && answer.structured.exit_code === 0;

/** A web server of the host. */
async function serveOnHost(text: string): Promise<Server> {
	const server = createServer((_request, response) => response.end(text)).listen(0, "127.0.0.1");
	await once(server, "listening");
	return server;
}

const portOf = (server: Server) => (server.address() as AddressInfo).port;

/** What the demo's network is tried on: two web servers of the host, of which one is opened with --host-port. */
interface HostServers {
	readonly opened: Server;
	readonly closed: Server;
}

async function playNetwork(demo: Demo, { opened, closed }: HostServers): Promise<void> {
	const get = (server: Server) => `curl -sS -m 20 http://10.0.2.2:${portOf(server)}/`;
	await demo.call(
		"It reaches the one server of this computer that --host-port opens",
		"bash",
		{ command: get(opened) },
		(answer) => stdout(answer) === OPENED_PAGE,
	);
	await demo.call(
		"And no other one",
		"bash",
		{ command: get(closed) },
		(answer) => answer.structured.exit_code === 7 && stdout(answer) === "",
	);
	await demo.call("It serves its result", "bash", { command: SERVE }, succeeded);
	const forward = await demo.call(
		"A port of it is opened to this computer",
		"forward_port",
		{ port: 8000 },
		(answer) => !answer.isError,
	);
	const url = `${String(forward.structured.url)}/report.json`;
	await demo.onHost(
		"A program of this computer fetches it",
		`fetch ${url}`,
		async () => (await fetch(url, { headers: { connection: "close" } })).text(),
		(text) => text.includes('"orders": 125'),
	);
}

async function play(demo: Demo, snapshotName: string, servers: HostServers): Promise<void> {
	const where = ". /etc/os-release; echo $PRETTY_NAME; uname -rm; nproc; free -m | awk '/Mem/ {print $2 \" MiB\"}'";
	await demo.call("A Linux machine answers", "bash", { command: where }, (answer) => stdout(answer).includes("Debian"));
	const compute =
		"python3 -c 'import math; print(math.factorial(300) % (10**9 + 7), sum(1/n for n in range(1, 200001)))'";
	await demo.call("Python computes in it", "bash", { command: compute }, (answer) => stdout(answer).includes("12.783"));
	await demo.call(
		"A file goes in",
		"write_file",
		{ path: "/root/demo/orders.csv", content: orders() },
		(answer) => !answer.isError,
	);
	await demo.call(
		"A program goes in",
		"write_file",
		{ path: "/root/demo/report.py", content: PROGRAM, mode: "0755" },
		(answer) => !answer.isError,
	);
	const run = "cd /root/demo && python3 report.py && sha256sum report.json";
	const report = await demo.call("It runs on the data", "bash", { command: run }, (answer) =>
		stdout(answer).startsWith("500 orders in 4 cities"),
	);
	await demo.call(
		"Its result comes out",
		"read_file",
		{ path: "/root/demo/report.json" },
		(answer) => JSON.parse(String(answer.structured.content)).Oslo.orders === 125,
	);
	await playNetwork(demo, servers);
	const background =
		"mood=calm; (i=0; while :; do echo $((i+=1)) >/tmp/count; sleep 0.2; done) & sleep 1; cat /tmp/count";
	await demo.call("Something keeps running in the background", "bash", { command: background }, succeeded);
	await demo.call(
		"The whole machine is saved",
		"snapshot",
		{ name: snapshotName, description: "report is done" },
		(answer) => !answer.isError,
	);
	await demo.call(
		"Then everything goes wrong",
		"bash",
		{ command: 'mood=panic; rm -rf /usr /root/demo; echo "rm: $?"', timeout_ms: 280_000 },
		() => true,
	);
	await demo.call(
		"The machine is wrecked",
		"bash",
		{ command: "python3 --version; cat /root/demo/report.json" },
		(answer) => answer.structured.exit_code !== 0,
	);
	await demo.call("It goes back to where it was", "restore", { snapshot: snapshotName }, (answer) => !answer.isError);
	const check =
		'cd /root/demo && sha256sum report.json && echo "mood: $mood" && python3 -c "print(6 * 7)"; a=$(cat /tmp/count); sleep 1; b=$(cat /tmp/count); [ "$b" -gt "$a" ] && echo "still counting"';
	await demo.call(
		"Everything is back: files, variables, Python, the running process",
		"bash",
		{ command: check },
		(answer) => {
			const hash = stdout(report).split("\n")[1] ?? "?";
			return [hash, "mood: calm", "42", "still counting"].every((part) => stdout(answer).includes(part));
		},
	);
}

const commandLine = parseCommandLine([]);
if (commandLine.kind !== "run") throw new Error("unreachable");
const { home, image } = commandLine.config;
console.log(bold("sandbox86: a Linux machine for a coding agent"));
console.log(`Data folder: ${home}`);
await prepareImage(home, image);

const servers: HostServers = {
	opened: await serveOnHost(OPENED_PAGE),
	closed: await serveOnHost("a page that no machine may read\n"),
};
const transport = new StdioClientTransport({
	command: process.execPath,
	args: [CLI, "--home", home, "--host-port", String(portOf(servers.opened))],
	env: { ...getDefaultEnvironment(), SANDBOX86_IMAGE: image },
	stderr: "inherit",
});
const client = new Client({ name: "sandbox86-demo", version: "1" });
const snapshotName = `demo-${process.pid}`;
const startedAt = performance.now();
await client.connect(transport);
console.log(`Server started in ${formatMs(performance.now() - startedAt)}.`);
const demo = new Demo(client);
try {
	await play(demo, snapshotName, servers);
} finally {
	await client.close();
	for (const server of Object.values(servers) as Server[]) server.close();
	const snapshots = await openSnapshotStore(dataFolders(home).snapshots, silentLog);
	await snapshots.remove(snapshotName).catch(() => {});
}
const seconds = formatMs(performance.now() - startedAt);
console.log(
	demo.failures === 0 ? green(`\nAll steps worked, in ${seconds}.`) : red(`\n${demo.failures} steps failed.`),
);
process.exitCode = demo.failures === 0 ? 0 : 1;

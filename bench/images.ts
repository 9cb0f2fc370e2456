/**
 * Every image that the data folder has: what it takes on disk and how long a new server needs to its first result, and
 * the programs that it is for. Build them first (sandbox86 image build NAME), then:
 *   npm run bench:images -- [--home FOLDER] [NAME …]
 */

import { parseArgs } from "node:util";
import { built } from "./built.js";
import { type ServerClient, startServer } from "./server-client.js";
import { median, series, timed } from "./statistics.js";

/** Programs of which an image has some: each is run in a new machine (first, and then until the fourth time). */
const PROGRAMS: readonly { readonly name: string; readonly needs: string; readonly command: string }[] = [
	{ name: "python3 -c 1", needs: "python3", command: "python3 -c 1" },
	{ name: "node -e 1", needs: "node", command: "node -e 1" },
	{ name: "node --version", needs: "node", command: "node --version" },
	{
		name: "npm install of a local package",
		needs: "npm",
		command:
			'rm -rf /tmp/n && mkdir -p /tmp/n/p /tmp/n/a && cd /tmp/n/p && echo \'{"name":"p","version":"1.0.0"}\' > package.json && ' +
			'cd ../a && echo \'{"name":"a","version":"1.0.0"}\' > package.json && npm install --no-audit --no-fund ../p >/dev/null 2>&1',
	},
	{ name: "python3 -m venv", needs: "pip3", command: "rm -rf /tmp/v && python3 -m venv --without-pip /tmp/v" },
	{
		name: "gcc hello.c && ./a.out",
		needs: "gcc",
		command:
			"cd /tmp && printf '#include <stdio.h>\\nint main(void){puts(\"hello\");}\\n' > hello.c && gcc hello.c && ./a.out",
	},
	{
		name: "git clone of a local repository",
		needs: "git",
		command:
			"cd /tmp && rm -rf g h && git init -q g && cd g && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git clone -q /tmp/g /tmp/h",
	},
	{ name: "import numpy, pandas", needs: "numpy", command: "python3 -c 'import numpy, pandas'" },
];

const { values, positionals } = parseArgs({ options: { home: { type: "string" } }, allowPositionals: true });
const { parseCommandLine } = await built<typeof import("../src/config.js")>("config.js");
const commandLine = parseCommandLine(values.home === undefined ? [] : ["--home", values.home]);
if (commandLine.kind !== "run") throw new Error("unreachable");
const { home } = commandLine.config;
const { listImages } = await built<typeof import("../src/image/store.js")>("image/store.js");
const seconds = (ms: number) => (ms < 9_950 ? (ms / 1000).toFixed(ms < 995 ? 2 : 1) : `${Math.round(ms / 1000)}`);
const mib = (bytes: number) => `${Math.round(bytes / 1024 / 1024)}`;
const env = { SANDBOX86_HOME: home };

/** The programs' rows, printed after the images' own. */
const programs: string[][] = [];
printHead(["image", "build, s", "contents, MiB", "boot snapshot, MiB", "new server to first result, s"]);
for (const { name, state, manifest, bootSnapshotBytes } of await listImages(home)) {
	if (state === "missing" || (positionals.length > 0 && !positionals.includes(name))) continue;
	process.stderr.write(`image ${name}\n`);
	const firsts = await series(3, async () => {
		const servers: ServerClient[] = [];
		const took = await timed(async () => {
			const server = await startServer(["--image", name], env);
			servers.push(server);
			await server.call("bash", { command: "true" });
		});
		for (const server of servers) await server.close();
		return took;
	});
	printRow([
		name,
		manifest === undefined ? "-" : seconds(manifest.buildMs),
		manifest === undefined ? "-" : mib(manifest.fileBytes),
		bootSnapshotBytes === 0 ? "-" : mib(bootSnapshotBytes),
		seconds(median(firsts)),
	]);
	for (const program of PROGRAMS) {
		const server = await startServer(["--image", name], env);
		const run = async (command: string) => {
			const answer = await server.call("bash", { command, timeout_ms: 600_000 });
			return { ok: answer.exit_code === 0, ms: Number(answer.duration_ms) };
		};
		const probe = program.needs === "numpy" ? "ls /usr/lib/python3/dist-packages/numpy" : `command -v ${program.needs}`;
		if ((await run(`${probe} >/dev/null`)).ok) {
			const times = await series(4, async () => {
				const { ok, ms } = await run(program.command);
				if (!ok) throw new Error(`${name}: ${program.name} failed`);
				return ms;
			});
			const isWarm = manifest?.recipe.warm.includes(program.command) === true;
			process.stderr.write(`  ${program.name}: ${times.map(seconds).join(", ")} s\n`);
			programs.push([name, program.name, isWarm ? "yes" : "no", seconds(times[0] ?? 0), seconds(times[3] ?? 0)]);
		}
		await server.close();
	}
}

process.stdout.write("\n");
printHead(["image", "program", "in the boot snapshot", "first, s", "fourth, s"]);
for (const row of programs) printRow(row);

function printHead(cells: readonly string[]): void {
	printRow(cells);
	printRow(cells.map(() => "---"));
}

function printRow(cells: readonly string[]): void {
	process.stdout.write(`| ${cells.join(" | ")} |\n`);
}

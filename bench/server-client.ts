/** The real server process with the SDK's own client, over the SDK's transport or over lines. */

import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { built } from "./built.js";

const CLI_PATH = fileURLToPath(new URL("../../dist/cli.js", import.meta.url));
const CALL_TIMEOUT_MS = 600_000;
/** Room for an answer with 16 MiB of file in it; the client's own bound is 10 MiB. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

export interface ServerClient {
	/** Process ids of the server and its machine process. */
	processIds(): number[];
	/** Calls a tool and gives its structured content; throws the tool's own words when it is an error. */
	call(tool: string, args: Record<string, unknown>): Promise<Record<string, unknown>>;
	close(): Promise<void>;
}

export async function startServer(args: readonly string[], env: Record<string, string>): Promise<ServerClient> {
	const transport = new StdioClientTransport({
		command: process.execPath,
		args: [CLI_PATH, ...args],
		env: { PATH: process.env.PATH ?? "", ...env },
		stderr: "ignore",
		maxBufferSize: MAX_MESSAGE_BYTES,
	});
	return connect(transport, () => transport.pid);
}

/**
 * With a transport that reads a long line in time linear in its length; the SDK's own copies and searches what it has so far
 * with each 64 KiB that arrive.
 */
export async function startServerOverLines(
	args: readonly string[],
	env: Record<string, string>,
): Promise<ServerClient> {
	const { StdioTransport } = await built<typeof import("../src/stdio.js")>("stdio.js");
	const server = spawn(process.execPath, [CLI_PATH, ...args], {
		env: { PATH: process.env.PATH ?? "", ...env },
		stdio: ["pipe", "pipe", "ignore"],
	});
	const transport = new StdioTransport(server.stdout, server.stdin);
	const client = await connect(transport as Transport, () => server.pid ?? null);
	return {
		...client,
		close: async () => {
			const ended = new Promise((resolve) => server.once("exit", resolve));
			server.stdin.end();
			await ended;
			await client.close();
		},
	};
}

async function connect(transport: Transport, pid: () => number | null): Promise<ServerClient> {
	const client = new Client({ name: "sandbox86-bench", version: "1" });
	await client.connect(transport);
	return {
		processIds: () => {
			const server = pid();
			return server === null ? [] : [server, ...childrenOf(server)];
		},
		call: async (name, toolArgs) => {
			const result = await client.callTool({ name, arguments: toolArgs }, undefined, { timeout: CALL_TIMEOUT_MS });
			if (result.isError) throw new Error(`${name}: ${JSON.stringify(result.content)}`);
			return result.structuredContent as Record<string, unknown>;
		},
		close: () => client.close(),
	};
}

function childrenOf(pid: number): number[] {
	return readdirSync("/proc")
		.filter((name) => /^\d+$/.test(name))
		.map(Number)
		.filter((each) => parentOf(each) === pid);
}

function parentOf(pid: number): number | undefined {
	try {
		return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
	} catch {
		return undefined;
	}
}

/** Resident memory of a process, MiB (Linux). */
export function residentMiB(pid: number): number {
	return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;
}

/** CPU time that a process has used, seconds (Linux; proc(5): utime and stime, in ticks of 10 ms). */
export function cpuSeconds(pid: number): number {
	const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
	return (Number(fields[11]) + Number(fields[12])) / 100;
}

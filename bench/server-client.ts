/** The real server process with the SDK's own client. */

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

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
	const client = new Client({ name: "sandbox86-bench", version: "1" });
	await client.connect(transport);
	return {
		processIds: () => (transport.pid === null ? [] : [transport.pid, ...childrenOf(transport.pid)]),
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

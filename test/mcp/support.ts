/** The real server process (dist/cli.js) on image tiny, spoken to by the SDK's own client or by bare lines. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { getDefaultEnvironment, StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import type { RequestOptions } from "@modelcontextprotocol/sdk/shared/protocol.js";

export const CLI = resolve(import.meta.dirname, "../../dist/cli.js");
export const MEMORY_MIB = 96;
/** The SDK's client refuses messages of more than 10 MiB unless told otherwise. */
const MAX_MESSAGE_BYTES = 128 * 2 ** 20;

export interface Answer {
	readonly text: string;
	readonly structured: Record<string, unknown> | undefined;
	readonly isError: boolean;
}

export interface Connection {
	readonly client: Client;
	readonly pid: number;
	/** What the server has written to stderr so far. */
	stderr(): string;
	call(name: string, input: Record<string, unknown>, options?: RequestOptions): Promise<Answer>;
	/** The standard output of a command that must succeed. */
	bash(command: string): Promise<string>;
	close(): Promise<void>;
}

export interface ServerOptions {
	readonly home: string;
	readonly args?: readonly string[];
}

export function serverArgs({ home, args = [] }: ServerOptions): string[] {
	const defaults = args.includes("--memory") ? [] : ["--memory", String(MEMORY_MIB)];
	return [CLI, "--image", "tiny", "--home", home, "--log-level", "info", ...defaults, ...args];
}

export async function connect(options: ServerOptions): Promise<Connection> {
	const transport = new StdioClientTransport({
		command: process.execPath,
		args: serverArgs(options),
		env: getDefaultEnvironment(),
		stderr: "pipe",
		maxBufferSize: MAX_MESSAGE_BYTES,
	});
	let stderr = "";
	transport.stderr?.on("data", (chunk: Buffer) => {
		stderr += chunk.toString();
	});
	const client = new Client({ name: "sandbox86-tests", version: "1" });
	await client.connect(transport);
	const call = async (name: string, input: Record<string, unknown>, requestOptions?: RequestOptions) => {
		const result = await client.callTool({ name, arguments: input }, undefined, requestOptions);
		const content = result.content as { type: string; text: string }[];
		return {
			text: content.map(({ text }) => text).join("\n"),
			structured: result.structuredContent as Record<string, unknown> | undefined,
			isError: result.isError === true,
		};
	};
	return {
		client,
		pid: transport.pid ?? 0,
		stderr: () => stderr,
		call,
		async bash(command) {
			const { structured, text, isError } = await call("bash", { command });
			if (isError || structured?.exit_code !== 0) throw new Error(`${command}: ${text}`);
			return String(structured.stdout);
		},
		close: () => client.close(),
	};
}

/** A data folder of its own, with the boot snapshot of `templateHome`. */
export function newHome(templateHome: string): string {
	const home = mkdtempSync(join(tmpdir(), "sandbox86-mcp-"));
	mkdirSync(join(home, "images"));
	cpSync(join(templateHome, "images"), join(home, "images"), { recursive: true });
	return home;
}

export function removeHome(home: string): void {
	rmSync(home, { recursive: true, force: true });
}

/** Files in the data folder that only exist while something is being written. */
export function temporaryFiles(home: string): string[] {
	return readdirSync(home, { recursive: true, encoding: "utf8" }).filter((path) =>
		/(^|\/)\.?(tmp|temp)|\.(tmp|part|lock)$/.test(path),
	);
}

/** The server's machine processes. */
export function childrenOf(pid: number): number[] {
	const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
	return text === "" ? [] : text.split(" ").map(Number);
}

export function isAlive(pid: number): boolean {
	try {
		// A zombie is dead.
		return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
	} catch {
		return false;
	}
}

/** The server as a bare process: lines in, lines out. */
export class RawServer {
	readonly process: ChildProcessWithoutNullStreams;
	readonly lines: string[] = [];
	readonly exited: Promise<{ code: number | null; signal: string | null }>;
	#nextId = 1;
	readonly #waiting = new Map<number, (message: Record<string, unknown>) => void>();

	constructor(options: ServerOptions) {
		this.process = spawn(process.execPath, serverArgs(options));
		this.process.stderr.resume();
		this.process.stdin.on("error", () => {});
		this.exited = new Promise((done) =>
			this.process.on("exit", (code, signal) => {
				done({ code, signal });
				for (const answer of this.#waiting.values())
					answer({ error: { message: `the server ended (${code ?? signal})` } });
			}),
		);
		createInterface({ input: this.process.stdout }).on("line", (line) => {
			this.lines.push(line);
			const message = JSON.parse(line) as { id?: number };
			if (typeof message.id === "number") this.#waiting.get(message.id)?.(message);
		});
	}

	get pid(): number {
		return this.process.pid ?? 0;
	}

	async initialize(): Promise<void> {
		const { error } = await this.request("initialize", {
			protocolVersion: "2025-06-18",
			capabilities: {},
			clientInfo: { name: "raw", version: "1" },
		});
		if (error !== undefined) throw new Error(`no server: ${JSON.stringify(error)}`);
		this.write({ jsonrpc: "2.0", method: "notifications/initialized" });
	}

	write(message: unknown): void {
		this.process.stdin.write(`${typeof message === "string" ? message : JSON.stringify(message)}\n`);
	}

	request(method: string, params: unknown): Promise<Record<string, unknown>> {
		const id = this.#nextId++;
		const answered = new Promise<Record<string, unknown>>((done) => this.#waiting.set(id, done));
		this.write({ jsonrpc: "2.0", id, method, params });
		return answered;
	}

	call(name: string, input: unknown, meta: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
		return this.request("tools/call", { name, arguments: input, _meta: meta });
	}
}

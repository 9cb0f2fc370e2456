/** The MCP server: the one module that knows the protocol's SDK. */

import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import type { RequestHandlerExtra } from "@modelcontextprotocol/sdk/shared/protocol.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import {
	CallToolRequestSchema,
	type CallToolResult,
	ErrorCode,
	ListToolsRequestSchema,
	McpError,
	type ServerNotification,
	type ServerRequest,
} from "@modelcontextprotocol/sdk/types.js";
import { SandboxError } from "./errors.js";
import type { Log } from "./log.js";
import type { WaitOptions } from "./session.js";
import type { StdioTransport } from "./stdio.js";
import { tools } from "./tools/index.js";
import { answerResult, asSandboxError, errorResult, type ToolResult } from "./tools/result.js";
import type { Tool, ToolContext } from "./tools/tool.js";
import type { Machine } from "./vm/machine.js";
import type { SnapshotStore } from "./vm/snapshot/store.js";

export interface ServerDeps {
	/** Version of this package. */
	readonly version: string;
	readonly machine: (wait: WaitOptions) => Promise<Machine>;
	readonly snapshots: SnapshotStore;
	readonly forwardPort: (guestPort: number) => Promise<string>;
	/** What the client is told of the machine's network, as a full sentence. */
	readonly networkSummary: string;
	/** Time for a command that names none, ms. */
	readonly defaultTimeoutMs: number;
	readonly log: Log;
}

export interface SandboxServer {
	/** Serves one client; resolves once it listens. */
	connect(transport: StdioTransport): Promise<void>;
	close(): Promise<void>;
}

/** The workflow stands in the first 512 characters: clients may show no more. */
const WORKFLOW =
	"One 32-bit Linux machine (root, its own kernel, emulated in WebAssembly), started by the first call and kept for all. " +
	"Work: bash runs scripts in one persistent shell; write_file and read_file move content without quoting. " +
	"Before anything risky: snapshot; when it went wrong: restore, with memory, files and processes as they were. " +
	"The CPU is 20 to 100 times slower than the host's and there is one: prefer small steps, " +
	"and start long work in the background with its output in a file.\n" +
	"Files and processes live in the machine's memory: what is to outlast the server must be in a snapshot, " +
	"or be read out with read_file. The first call may take minutes while the machine's image is built; it then says how far it is.";

/** Calls under way at once. */
const MAX_CALLS = 32;

type Extra = RequestHandlerExtra<ServerRequest, ServerNotification>;

/** A server with no state but its own connection. */
export function createServer(deps: ServerDeps): SandboxServer {
	const server = new Server(
		{ name: "sandbox86", title: "sandbox86", version: deps.version },
		{ capabilities: { tools: {} }, instructions: `${WORKFLOW}\n${deps.networkSummary}` },
	);
	let calls = 0;
	server.onerror = (error) => deps.log.warn(error.message);
	server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: tools.map(describeTool) }));
	server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra): Promise<CallToolResult> => {
		const tool = tools.find(({ name }) => name === params.name);
		if (tool === undefined) throw unknownTool(params.name);
		calls++;
		try {
			if (calls > MAX_CALLS) throw tooManyCalls();
			return mutable(await answer(tool, params.arguments, contextOf(deps, extra), deps.log));
		} catch (error) {
			return mutable(errorResult(error));
		} finally {
			calls--;
		}
	});
	return {
		connect: (transport) => server.connect(transport as Transport),
		close: () => server.close(),
	};
}

async function answer(tool: Tool, input: unknown, context: ToolContext, log: Log): Promise<ToolResult> {
	try {
		return answerResult(await tool.call(input, context));
	} catch (error) {
		const failure = asSandboxError(error);
		const cause = failure.cause instanceof Error ? `: ${failure.cause.stack ?? failure.cause.message}` : "";
		if (failure.code === "internal") log.error(`${tool.name} failed (${failure.message})${cause}`);
		else log.debug(`${tool.name}: ${failure.message}`);
		return errorResult(failure);
	}
}

function describeTool({ name, title, description, inputSchema, outputSchema, annotations }: Tool) {
	return { name, title, description, inputSchema, outputSchema, annotations };
}

function contextOf(deps: ServerDeps, extra: Extra): ToolContext {
	const { signal } = extra;
	const progress = progressOf(extra);
	return {
		machine: () => deps.machine({ signal, progress }),
		snapshots: deps.snapshots,
		forwardPort: deps.forwardPort,
		signal,
		progress,
		defaultTimeoutMs: deps.defaultTimeoutMs,
	};
}

/** Sends progress notifications if the client asked for them; `progress` is the call's age in ms, which only grows. */
function progressOf({ _meta, signal, sendNotification }: Extra): ((message: string) => Promise<void>) | undefined {
	const progressToken = _meta?.progressToken;
	if (progressToken === undefined) return undefined;
	const startedAt = performance.now();
	let last = 0;
	return async (message) => {
		if (signal.aborted) return;
		last = Math.max(last + 1, Math.round(performance.now() - startedAt));
		await sendNotification({ method: "notifications/progress", params: { progressToken, progress: last, message } });
	};
}

/** The SDK's types know no read-only arrays. */
function mutable(result: ToolResult): CallToolResult {
	return { ...result, content: [...result.content] };
}

function unknownTool(name: string): McpError {
	return new McpError(
		ErrorCode.InvalidParams,
		`there is no tool ${JSON.stringify(name.slice(0, 100))}; there are ${tools.map((tool) => tool.name).join(", ")}`,
	);
}

function tooManyCalls(): SandboxError {
	return new SandboxError(
		"busy",
		`more than ${MAX_CALLS} calls are under way at once`,
		"wait for answers before making further calls",
	);
}

/**
 * MCP's stdio transport: one JSON-RPC message a line. Unlike the SDK's own it takes lines of any length up to a bound
 * (a 16 MiB file is 22 MB of base64), answers lines that are no messages, and ends when its input does.
 */

import type { Readable, Writable } from "node:stream";
import { LineReader } from "./line-reader.js";

/** A 16 MiB file in base64 and its JSON take 22.4 MB; escaped text at most six times its size. */
export const MAX_LINE_BYTES = 100 * 1024 * 1024;

const PARSE_ERROR = -32700;
const INVALID_REQUEST = -32600;

export type Message = { readonly jsonrpc: "2.0"; readonly [key: string]: unknown };

export class StdioTransport {
	onmessage?: (message: Message) => void;
	onclose?: () => void;
	onerror?: (error: Error) => void;

	readonly #input: Readable;
	readonly #output: Writable;
	readonly #reader = new LineReader(MAX_LINE_BYTES);
	#closed = false;

	constructor(input: Readable, output: Writable) {
		this.#input = input;
		this.#output = output;
	}

	async start(): Promise<void> {
		this.#input.on("data", this.#receive);
		this.#input.on("end", this.#end);
		this.#input.on("close", this.#end);
		this.#input.on("error", this.#end);
		this.#output.on("error", this.#end);
	}

	/** Resolves once the message is on its way and there is room for more. */
	send(message: unknown): Promise<void> {
		if (this.#closed) return Promise.resolve();
		return new Promise((resolve) => {
			// The callback comes with an error, too, when the client has gone; "error" ends the transport then.
			this.#output.write(`${JSON.stringify(message)}\n`, () => resolve());
		});
	}

	async close(): Promise<void> {
		if (this.#closed) return;
		this.#closed = true;
		this.#input.off("data", this.#receive);
		this.#input.pause();
		this.onclose?.();
	}

	readonly #end = () => void this.close();

	readonly #receive = (chunk: Uint8Array) => {
		for (const line of this.#reader.push(chunk)) {
			if (line === "too-long") this.#refuse(INVALID_REQUEST, `a message has more than ${MAX_LINE_BYTES} bytes`);
			else if (line.trim() !== "") this.#handle(line);
		}
	};

	#handle(line: string): void {
		let message: unknown;
		try {
			message = JSON.parse(line);
		} catch {
			this.#refuse(PARSE_ERROR, "a line is not JSON");
			return;
		}
		if (isMessage(message)) this.onmessage?.(message);
		else this.#refuse(INVALID_REQUEST, "a line is not a JSON-RPC 2.0 message", idOf(message));
	}

	#refuse(code: number, reason: string, id: string | number | null = null): void {
		this.onerror?.(new Error(`refused a line of input: ${reason}`));
		void this.send({ jsonrpc: "2.0", id, error: { code, message: reason } });
	}
}

function isMessage(value: unknown): value is Message {
	if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
	const message = value as Record<string, unknown>;
	if (message.jsonrpc !== "2.0") return false;
	if ("id" in message && typeof message.id !== "string" && !Number.isSafeInteger(message.id)) return false;
	if ("method" in message) {
		if (typeof message.method !== "string") return false;
		return (
			message.params === undefined ||
			(typeof message.params === "object" && message.params !== null && !Array.isArray(message.params))
		);
	}
	return "id" in message && ("result" in message || "error" in message);
}

function idOf(value: unknown): string | number | null {
	const id = typeof value === "object" && value !== null && "id" in value ? value.id : null;
	return typeof id === "string" || typeof id === "number" ? id : null;
}

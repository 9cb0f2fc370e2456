import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { type Message, StdioTransport } from "../../src/stdio.js";

async function open() {
	const input = new PassThrough();
	const output = new PassThrough();
	const transport = new StdioTransport(input, output);
	const received: Message[] = [];
	transport.onmessage = (message) => received.push(message);
	await transport.start();
	const sent = () => output.read()?.toString() as string | undefined;
	return { input, transport, received, sent };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe("StdioTransport", () => {
	it("hands on messages and skips empty lines", async () => {
		const { input, received } = await open();
		input.write('{"jsonrpc":"2.0","id":1,"method":"ping"}\r\n\n{"jsonrpc":"2.0","method":"x","params":{}}\n');
		await settled();
		expect(received.map(({ method }) => method)).toEqual(["ping", "x"]);
	});

	it.each([
		["{oops", { id: null, error: { code: -32700, message: "a line is not JSON" } }],
		["[]", { id: null, error: { code: -32600, message: "a line is not a JSON-RPC 2.0 message" } }],
		['{"jsonrpc":"1.0","id":7,"method":"x"}', { id: 7, error: { code: -32600 } }],
		['{"jsonrpc":"2.0","id":8,"method":5}', { id: 8, error: { code: -32600 } }],
		['{"jsonrpc":"2.0","id":{},"method":"x"}', { id: null, error: { code: -32600 } }],
		['{"jsonrpc":"2.0","id":9,"method":"x","params":[1]}', { id: 9, error: { code: -32600 } }],
		["null", { id: null, error: { code: -32600 } }],
	])("answers %s with an error and goes on", async (line, expected) => {
		const { input, received, sent } = await open();
		input.write(`${line}\n{"jsonrpc":"2.0","id":1,"method":"ping"}\n`);
		await settled();
		expect(JSON.parse(sent() ?? "")).toMatchObject({ jsonrpc: "2.0", ...expected });
		expect(received).toHaveLength(1);
	});

	it("writes one line for a message, whatever is in it", async () => {
		const { transport, sent } = await open();
		await transport.send({ jsonrpc: "2.0", id: 1, result: { text: "a\nb\r\u2028c" } });
		expect(sent()?.split("\n")).toHaveLength(2);
	});

	it("closes once when its input ends", async () => {
		const { input, transport } = await open();
		let closed = 0;
		transport.onclose = () => closed++;
		input.end();
		await settled();
		await settled();
		await transport.close();
		expect(closed).toBe(1);
	});
});

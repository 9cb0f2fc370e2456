import { describe, expect, it } from "vitest";
import { forwardPortTool } from "../../../src/tools/forward-port.js";
import type { ToolContext } from "../../../src/tools/tool.js";

function context(): { happened: string[]; context: ToolContext } {
	const happened: string[] = [];
	const fake = {
		machine: async () => ({ start: async () => void happened.push("start") }),
		forwardPort: async (port: number) => {
			happened.push(`forward ${port}`);
			return "http://127.0.0.1:40000";
		},
	};
	return { happened, context: fake as unknown as ToolContext };
}

describe("forward_port", () => {
	it("starts the machine, then opens the port", async () => {
		const { happened, context: fake } = context();
		expect(await forwardPortTool.call({ port: 8000 }, fake)).toEqual({
			structured: { url: "http://127.0.0.1:40000" },
			text: "Port 8000 of the machine is http://127.0.0.1:40000 on the host.",
		});
		expect(happened).toEqual(["start", "forward 8000"]);
	});

	it.each([
		[{}, "port: "],
		[{ port: 0 }, "port: a port from 1 to 65535 is needed"],
		[{ port: 65_536 }, "port: a port from 1 to 65535 is needed"],
		[{ port: -1 }, "port: a port from 1 to 65535 is needed"],
		[{ port: 80.5 }, "port: a port from 1 to 65535 is needed"],
		[{ port: "80" }, "port: a port from 1 to 65535 is needed"],
		[{ port: null }, "port: a port from 1 to 65535 is needed"],
		[{ port: 80, host_port: 80 }, 'unknown field "host_port"'],
	])("refuses %j without touching the machine", async (input, message) => {
		const { happened, context: fake } = context();
		await expect(forwardPortTool.call(input, fake)).rejects.toThrowError(
			expect.objectContaining({ code: "invalid-argument", message: expect.stringContaining(message) }),
		);
		expect(happened).toEqual([]);
	});
});

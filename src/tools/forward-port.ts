import { z } from "zod";
import { defineTool } from "./tool.js";

const PORT_RULE = "a port from 1 to 65535 is needed";

export const forwardPortTool = defineTool({
	name: "forward_port",
	title: "Open a port of the machine",
	description:
		"Leads a port of the host's 127.0.0.1 to a TCP port of the machine, so that programs on the host reach a server in it. " +
		"Lasts as long as this server; the same port again gives the same address.",
	input: z.strictObject({
		port: z.int({ error: PORT_RULE }).min(1, PORT_RULE).max(65_535, PORT_RULE).describe("the machine's port"),
	}),
	output: z.object({ url: z.string() }),
	annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
	async run({ port }, { machine, forwardPort }) {
		const guest = await machine();
		await guest.start();
		const url = await forwardPort(port);
		return { structured: { url }, text: `Port ${port} of the machine is ${url} on the host.` };
	},
});

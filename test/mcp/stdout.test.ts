import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { newHome, RawServer, removeHome } from "./support.js";

let home: string;
let server: RawServer;
beforeAll(async () => {
	home = newHome(inject("templateHome"));
	server = new RawServer({ home });
	await server.initialize();
});
afterAll(async () => {
	server.process.stdin.end();
	await server.exited;
	removeHome(home);
});

describe("the server's stdout", () => {
	it("is JSON-RPC to the last byte, whatever the guest prints", async () => {
		const commands = [
			"head -c 50000 /dev/urandom",
			'printf \'\\033[2J\\r\\n{"jsonrpc":"2.0","id":1,"result":{}}\\n\\n\'',
			"echo garbage >/dev/ttyS0; echo more >/dev/console; echo '<1>kernel' >/dev/kmsg; true",
			"i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); done >&2",
		];
		for (const [i, command] of commands.entries()) {
			const answer = await server.call("bash", { command }, { progressToken: `t${i}` });
			expect(answer.error).toBeUndefined();
		}
		for (const line of server.lines) expect(JSON.parse(line)).toMatchObject({ jsonrpc: "2.0" });
	});

	it("answers lines that are no messages with errors, and goes on", async () => {
		const before = server.lines.length;
		server.write("this is not JSON");
		server.write("[]");
		server.write('"text"');
		expect(await server.request("ping", {})).toMatchObject({ result: {} });
		const codes = server.lines
			.slice(before)
			.map((line) => (JSON.parse(line) as { error?: { code: number } }).error?.code);
		expect(codes).toEqual([-32700, -32600, -32600, undefined]);
	});

	it("answers while the guest is busy", async () => {
		const busy = server.call("bash", { command: "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done" });
		const startedAt = performance.now();
		await server.request("tools/list", {});
		expect(performance.now() - startedAt).toBeLessThan(500);
		await busy;
	});
});

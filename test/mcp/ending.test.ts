import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, inject, it } from "vitest";
import { childrenOf, isAlive, newHome, RawServer, removeHome, temporaryFiles } from "./support.js";

/** Makes a snapshot take long enough to be interrupted. */
const BALLAST = randomBytes(16 * 2 ** 20).toString("base64");

let home: string;
beforeEach(() => {
	home = newHome(inject("templateHome"));
});
afterEach(() => removeHome(home));

const ways: [string, (server: RawServer) => void][] = [
	["SIGTERM", (server) => server.process.kill("SIGTERM")],
	["SIGINT", (server) => server.process.kill("SIGINT")],
	["a closed stdin", (server) => server.process.stdin.end()],
];

async function expectEnd(server: RawServer, end: (server: RawServer) => void): Promise<void> {
	const machines = childrenOf(server.pid);
	expect(machines).toHaveLength(1);
	const startedAt = performance.now();
	end(server);
	expect(await server.exited).toEqual({ code: 0, signal: null });
	await expect.poll(() => machines.filter(isAlive), { timeout: 2000, interval: 20 }).toEqual([]);
	expect(performance.now() - startedAt).toBeLessThan(2000);
	expect(temporaryFiles(home)).toEqual([]);
}

describe.each(ways)("%s ends both processes within 2 s and leaves no temporary file", (_name, end) => {
	it("when the machine is idle", async () => {
		const server = new RawServer({ home });
		await server.initialize();
		await server.call("bash", { command: "true" });
		await expectEnd(server, end);
	});

	it("while a command is running", async () => {
		const server = new RawServer({ home });
		await server.initialize();
		await server.call("bash", { command: "true" });
		void server.call("bash", { command: "while :; do :; done" });
		await server.request("ping", {});
		await expectEnd(server, end);
	});

	it("while a snapshot is being written", async () => {
		const server = new RawServer({ home });
		await server.initialize();
		await server.call("write_file", { path: "/tmp/ballast", content: BALLAST, encoding: "base64" });
		void server.call("snapshot", { name: "half" });
		await expect
			.poll(() => temporaryFiles(home).length, { timeout: 5000, interval: 1 })
			.toBeGreaterThan(0)
			.catch(() => {});
		await expectEnd(server, end);
	});
});

describe("a server whose machine was never needed", () => {
	it.each(ways)("ends at once by %s", async (_name, end) => {
		const server = new RawServer({ home });
		await server.initialize();
		const startedAt = performance.now();
		end(server);
		expect(await server.exited).toEqual({ code: 0, signal: null });
		expect(performance.now() - startedAt).toBeLessThan(1000);
	});
});

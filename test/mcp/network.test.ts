/** The machine's network through the real server: what is open, what is closed, and what is written down of it. */

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from "vitest";
import { type Connection, connect, newHome, removeHome } from "./support.js";

let web: Server;
let webPort: number;
let home: string;
const open: Connection[] = [];

beforeAll(async () => {
	web = createServer((request, response) => response.end(`the host's page ${request.url}\n`));
	web.listen(0, "127.0.0.1");
	await once(web, "listening");
	webPort = (web.address() as AddressInfo).port;
});
afterAll(() => {
	web.close();
});
beforeEach(() => {
	home = newHome(inject("templateHome"));
});
afterEach(async () => {
	await Promise.all(open.splice(0).map((server) => server.close()));
	removeHome(home);
});

async function start(...args: string[]): Promise<Connection> {
	const server = await connect({ home, args });
	open.push(server);
	return server;
}

interface AuditLine {
	readonly protocol: string;
	readonly address: string | null;
	readonly port: number | null;
	readonly verdict: string;
	readonly rule: string;
	readonly bytesOut: number;
	readonly bytesIn: number;
}

function auditLines(path: string): AuditLine[] {
	const lines = readFileSync(path, "utf8").trim().split("\n");
	return lines.map((line) => JSON.parse(line) as AuditLine);
}

const fetchPage = (address: string, port: number) => `wget -q -O - http://${address}:${port}/index.html 2>&1`;

describe("a page of the host", () => {
	it("is open to the machine where --host-port says so, and every connection is written down", async () => {
		const server = await start("--host-port", String(webPort));
		expect(server.client.getInstructions()).toContain(
			`The machine reaches public addresses, and the host's own ports ${webPort} at 10.0.2.2, and nothing else.`,
		);
		expect(await server.bash(fetchPage("10.0.2.2", webPort))).toBe("the host's page /index.html\n");
		await server.close();
		const lines = auditLines(join(home, "logs", "network.jsonl"));
		expect(lines).toHaveLength(1);
		expect(lines[0]).toEqual({
			time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
			machine: expect.stringMatching(/^machine-\d+$/),
			protocol: "tcp",
			name: null,
			address: "10.0.2.2",
			port: webPort,
			verdict: "allowed",
			rule: `host-port ${webPort}`,
			bytesOut: expect.any(Number),
			bytesIn: expect.any(Number),
		});
		expect(lines[0]?.bytesIn).toBeGreaterThan(27);
	});

	it("is closed otherwise, by every address of the host's that the machine could name", async () => {
		const auditLog = join(home, "audit.jsonl");
		const server = await start("--audit-log", auditLog);
		for (const address of ["10.0.2.2", "10.0.2.3", "169.254.169.254", "192.168.0.1", "10.0.0.1"]) {
			const { structured } = await server.call("bash", { command: fetchPage(address, webPort) });
			expect(structured?.stdout).toMatch(/refused/i);
		}
		await server.close();
		const lines = auditLines(auditLog);
		expect(lines.every(({ verdict }) => verdict === "refused")).toBe(true);
		expect(lines.map(({ address, rule }) => [address, rule])).toEqual([
			["10.0.2.2", "host-port"],
			["10.0.2.3", "host-port"],
			["169.254.169.254", "special 169.254.0.0/16 (link-local and cloud metadata, RFC 3927)"],
			["192.168.0.1", "special 192.168.0.0/16 (private, RFC 1918)"],
			["10.0.0.1", "special 10.0.0.0/8 (private, RFC 1918)"],
		]);
	});
});

describe("forward_port", () => {
	it("leads the host to a server in the machine, again after a restore", async () => {
		const server = await start();
		await server.bash("mkdir /www; echo from the machine >/www/page; httpd -p 8000 -h /www");
		const { structured } = await server.call("forward_port", { port: 8000 });
		const url = String(structured?.url);
		expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
		const page = async () => (await fetch(`${url}/page`, { headers: { Connection: "close" } })).text();
		expect(await page()).toBe("from the machine\n");
		expect((await server.call("forward_port", { port: 8000 })).structured).toEqual({ url });

		await server.call("snapshot", { name: "served" });
		await server.bash("echo other >/www/page");
		expect(await page()).toBe("other\n");
		await server.call("restore", { snapshot: "served" });
		expect(await page()).toBe("from the machine\n");
	});

	it("is refused where there is no relay", async () => {
		const server = await start("--network", "none");
		expect(server.client.getInstructions()).toMatch(/\nThe machine has no network\.$/);
		const { text, isError } = await server.call("forward_port", { port: 80 });
		expect(text).toMatch(/no port can be forwarded with --network none/);
		expect(isError).toBe(true);
	});
});

describe("a snapshot", () => {
	it("fits a server with another kind of network", async () => {
		const server = await start("--host-port", String(webPort));
		await server.bash("mark=here");
		await server.call("snapshot", { name: "kept" });
		await server.close();
		const without = await start("--network", "none");
		await without.call("restore", { snapshot: "kept" });
		expect(await without.bash("echo $mark")).toBe("here\n");
		await without.close();
		const within = await start("--host-port", String(webPort));
		await within.call("restore", { snapshot: "kept" });
		expect(await within.bash(fetchPage("10.0.2.2", webPort))).toBe("the host's page /index.html\n");
	});
});

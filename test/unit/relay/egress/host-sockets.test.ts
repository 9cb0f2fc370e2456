import { createSocket } from "node:dgram";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { createHostAddresses } from "../../../../src/relay/egress/host-addresses.js";
import { nodeHostSockets } from "../../../../src/relay/egress/host-sockets.js";
import { ping, pingArguments } from "../../../../src/relay/egress/ping.js";
import { VirtualClock } from "../virtual-clock.js";
import { ipv4 } from "./support.js";

const cleanups: (() => void)[] = [];
afterEach(() => {
	for (const cleanup of cleanups.splice(0)) cleanup();
});

async function listen(host: string, port = 0): Promise<{ server: Server; port: number }> {
	const server = createServer({ allowHalfOpen: true }, (socket) => {
		cleanups.push(() => socket.destroy());
		socket.on("error", () => {});
		socket.pipe(socket);
	});
	await new Promise<void>((resolve, reject) => {
		server.once("error", reject);
		server.listen(port, host, resolve);
	});
	cleanups.push(() => server.close());
	return { server, port: (server.address() as AddressInfo).port };
}

function outcomeOf(socket: Socket): Promise<string> {
	return new Promise((resolve) => {
		socket.once("connect", () => resolve("connected"));
		socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "error"));
	});
}

async function text(socket: Socket): Promise<string> {
	const pieces: Buffer[] = [];
	for await (const piece of socket) pieces.push(piece as Buffer);
	return Buffer.concat(pieces).toString();
}

describe("the host's TCP", () => {
	it("goes to the address given, and the other direction stays open after an end", async () => {
		const { port } = await listen("127.0.0.1");
		const socket = nodeHostSockets.connectTcp("127.0.0.1", port);
		cleanups.push(() => socket.destroy());
		expect(await outcomeOf(socket)).toBe("connected");
		socket.end("said before the end");
		expect(await text(socket)).toBe("said before the end");
		expect(socket.allowHalfOpen).toBe(true);
	});

	it("reports a refusal by its errno", async () => {
		const { server, port } = await listen("127.0.0.1");
		await new Promise((closed) => server.close(closed));
		expect(await outcomeOf(nodeHostSockets.connectTcp("127.0.0.1", port))).toBe("ECONNREFUSED");
	});

	it("to localhost tries 127.0.0.1, then ::1, and reports a refusal of both by its errno", async () => {
		const four = await listen("127.0.0.1");
		const first = nodeHostSockets.connectLocalhost(four.port);
		cleanups.push(() => first.destroy());
		expect(await outcomeOf(first)).toBe("connected");
		expect(first.remoteAddress).toBe("127.0.0.1");
		await new Promise<void>((closed) => {
			first.destroy();
			four.server.close(() => closed());
		});
		const second = nodeHostSockets.connectLocalhost(four.port);
		expect(await outcomeOf(second)).toBe("ECONNREFUSED");
	});

	it("to localhost reaches a server on ::1 alone", async (context) => {
		const six = await listen("::1").catch(() => undefined);
		if (six === undefined) return context.skip("this host has no IPv6 loopback");
		const socket = nodeHostSockets.connectLocalhost(six.port);
		cleanups.push(() => socket.destroy());
		expect(await outcomeOf(socket)).toBe("connected");
		expect(socket.remoteAddress).toBe("::1");
	});
});

describe("the host's UDP", () => {
	it("sends at once to an address and hears its answer", async () => {
		const server = createSocket("udp4");
		cleanups.push(() => server.close());
		server.on("message", (message, from) => server.send(`${message}!`, from.port, from.address));
		await new Promise<void>((bound) => server.bind(0, "127.0.0.1", bound));
		const socket = nodeHostSockets.bindUdp();
		cleanups.push(() => socket.close());
		const answer = new Promise<string>((resolve) => socket.once("message", (message) => resolve(String(message))));
		socket.send("hello", server.address().port, "127.0.0.1");
		expect(await answer).toBe("hello!");
	});
});

describe("the host's ping", () => {
	const folder = mkdtempSync(join(tmpdir(), "sandbox86-ping-"));
	const program = (name: string, script: string): string => {
		const path = join(folder, name);
		writeFileSync(path, `#!/bin/sh\n${script}\n`);
		chmodSync(path, 0o755);
		return path;
	};
	afterAll(() => rmSync(folder, { recursive: true, force: true }));

	it("is asked for one numeric echo, whatever the system", () => {
		expect(pingArguments("192.0.2.1", "linux")).toEqual(["-n", "-c", "1", "-W", "2", "192.0.2.1"]);
		expect(pingArguments("192.0.2.1", "darwin")).toEqual(["-n", "-c", "1", "-W", "2000", "192.0.2.1"]);
		expect(pingArguments("192.0.2.1", "win32")).toEqual(["-n", "1", "-w", "2000", "192.0.2.1"]);
	});

	it.skipIf(process.platform === "win32")("counts by its exit status; on Windows by a reply's line too", async () => {
		const yes = program("yes", "echo 'Reply from 192.0.2.1: bytes=32 time<1ms TTL=128'");
		const unreachable = program("unreachable", "echo 'Reply from 10.0.0.1: Destination host unreachable.'");
		const no = program("no", "exit 1");
		expect(await ping("192.0.2.1", yes, "linux")).toEqual({ kind: "reply" });
		expect(await ping("192.0.2.1", yes, "win32")).toEqual({ kind: "reply" });
		expect(await ping("192.0.2.1", unreachable, "win32")).toEqual({ kind: "no-reply" });
		expect(await ping("192.0.2.1", no, "linux")).toEqual({ kind: "no-reply" });
	});

	it("that is not there is unavailable", async () => {
		expect(await ping("192.0.2.1", join(folder, "missing"), "linux")).toEqual({ kind: "unavailable" });
	});

	it.skipIf(process.platform === "win32")("runs a few at once, no more", async () => {
		const no = program("later", "sleep 0.2; exit 1");
		const outcomes = await Promise.all(Array.from({ length: 12 }, () => ping("192.0.2.1", no, "linux")));
		expect(outcomes.filter(({ kind }) => kind === "no-reply")).toHaveLength(8);
		expect(outcomes.filter(({ kind }) => kind === "unavailable")).toHaveLength(4);
		expect((await ping("192.0.2.1", no, "linux")).kind).toBe("no-reply");
	});
});

describe("the host's own addresses", () => {
	it("are those of its interfaces, asked for again after a few seconds", () => {
		const clock = new VirtualClock();
		let address = "198.51.100.7";
		const entry = () => ({ address, family: "IPv4" as const, netmask: "", mac: "", internal: false, cidr: null });
		const six = { ...entry(), address: "2001:db8::1", family: "IPv6" as const, scopeid: 0 };
		const addresses = createHostAddresses(clock, () => ({ eth0: [entry(), six] }));
		expect([...addresses()]).toEqual([ipv4("198.51.100.7")]);
		address = "198.51.100.8";
		clock.advance(4999);
		expect([...addresses()]).toEqual([ipv4("198.51.100.7")]);
		clock.advance(1);
		expect([...addresses()]).toEqual([ipv4("198.51.100.8")]);
	});

	it("stay as they were while the system does not tell them", () => {
		const clock = new VirtualClock();
		let broken = false;
		const entry = {
			address: "198.51.100.7",
			family: "IPv4" as const,
			netmask: "",
			mac: "",
			internal: false,
			cidr: null,
		};
		const addresses = createHostAddresses(clock, () => {
			if (broken) throw new Error("uv_interface_addresses");
			return { eth0: [entry] };
		});
		addresses();
		broken = true;
		clock.advance(10_000);
		expect(addresses().size).toBe(1);
	});
});

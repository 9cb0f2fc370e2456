import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { type AddressInfo, createServer, type Server } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../../../src/relay/clock.js";
import { type DnsDecision, DnsProxy } from "../../../../src/relay/services/dns-proxy.js";
import { type DnsExchange, nodeDnsTransport } from "../../../../src/relay/services/dns-transport.js";
import { DNS_CODE, type DnsMessage } from "../../../../src/relay/wire/dns.js";
import { serializeDnsMessage } from "../../../../src/relay/wire/dns-serializer.js";
import { createGate, ipv4, tryEverything } from "../egress/support.js";
import { addressRecord, parsed, queryOf, responseTo } from "./support.js";

const cleanups: (() => void)[] = [];
afterEach(() => {
	for (const cleanup of cleanups.splice(0)) cleanup();
});

type Say = (query: DnsMessage, socket: UdpSocket, port: number) => DnsMessage | undefined;

/** A DNS server on loopback, on one port by UDP and, if wanted, by TCP. */
async function serve(say: Say, sayTcp?: (query: DnsMessage) => Uint8Array): Promise<{ port: number; ports: number[] }> {
	const ports: number[] = [];
	const udp = createSocket("udp4");
	cleanups.push(() => udp.close());
	udp.on("message", (bytes, from) => {
		ports.push(from.port);
		const response = say(parsed(bytes), udp, from.port);
		if (response !== undefined) udp.send(serializeDnsMessage(response), from.port, from.address);
	});
	await new Promise<void>((bound) => udp.bind(0, "127.0.0.1", bound));
	const { port } = udp.address();
	if (sayTcp !== undefined) await serveTcp(port, sayTcp);
	return { port, ports };
}

async function serveTcp(port: number, say: (query: DnsMessage) => Uint8Array): Promise<Server> {
	const server = createServer((socket) => {
		cleanups.push(() => socket.destroy());
		socket.on("error", () => {});
		socket.on("data", (bytes) => {
			const framed = say(parsed(bytes.subarray(2)));
			// In two pieces, as TCP may.
			socket.write(framed.subarray(0, 5));
			setImmediate(() => socket.write(framed.subarray(5)));
		});
	});
	await new Promise<void>((listening) => server.listen(port, "127.0.0.1", listening));
	cleanups.push(() => server.close());
	return server;
}

function framed(message: DnsMessage): Uint8Array {
	const bytes = serializeDnsMessage(message);
	return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes]);
}

function proxyOf(port: number, allow: readonly string[] = []) {
	const parts = createGate({ allow });
	const decisions: DnsDecision[] = [];
	const proxy = new DnsProxy({
		policy: parts.policy,
		names: parts.names,
		resolvers: () => [{ address: "127.0.0.1", port }],
		transport: nodeDnsTransport(),
		clock: systemClock,
		decided: (decision) => decisions.push(decision),
	});
	cleanups.push(() => proxy.close());
	const ask = async (name: string, via: "udp" | "tcp" = "udp"): Promise<DnsMessage> =>
		parsed(await proxy.handle(serializeDnsMessage(queryOf(name)), via));
	return { ...parts, proxy, ask, decisions };
}

function exchangeWith(port: number, more: Partial<DnsExchange> = {}): DnsExchange {
	return {
		query: serializeDnsMessage(queryOf("a.test")),
		resolver: { address: "127.0.0.1", port },
		via: "udp",
		timeoutMs: 5000,
		signal: new AbortController().signal,
		accepts: () => true,
		...more,
	};
}

describe("with a real server on loopback, the resolver", () => {
	it("asks each question from another port", async () => {
		const { port, ports } = await serve((query) => responseTo(query, [addressRecord("a.test", "1.1.1.1")]));
		const { ask } = proxyOf(port);
		for (let count = 0; count < 10; count++) expect((await ask("a.test")).answers).toHaveLength(1);
		expect(new Set(ports).size).toBeGreaterThan(8);
	});

	it("holds against a name that is rebound to the host, and nothing private is ever connected", async () => {
		const turns = ["93.184.216.34", "127.0.0.1", "169.254.169.254", "10.0.2.2"];
		const { port } = await serve((query) =>
			responseTo(query, [addressRecord("rebind.test", turns.shift() ?? "0.0.0.0", 0)]),
		);
		const parts = proxyOf(port, ["rebind.test"]);
		expect((await parts.ask("rebind.test")).answers).toHaveLength(1);
		for (let count = 0; count < 4; count++) expect((await parts.ask("rebind.test")).answers).toEqual([]);
		for (const address of ["127.0.0.1", "169.254.169.254", "10.0.2.2", "0.0.0.0"])
			tryEverything(parts, ipv4(address), port);
		expect(parts.sockets.asked).toEqual([]);
		expect(parts.decisions.filter(({ verdict }) => !verdict.allowed).map(({ address }) => address)).toEqual(
			["127.0.0.1", "169.254.169.254", "10.0.2.2", "0.0.0.0"].map(ipv4),
		);
	});

	it("goes on to TCP when the answer is cut", async () => {
		const records = Array.from({ length: 200 }, (_, index) => addressRecord("a.test", `1.1.1.${index}`));
		const { port } = await serve(
			(query) => responseTo(query, [], { isTruncated: true }),
			(query) => framed(responseTo(query, records)),
		);
		expect((await proxyOf(port).ask("a.test", "tcp")).answers).toHaveLength(200);
	});

	it("passes over forged answers that come before the true one", async () => {
		const { port } = await serve((query, socket, from) => {
			for (let id = 0; id < 20; id++) {
				const forged = responseTo({ ...query, id: query.id ^ (id + 1) }, [addressRecord("a.test", "6.6.6.6")]);
				socket.send(serializeDnsMessage(forged), from, "127.0.0.1");
			}
			socket.send(Buffer.from("noise"), from, "127.0.0.1");
			return responseTo(query, [addressRecord("a.test", "1.1.1.1")]);
		});
		expect((await proxyOf(port).ask("a.test")).answers).toEqual([addressRecord("a.test", "1.1.1.1")]);
	});

	it("does not hear another socket that has the ID right", async () => {
		const stranger = createSocket("udp4");
		cleanups.push(() => stranger.close());
		const { port } = await serve((query, _socket, from) => {
			const forged = responseTo(query, [addressRecord("a.test", "6.6.6.6")]);
			stranger.send(serializeDnsMessage(forged), from, "127.0.0.1", () => {
				setTimeout(() => respond(query), 50);
			});
			return undefined;
		});
		let respond = (_query: DnsMessage): void => {};
		const control = new AbortController();
		const heard: string[] = [];
		const exchange = nodeDnsTransport().exchange(
			exchangeWith(port, {
				signal: control.signal,
				accepts: () => {
					heard.push("something");
					return true;
				},
			}),
		);
		respond = () => control.abort();
		await expect(exchange).rejects.toThrow("given up");
		expect(heard).toEqual([]);
	});

	it("says SERVFAIL at once when nobody listens there", async () => {
		const { port } = await serve(() => undefined);
		for (const cleanup of cleanups.splice(0)) cleanup();
		const startMs = performance.now();
		expect((await proxyOf(port).ask("a.test")).code).toBe(DNS_CODE.SERVFAIL);
		expect(performance.now() - startMs).toBeLessThan(5000);
	});
});

describe("an exchange with a resolver", () => {
	it("over TCP ends when the server hangs up, or refuses", async () => {
		const server = createServer((socket) => socket.resume().end());
		await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
		const { port } = server.address() as AddressInfo;
		const exchange = exchangeWith(port, { via: "tcp" });
		await expect(nodeDnsTransport().exchange(exchange)).rejects.toThrow("without an answer");
		await new Promise((closed) => server.close(closed));
		await expect(nodeDnsTransport().exchange(exchange)).rejects.toThrow("ECONNREFUSED");
	});

	it("ends when its time is over, and when it is given up before it began", async () => {
		const { port } = await serve(() => undefined);
		await expect(nodeDnsTransport().exchange(exchangeWith(port, { timeoutMs: 20 }))).rejects.toThrow("in time");
		await expect(nodeDnsTransport().exchange(exchangeWith(port, { signal: AbortSignal.abort() }))).rejects.toThrow(
			"given up",
		);
	});

	it("goes to resolvers on IPv6, too", async (context) => {
		const udp = createSocket("udp6");
		cleanups.push(() => udp.close());
		udp.on("message", (bytes, from) => udp.send(bytes, from.port, from.address));
		const isBound = await new Promise<boolean>((resolve) => {
			udp.once("error", () => resolve(false));
			udp.bind(0, "::1", () => resolve(true));
		});
		if (!isBound) return context.skip("this host has no IPv6 loopback");
		const resolver = { address: "::1", port: udp.address().port };
		const echo = await nodeDnsTransport().exchange(exchangeWith(0, { resolver }));
		expect(Buffer.from(echo)).toEqual(Buffer.from(serializeDnsMessage(queryOf("a.test"))));
	});
});

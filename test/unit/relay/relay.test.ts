import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { silentLog } from "../../../src/log.js";
import { BROADCAST_MAC, GATEWAY_ADDRESS, GATEWAY_MAC, GUEST_ADDRESS } from "../../../src/relay/addresses.js";
import { parseRule } from "../../../src/relay/egress/rule.js";
import { createRelay, type Relay, type RelayOptions } from "../../../src/relay/relay.js";
import { serializeArpPacket } from "../../../src/relay/wire/arp.js";
import { serializeDhcpMessage } from "../../../src/relay/wire/dhcp.js";
import { serializeEthernetFrame } from "../../../src/relay/wire/ethernet.js";
import { parseIpv4Packet, writeIpv4Header } from "../../../src/relay/wire/ipv4.js";
import {
	NO_TCP_OPTIONS,
	parseTcpSegment,
	serializeTcpFrame,
	TCP_ACK,
	TCP_PSH,
	TCP_RST,
	TCP_SYN,
} from "../../../src/relay/wire/tcp.js";
import { serializeUdpDatagram } from "../../../src/relay/wire/udp.js";
import { TestClient } from "./websocket-client.js";

const GUEST_MAC = 0x525400123456;
const folder = mkdtempSync(join(tmpdir(), "sandbox86-relay-"));
const relays: Relay[] = [];
const host = createServer((socket) => socket.on("error", () => {}));
let hostPort = 0;

beforeAll(async () => {
	host.listen(0, "127.0.0.1");
	await once(host, "listening");
	hostPort = (host.address() as AddressInfo).port;
});

afterEach(async () => {
	await Promise.all(relays.splice(0).map((relay) => relay.close()));
});

afterAll(() => {
	host.close();
	rmSync(folder, { recursive: true });
});

async function start(options: Partial<RelayOptions> = {}): Promise<Relay> {
	const relay = await createRelay({ log: silentLog, ...options });
	relays.push(relay);
	return relay;
}

/** Who has the gateway's address? */
const question = serializeEthernetFrame({
	destination: BROADCAST_MAC,
	source: GUEST_MAC,
	etherType: 0x0806,
	payload: serializeArpPacket({
		operation: "request",
		senderMac: GUEST_MAC,
		senderAddress: GUEST_ADDRESS,
		targetMac: 0,
		targetAddress: GATEWAY_ADDRESS,
	}),
});

/** A UDP packet. */
function fromGuest(
	sourceMac: number,
	destinationMac: number,
	source: number,
	destination: number,
	message?: Uint8Array,
) {
	const datagram = { sourcePort: 68, destinationPort: 67, payload: message ?? new Uint8Array(9) };
	const body = serializeUdpDatagram(datagram, source, destination);
	const payload = new Uint8Array(20 + body.length);
	const fragment = { moreFragments: false, fragmentOffset: 0, identification: 1 };
	writeIpv4Header(payload, 0, { source, destination, protocol: 17, payloadBytes: body.length, ...fragment });
	payload.set(body, 20);
	return serializeEthernetFrame({ destination: destinationMac, source: sourceMac, etherType: 0x0800, payload });
}

/** A DHCPDISCOVER. */
function discover(mac: number): Uint8Array {
	const none = { clientAddress: 0, yourAddress: 0, serverAddress: 0, gatewayAddress: 0 };
	const message = serializeDhcpMessage({
		...{ operation: "request", transaction: 7, seconds: 0, flags: 0, clientMac: mac, ...none },
		options: new Map([[53, Uint8Array.of(1)]]),
	});
	return fromGuest(mac, BROADCAST_MAC, 0, 0xffffffff, message);
}

function synTo(destinationPort: number, sourcePort = 40_000): Uint8Array {
	return serializeTcpFrame({
		segment: {
			sourcePort,
			destinationPort,
			sequence: 1000,
			acknowledgment: 0,
			flags: TCP_SYN,
			window: 65_535,
			options: NO_TCP_OPTIONS,
			payload: new Uint8Array(0),
		},
		source: GUEST_ADDRESS,
		destination: GATEWAY_ADDRESS,
		sourceMac: GUEST_MAC,
		destinationMac: GATEWAY_MAC,
		identification: 1,
	});
}

/** The first bytes of the connection that synTo opened, behind the relay's SYN. */
function dataTo(destinationPort: number, sourcePort: number, acknowledgment: number, text: string): Uint8Array {
	return serializeTcpFrame({
		segment: {
			sourcePort,
			destinationPort,
			sequence: 1001,
			acknowledgment: acknowledgment >>> 0,
			flags: TCP_ACK | TCP_PSH,
			window: 65_535,
			options: NO_TCP_OPTIONS,
			payload: Buffer.from(text),
		},
		source: GUEST_ADDRESS,
		destination: GATEWAY_ADDRESS,
		sourceMac: GUEST_MAC,
		destinationMac: GATEWAY_MAC,
		identification: 2,
	});
}

function flagsOf(frame: Uint8Array | undefined): number {
	const packet = parseIpv4Packet((frame ?? new Uint8Array(0)).subarray(14));
	if (!packet.ok) throw new Error(packet.reason);
	const segment = parseTcpSegment(packet.value.payload, packet.value.source, packet.value.destination);
	if (!segment.ok) throw new Error(segment.reason);
	return segment.value.flags;
}

/** The answers to each of `frames`, one for one. */
async function ask(client: TestClient, ...frames: Uint8Array[]): Promise<Buffer[]> {
	const answers: Buffer[] = [];
	for (const frame of frames) {
		client.send(frame);
		answers.push(...(await client.take(1)));
	}
	return answers;
}

describe("a relay", () => {
	test("gives each connection a network of its own, with the same addresses", async () => {
		const relay = await start();
		const [first, second] = [await TestClient.connect(relay.url), await TestClient.connect(relay.url)];
		const [answer] = await ask(first, question);
		expect(await ask(second, question)).toEqual([answer]);
		expect(relay.machines).toEqual(["unnamed-1", "unnamed-2"]);
		first.send(synTo(1));
		expect(flagsOf((await first.take(1))[0])).toBe(TCP_RST | TCP_ACK);
		expect(second.frames).toEqual([]);
	});

	test("that is shared leases each machine an address, passes frames between them, and lets them out as before", async () => {
		const relay = await start({ shared: true, hostPorts: [hostPort] });
		const clients = [await TestClient.connect(relay.url), await TestClient.connect(relay.url)];
		const addresses: number[] = [];
		for (const [at, client] of clients.entries()) {
			const [offer] = await ask(client, discover(GUEST_MAC + at));
			addresses.push(offer?.readUInt32BE(14 + 20 + 8 + 16) ?? 0);
		}
		expect(addresses).toEqual([GUEST_ADDRESS, GUEST_ADDRESS + 1]);
		const [first, second] = clients as [TestClient, TestClient];
		const greeting = fromGuest(GUEST_MAC, GUEST_MAC + 1, GUEST_ADDRESS, GUEST_ADDRESS + 1);
		first.send(greeting);
		expect((await second.take(1))[0]).toEqual(Buffer.from(greeting));
		first.send(synTo(hostPort));
		expect(flagsOf((await first.take(1))[0])).toBe(TCP_SYN | TCP_ACK);
		expect([first.frames, second.frames]).toEqual([[], []]);
	});

	test("lets a machine reach the host's ports that were opened, and no other", async () => {
		const relay = await start({ hostPorts: [hostPort] });
		const client = await TestClient.connect(relay.url);
		await ask(client, question);
		const [opened, closed] = await ask(client, synTo(hostPort), synTo(hostPort === 1024 ? 1025 : 1024, 40_001));
		expect(flagsOf(opened)).toBe(TCP_SYN | TCP_ACK);
		expect(flagsOf(closed)).toBe(TCP_RST | TCP_ACK);
	});

	test("tells when a named machine comes and goes, and knows its network meanwhile", async () => {
		const events: string[] = [];
		const relay = await start({
			events: {
				connected: (machine, network) => events.push(`+${machine} ${relay.network(machine) === network}`),
				disconnected: (machine) => events.push(`-${machine} ${relay.network(machine)}`),
			},
		});
		expect(relay.network("a")).toBeUndefined();
		const first = await TestClient.connect(relay.machineUrl("a"));
		await ask(first, question);
		const second = await TestClient.connect(relay.machineUrl("a"));
		expect((await first.ended).code).toBe(4000);
		await ask(second, question);
		expect(relay.network("a")?.counters.framesReceived).toBe(1);
		await relay.close();
		expect(events).toEqual(["+a true", "-a undefined", "+a true", "-a undefined"]);
	});

	test("ends a machine's flows with its connection", async () => {
		const relay = await start({ hostPorts: [hostPort] });
		const accepted = once(host, "connection");
		const client = await TestClient.connect(relay.machineUrl("a"));
		await ask(client, question, synTo(hostPort));
		const [socket] = (await accepted) as [Socket];
		const closed = new Promise((resolve) => socket.once("close", resolve));
		client.webSocket.terminate();
		await closed;
	});

	test("keeps a forward through a new connection of its machine, until it is closed", async () => {
		const relay = await start();
		await expect(relay.forward("a", 0, 80, "tcp")).rejects.toMatchObject({ code: "not-found" });
		const first = await TestClient.connect(relay.machineUrl("a"));
		const forward = await relay.forward("a", 0, 80, "tcp");
		await first.close();
		const second = await TestClient.connect(relay.machineUrl("a"));
		await ask(second, question);
		expect(relay.forwards("a")).toEqual([forward]);
		await expect.poll(() => relay.network("a")?.forwards.map(({ hostPort }) => hostPort)).toEqual([forward.hostPort]);
		forward.close();
		expect(relay.forwards("a")).toEqual([]);
		expect(relay.network("a")?.forwards).toEqual([]);
	});

	test("writes decisions to the audit log and frames to the capture", async () => {
		const paths = { auditLogPath: join(folder, "audit.jsonl"), pcapPath: join(folder, "frames.pcap") };
		const relay = await start(paths);
		const client = await TestClient.connect(relay.machineUrl("a"));
		const [answer] = await ask(client, question);
		await ask(client, synTo(81));
		await relay.close();
		const [line] = readFileSync(paths.auditLogPath, "utf8").split("\n");
		expect(JSON.parse(line ?? "")).toMatchObject({
			machine: "a",
			protocol: "tcp",
			address: "10.0.2.2",
			port: 81,
			verdict: "refused",
			rule: "host-port",
		});
		const capture = readFileSync(paths.pcapPath);
		expect(capture.subarray(40, 40 + question.length)).toEqual(Buffer.from(question));
		expect(capture.includes(answer ?? "")).toBe(true);
	});

	test("lets a named machine go on with what it had left when it comes again, and tells of the limit", async () => {
		const auditLogPath = join(folder, "limit.jsonl");
		const relay = await start({ hostPorts: [hostPort], maxTotalBytes: 10, auditLogPath });
		for (const [at, expected] of [TCP_ACK, TCP_RST | TCP_ACK].entries()) {
			const client = await TestClient.connect(relay.machineUrl("a"));
			const [, synAck] = await ask(client, question, synTo(hostPort, 40_000 + at));
			const relaySequence = (synAck ?? Buffer.alloc(42)).readUInt32BE(38);
			const [answer] = await ask(client, dataTo(hostPort, 40_000 + at, relaySequence + 1, "six by"));
			expect(flagsOf(answer) & ~TCP_PSH).toBe(expected);
			await client.close();
		}
		await relay.close();
		expect(readFileSync(auditLogPath, "utf8")).toContain('"verdict":"refused","rule":"limit (bytes of the machine)"');
	});

	test("refuses what it can't be, and leaves nothing behind", async () => {
		await expect(start({ allow: [parseRule("169.254.169.254")] })).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(start({ pcapPath: join(folder, "no", "x.pcap") })).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(start({ listen: { host: "127.0.0.1", port: hostPort } })).rejects.toMatchObject({
			message: `the relay can't listen on 127.0.0.1:${hostPort}: EADDRINUSE`,
		});
		const relay = await start();
		expect(() => relay.machineUrl("../x")).toThrow(/no machine name/);
	});
});

/** The relay with a real kernel as the machine: what the TCP of a guest would make of it. */

import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from "vitest";
import { silentLog } from "../../src/log.js";
import { createRelay, type Relay } from "../../src/relay/relay.js";
import { DNS_CLASS_IN, DNS_TYPE } from "../../src/relay/wire/dns.js";
import { parseDnsMessage } from "../../src/relay/wire/dns-parser.js";
import { serializeDnsMessage } from "../../src/relay/wire/dns-serializer.js";
import { hasProgram, KernelPeer } from "./kernel-peer.js";

const program = inject("tapPeer");
const MIB = 1_048_576;
const GATEWAY = "10.0.2.2";
/** Nobody listens there, which the relay need not know. */
const UNUSED_PORT = 9;

const folder = mkdtempSync(join(tmpdir(), "sandbox86-network-"));
const block = Buffer.from(Uint8Array.from({ length: MIB }, (_, at) => (at * at) >>> 5));

/** Of `mebibytes` times the block. */
function blockHash(mebibytes: number): string {
	const hash = createHash("sha256");
	for (let at = 0; at < mebibytes; at++) hash.update(block);
	return hash.digest("hex");
}

const portOf = (server: Server | HttpServer) => (server.address() as AddressInfo).port;

/** GET /N: N MiB. PUT: the SHA-256 of what came. */
const web = createServer((request, response) => {
	if (request.method === "PUT") {
		const hash = createHash("sha256");
		request.on("data", (bytes) => hash.update(bytes));
		request.on("end", () => response.end(hash.digest("hex")));
		return;
	}
	let left = Number(request.url?.slice(1));
	response.writeHead(200, { "content-length": left * MIB });
	const send = () => {
		for (; left > 0 && response.write(block); left--);
		if (left === 0) response.end();
		else {
			left -= 1;
			response.once("drain", send);
		}
	};
	send();
});

/** Sends back what comes; half-closes when the client does. */
const echo = createTcpServer({ allowHalfOpen: true }, (socket) => {
	socket.on("error", () => {});
	socket.pipe(socket);
});

/** Reads to the client's end, then tells how much it was. */
const count = createTcpServer({ allowHalfOpen: true }, (socket) => {
	let bytes = 0;
	socket.on("data", (data) => {
		bytes += data.length;
	});
	socket.on("end", () => socket.end(`${bytes} bytes\n`));
});

/** Says its piece and half-closes at once; tells the test what comes after that. */
const hasty = createTcpServer({ allowHalfOpen: true });

/** Answers A with 93.184.216.34, whatever the name; TXT with 2000 bytes. */
function answerDns(query: Uint8Array, mayBeLong: boolean): Uint8Array {
	const parsed = parseDnsMessage(query);
	if (!parsed.ok) throw new Error(parsed.reason);
	const message = parsed.value;
	const [question] = message.questions;
	if (question === undefined) throw new Error("no question");
	const text = Buffer.concat(
		Array.from({ length: 10 }, (_, at) => Buffer.concat([Buffer.from([200]), Buffer.alloc(200, 97 + at)])),
	);
	const data =
		question.type === DNS_TYPE.A
			? ({ kind: "address", address: 0x5db8d822 } as const)
			: ({ kind: "bytes", bytes: text } as const);
	return serializeDnsMessage(
		{
			...message,
			isResponse: true,
			recursionAvailable: true,
			answers: [{ name: question.name, type: question.type, class: DNS_CLASS_IN, timeToLive: 60, data }],
		},
		mayBeLong ? 65_535 : 512,
	);
}

const dnsUdp = createSocket("udp4");
const dnsTcp = createTcpServer((socket) => {
	socket.on("error", () => {});
	socket.on("data", (bytes) => {
		const answer = answerDns(bytes.subarray(2), true);
		socket.write(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 255]), answer]));
	});
});
const udpEcho = createSocket("udp4");

const relays: Relay[] = [];
const peers: KernelPeer[] = [];
let dnsPort = 0;

async function startRelay(mtu: number): Promise<Relay> {
	const relay = await createRelay({
		log: silentLog,
		mtu,
		hostPorts: [portOf(web), portOf(echo), portOf(count), portOf(hasty), udpEcho.address().port, UNUSED_PORT],
		resolvers: [{ address: "127.0.0.1", port: dnsPort }],
	});
	relays.push(relay);
	return relay;
}

async function startPeer({ mtu = 1500, faults = 0, hasAddress = true } = {}) {
	const relay = await startRelay(mtu);
	const peer = await KernelPeer.start({ program, url: relay.machineUrl("kernel"), mtu, faults, hasAddress });
	peers.push(peer);
	return { relay, peer };
}

const listen = (server: Server | HttpServer) => new Promise<void>((done) => server.listen(0, "127.0.0.1", done));

beforeAll(async () => {
	for (const server of [web, echo, count, hasty, dnsTcp]) await listen(server);
	dnsPort = portOf(dnsTcp);
	dnsUdp.on("message", (query, from) => dnsUdp.send(answerDns(query, false), from.port, from.address));
	dnsUdp.bind(dnsPort, "127.0.0.1");
	udpEcho.on("message", (bytes, from) => udpEcho.send(bytes, from.port, from.address));
	udpEcho.bind(0, "127.0.0.1");
	await Promise.all([once(dnsUdp, "listening"), once(udpEcho, "listening")]);
});

afterEach(async () => {
	await Promise.all(peers.splice(0).map((peer) => peer.stop()));
	await Promise.all(relays.splice(0).map((relay) => relay.close()));
});

afterAll(() => {
	for (const server of [web, echo, count, hasty, dnsTcp, dnsUdp, udpEcho]) server.close();
	rmSync(folder, { recursive: true });
});

/** What neither side may have seen, whatever was sent and lost. */
function expectSoundFrames(relay: Relay, peer: KernelPeer): void {
	expect(peer.counter("Tcp InCsumErrors")).toBe(0);
	expect(peer.counter("Udp InCsumErrors")).toBe(0);
	expect(peer.counter("Ip InHdrErrors")).toBe(0);
	const { badEthernet, badIpv4, badTcp, badUdp, longFrame } = relay.network("kernel")?.counters ?? {};
	expect({ badEthernet, badIpv4, badTcp, badUdp, longFrame }).toEqual({
		badEthernet: 0,
		badIpv4: 0,
		badTcp: 0,
		badUdp: 0,
		longFrame: 0,
	});
}

/** Nor anything that a kernel finds wrong in a segment's place; a SYN-ACK that comes twice is such a thing. */
function expectCleanWire(relay: Relay, peer: KernelPeer): void {
	expectSoundFrames(relay, peer);
	expect(peer.counter("Tcp InErrs")).toBe(0);
}

async function expectExactTransfers(peer: KernelPeer, mebibytes: number): Promise<void> {
	const url = `http://${GATEWAY}:${portOf(web)}`;
	const expected = blockHash(mebibytes);
	const down = await peer.run("sh", ["-c", `curl -sS ${url}/${mebibytes} | sha256sum`]);
	expect(down.stdout.slice(0, 64)).toBe(expected);
	const file = join(folder, `${mebibytes}`);
	writeFileSync(file, Buffer.concat(Array.from({ length: mebibytes }, () => block)));
	const up = await peer.run("curl", ["-sS", "-T", file, `${url}/`]);
	rmSync(file);
	expect(up.stdout).toBe(expected);
}

describe.skipIf(program === "")("a real kernel behind the relay", () => {
	test.each([1500, 65_521])("moves 256 MiB each way, byte for byte, at MTU %i", async (mtu) => {
		const { relay, peer } = await startPeer({ mtu });
		await expectExactTransfers(peer, 256);
		expectCleanWire(relay, peer);
	});

	test("moves every byte over a wire that loses, doubles and reorders 2 % of the frames each way", async () => {
		const { relay, peer } = await startPeer({ faults: 20 });
		await expectExactTransfers(peer, 8);
		expectSoundFrames(relay, peer);
		expect(peer.counter("Tcp RetransSegs")).toBeGreaterThan(0);
	});

	test.skipIf(!hasProgram("busybox"))("gets its address by DHCP, and pings its gateway (Debian: busybox)", async () => {
		const { peer } = await startPeer({ hasAddress: false });
		const script = join(folder, "lease.sh");
		writeFileSync(script, '#!/bin/sh\n[ "$1" = bound ] && echo "$ip $subnet $router $dns $mtu"\nexit 0\n');
		chmodSync(script, 0o755);
		const lease = await peer.run("busybox", ["udhcpc", "-i", "tap0", "-n", "-q", "-f", "-s", script]);
		const [address, mask, router, dns] = lease.stdout.trim().split(" ");
		expect({ address, mask, router, dns }).toEqual({
			address: "10.0.2.15",
			mask: "255.255.255.0",
			router: GATEWAY,
			dns: "10.0.2.3",
		});
		peer.configure("10.0.2.15/24", GATEWAY);
		const ping = await peer.run("busybox", ["ping", "-c", "3", "-W", "5", GATEWAY]);
		expect(ping.stdout).toMatch(/3 packets transmitted, 3 packets received/);
	});

	test("has 200 connections at a time", async () => {
		const { relay, peer } = await startPeer();
		const printed = await peer.node(`
			import { connect } from "node:net";
			const payload = Buffer.alloc(10000, "x");
			const one = () => new Promise((resolve, reject) => {
				const socket = connect(${portOf(echo)}, "${GATEWAY}");
				let bytes = 0;
				socket.on("error", reject);
				socket.on("connect", () => { open += 1; most = Math.max(most, open); if (open === 200) for (const go of waiting) go(); });
				waiting.push(() => socket.end(payload));
				socket.on("data", (data) => { bytes += data.length; });
				socket.on("end", () => resolve(bytes));
			});
			let open = 0, most = 0;
			const waiting = [];
			const counts = await Promise.all(Array.from({ length: 200 }, one));
			console.log(most, counts.every((bytes) => bytes === 10000));
		`);
		expect(printed).toBe("200 true\n");
		expectCleanWire(relay, peer);
	});

	test("sends 1000 requests over one connection", async () => {
		const { peer } = await startPeer();
		const printed = await peer.node(`
			import { Agent, get } from "node:http";
			const agent = new Agent({ keepAlive: true, maxSockets: 1 });
			const ports = new Set();
			for (let request = 0; request < 1000; request++) {
				await new Promise((resolve, reject) => {
					get({ host: "${GATEWAY}", port: ${portOf(web)}, path: "/0", agent }, (response) => {
						ports.add(response.socket.localPort);
						response.resume();
						response.on("end", resolve);
					}).on("error", reject);
				});
			}
			console.log(ports.size);
			agent.destroy();
		`);
		expect(printed).toBe("1\n");
	});

	test.each([
		["a port that nobody listens on", GATEWAY, UNUSED_PORT],
		["a port that is not opened", GATEWAY, 1],
		["an address that the policy closes", "169.254.169.254", 80],
		["the host's network", "192.168.0.1", 80],
	])("is refused at once by %s", async (_what, host, port) => {
		const { peer } = await startPeer();
		const printed = await peer.node(`
			import { connect } from "node:net";
			const started = performance.now();
			connect(${port}, "${host}").on("error", ({ code }) => console.log(code, performance.now() - started < 500));
		`);
		expect(printed).toBe("ECONNREFUSED true\n");
	});

	test.skipIf(!hasProgram("nc"))(
		"half-closes, and gets the answer to all that it sent (Debian: netcat-openbsd)",
		async () => {
			const { peer } = await startPeer();
			const { stdout } = await peer.run("nc", ["-N", GATEWAY, String(portOf(count))], "x".repeat(1_000_000));
			expect(stdout).toBe("1000000 bytes\n");
		},
	);

	test("goes on sending after the host has half-closed", async () => {
		const { peer } = await startPeer();
		const accepted = once(hasty, "connection") as Promise<[Socket]>;
		const received = accepted.then(async ([socket]) => {
			const hash = createHash("sha256");
			socket.end("done\n");
			for await (const bytes of socket) hash.update(bytes);
			return hash.digest("hex");
		});
		const printed = await peer.node(`
			import { connect } from "node:net";
			const socket = connect({ port: ${portOf(hasty)}, host: "${GATEWAY}", allowHalfOpen: true });
			socket.on("data", (data) => process.stdout.write(data));
			await new Promise((resolve) => socket.on("end", resolve));
			socket.end(Buffer.alloc(3_000_000, "late"));
			await new Promise((resolve) => socket.on("finish", resolve));
		`);
		expect(printed).toBe("done\n");
		expect(await received).toBe(createHash("sha256").update(Buffer.alloc(3_000_000, "late")).digest("hex"));
	});

	test.skipIf(!hasProgram("python3"))("keeps its connection through forged resets outside the window", async () => {
		const { relay, peer } = await startPeer();
		const client = peer.startNode(`
			import { connect } from "node:net";
			import { createInterface } from "node:readline";
			const socket = connect(${portOf(echo)}, "${GATEWAY}");
			socket.on("connect", () => console.log(socket.localPort));
			socket.on("data", (data) => console.log(String(data)));
			socket.on("error", ({ code }) => console.log(code));
			socket.on("close", () => process.exit());
			createInterface({ input: process.stdin }).on("line", (line) => socket.write(line));
		`);
		const port = await client.next();
		client.send("before");
		expect(await client.next()).toBe("before");
		const forged = await peer.run("python3", ["-c", FORGE_RESETS, port, String(portOf(echo))]);
		expect(forged).toMatchObject({ status: 0, stdout: "200\n" });
		client.send("after");
		expect(await client.next()).toBe("after");
		expect(relay.network("kernel")?.usage().tcpFlows).toBe(1);
	});

	test("asks the resolver, over UDP and TCP", async () => {
		const { peer } = await startPeer();
		const printed = await peer.node(`
			import { Resolver } from "node:dns/promises";
			import { connect } from "node:net";
			const resolver = new Resolver();
			resolver.setServers(["10.0.2.3"]);
			console.log(await resolver.resolve4("name.example"));
			console.log((await resolver.resolveTxt("long.example"))[0].join("").length);
			console.log(await resolver.resolve6("name.example").catch(({ code }) => code));
			const query = Buffer.from("0007" + "0100" + "0001000000000000" + "046e616d65076578616d706c6500" + "00010001", "hex");
			const socket = connect(53, "10.0.2.3");
			socket.write(Buffer.concat([Buffer.from([0, query.length]), query]));
			socket.on("data", (data) => { console.log([...data.subarray(-4)].join(".")); socket.destroy(); });
		`);
		expect(printed.split("\n")).toEqual(["[ '93.184.216.34' ]", "2000", "ENODATA", "93.184.216.34", ""]);
	});

	test("sends datagrams, fragmented ones too, and gets the answers", async () => {
		const { relay, peer } = await startPeer();
		const printed = await peer.node(`
			import { createSocket } from "node:dgram";
			const socket = createSocket("udp4");
			const sizes = [0, 1, 1472, 1473, 9000, 60000];
			let next = 0;
			const send = () => socket.send(Buffer.alloc(sizes[next], next + 1), ${udpEcho.address().port}, "${GATEWAY}");
			socket.on("message", (bytes) => {
				if (!bytes.equals(Buffer.alloc(sizes[next], next + 1))) throw new Error("other bytes at " + sizes[next]);
				next += 1;
				if (next < sizes.length) send();
				else { console.log("all"); socket.close(); }
			});
			send();
		`);
		expect(printed).toBe("all\n");
		expectCleanWire(relay, peer);
	});

	test("serves the host through a forward, also after it has connected anew", async () => {
		const { relay, peer } = await startPeer();
		const serve = `
			import { createServer } from "node:http";
			createServer((request, response) => response.end("from the guest")).listen(8080, () => console.log("listening"));
		`;
		expect(await peer.startNode(serve).next()).toBe("listening");
		// The relay says nothing before the machine's first frame.
		await peer.node(`import { connect } from "node:net"; connect(1, "${GATEWAY}").on("error", () => {});`);
		const { url } = await relay.forward("kernel", 0, 8080, "tcp");
		expect(await (await fetch(url)).text()).toBe("from the guest");
		await peers.splice(0).at(0)?.stop();
		const again = await KernelPeer.start({ program, url: relay.machineUrl("kernel"), mtu: 1500 });
		peers.push(again);
		expect(await again.startNode(serve).next()).toBe("listening");
		await again.node(`import { connect } from "node:net"; connect(1, "${GATEWAY}").on("error", () => {});`);
		expect(await (await fetch(url)).text()).toBe("from the guest");
	});
});

/** argv: the connection's port here and there. Sends resets with numbers from everywhere, by a packet socket. */
const FORGE_RESETS = `
import random, socket, struct, sys
ours, theirs = int(sys.argv[1]), int(sys.argv[2])
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("tap0", 0))
mac = wire.getsockname()[4]
source, destination = socket.inet_aton("10.0.2.15"), socket.inet_aton("10.0.2.2")
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
random.seed(86)
for _ in range(200):
    tcp = struct.pack("!HHIIBBHHH", ours, theirs, random.getrandbits(32), 0, 0x50, 4, 0, 0, 0)
    tcp = tcp[:16] + struct.pack("!H", checksum(source + destination + struct.pack("!HH", 6, 20) + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + source + destination
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    wire.send(bytes.fromhex("525400123502") + mac + b"\\x08\\x00" + ip + tcp)
print(200)
`;

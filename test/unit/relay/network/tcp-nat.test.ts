import { describe, expect, it } from "vitest";
import { GATEWAY_ADDRESS } from "../../../../src/relay/addresses.js";
import { TCP_CONNECT_MS, TCP_ESTABLISHED_IDLE_MS, TCP_LINGER_MS } from "../../../../src/relay/limits.js";
import { TCP_ACK, TCP_RST, TCP_SYN } from "../../../../src/relay/wire/tcp.js";
import type { GuestTcp } from "./fake-guest.js";
import type { FakeSocket } from "./fake-host.js";
import { address, bytes, createTestNetwork, pattern, type TestNetwork } from "./test-network.js";

const SERVER = address("93.184.216.34");

/** A flow of the guest's to SERVER:80, established. */
async function openFlow(test: TestNetwork): Promise<{ tcp: GuestTcp; socket: FakeSocket }> {
	const tcp = test.guest.connect(SERVER, 80);
	await test.settle();
	const socket = test.host.last;
	socket.accept();
	await test.settle();
	expect(tcp.isEstablished).toBe(true);
	return { tcp, socket };
}

/** As toEqual, but fast on large ones. */
function expectBytes(actual: Buffer, expected: Uint8Array): void {
	expect(actual.length).toBe(expected.length);
	expect(actual.equals(expected)).toBe(true);
}

describe("a TCP flow that the guest opens", () => {
	it("is connected on the host before the guest's SYN is answered", async () => {
		const test = createTestNetwork();
		const tcp = test.guest.connect(SERVER, 80);
		await test.settle();
		expect(test.host.last).toMatchObject({ address: "93.184.216.34", port: 80 });
		expect(test.guest.tcp).toEqual([]);
		test.host.last.accept();
		await test.settle();
		expect(tcp.isEstablished).toBe(true);
	});

	it("carries bytes both ways, and both ends", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		tcp.connection.send(pattern(100_000));
		socket.push(pattern(70_000, 9));
		await test.settle();
		expectBytes(socket.receivedBytes, pattern(100_000));
		expectBytes(tcp.receivedBytes, pattern(70_000, 9));
		tcp.connection.end();
		await test.settle();
		expect(socket.wasEnded).toBe(true);
		socket.push(bytes("and that after the end"));
		socket.push(null);
		await test.settle();
		expect(tcp.receivedBytes.subarray(70_000).toString()).toBe("and that after the end");
		expect(tcp.hasEnded).toBe(true);
		await test.advance(15_000, 1000);
		expect(test.network.usage()).toEqual({ tcpFlows: 0, udpMappings: 0, udpForwardClients: 0, deadlines: 0 });
		expect(test.clock.pendingTimers).toBe(0);
		expect(test.audit).toEqual([
			{
				machine: "m1",
				protocol: "tcp",
				name: undefined,
				address: SERVER,
				port: 80,
				verdict: "allowed",
				rule: "default",
				bytesOut: 100_000,
				bytesIn: 70_022,
			},
		]);
	});

	it("loses nothing when the host ends first", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		socket.push(pattern(500_000));
		socket.push(null);
		await test.settle();
		expectBytes(tcp.receivedBytes, pattern(500_000));
		expect(tcp.hasEnded).toBe(true);
		tcp.connection.send(pattern(3000));
		tcp.connection.end();
		await test.settle();
		expectBytes(socket.receivedBytes, pattern(3000));
		expect(tcp.closeReason ?? tcp.connection.state).toBe("finished");
	});

	it("that the policy refuses is reset at once, and the host is never contacted", async () => {
		const test = createTestNetwork();
		const tcp = test.guest.connect(address("169.254.169.254"), 80);
		await test.settle();
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(test.host.tcp).toEqual([]);
		expect(test.network.counters.deniedTcp).toBe(1);
		expect(test.audit).toMatchObject([{ verdict: "refused", port: 80, address: address("169.254.169.254") }]);
	});

	it("that the host refuses is reset", async () => {
		const test = createTestNetwork();
		const tcp = test.guest.connect(SERVER, 81);
		await test.settle();
		test.host.last.fail("ECONNREFUSED");
		await test.settle();
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(test.guest.tcp.map((segment) => segment.flags)).toEqual([TCP_RST | TCP_ACK]);
		expect(test.guest.icmp).toEqual([]);
		expect(test.network.usage().tcpFlows).toBe(0);
	});

	it("to an unreachable host gets ICMP host unreachable about its SYN, then a reset", async () => {
		const test = createTestNetwork();
		const tcp = test.guest.connect(SERVER, 82);
		await test.settle();
		test.host.last.fail("EHOSTUNREACH");
		await test.settle();
		expect(test.guest.icmp).toMatchObject([{ type: 3, code: 1, source: GATEWAY_ADDRESS }]);
		expect(tcp.closeReason).toBe("reset-by-guest");
	});

	it("whose host never answers is given up", async () => {
		const test = createTestNetwork();
		const tcp = test.guest.connect(SERVER, 83);
		await test.advance(TCP_CONNECT_MS + 1000, 500);
		expect(test.guest.icmp).toMatchObject([{ type: 3, code: 1 }]);
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(test.host.last.destroyed).toBe(true);
		expect(test.clock.pendingTimers).toBe(0);
	});

	it("is reset when the host resets it, and the other way round", async () => {
		const test = createTestNetwork();
		const first = await openFlow(test);
		first.socket.fail("ECONNRESET");
		await test.settle();
		expect(first.tcp.closeReason).toBe("reset-by-guest");
		const second = await openFlow(test);
		second.tcp.connection.abort();
		await test.settle();
		expect(second.socket.wasReset).toBe(true);
		expect(test.network.usage().tcpFlows).toBe(0);
		expect(test.clock.pendingTimers).toBe(0);
	});

	it("stops the guest while the host doesn't read, and goes on when it does", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		socket.isReading = false;
		const sent = pattern(5_000_000);
		tcp.connection.send(sent.slice());
		await test.settle();
		expect(tcp.connection.queuedBytes).toBeGreaterThan(3_000_000);
		socket.isReading = true;
		socket.readOn();
		for (let round = 0; round < 40; round++) await test.advance(500, 100);
		expectBytes(socket.receivedBytes, sent);
	});

	it("stops reading the host while the guest doesn't read", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		tcp.isStalled = true;
		let pushed = 0;
		for (let piece = 0; piece < 200; piece++) {
			socket.push(pattern(65_536, piece));
			pushed += 65_536;
			await test.settle();
		}
		expect(pushed - socket.readableLength).toBeLessThan(3_000_000);
		tcp.isStalled = false;
		for (let round = 0; round < 60 && tcp.receivedBytes.length < pushed; round++) await test.advance(1000, 250);
		expect(tcp.receivedBytes.length).toBe(pushed);
	});

	it("stops reading the host while the link is full, until it has drained", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		test.guest.isLinkRoomy = false;
		socket.push(pattern(10_000));
		await test.settle();
		socket.push(pattern(10_000));
		await test.settle();
		expect(tcp.receivedBytes.length).toBe(10_000);
		test.guest.isLinkRoomy = true;
		test.network.drained();
		await test.settle();
		expect(tcp.receivedBytes.length).toBe(20_000);
	});

	it("writes what a slow host has not taken after the guest is done, and for so long only", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		socket.isReading = false;
		tcp.connection.send(pattern(200_000));
		tcp.connection.end();
		socket.push(null);
		await test.advance(20_000, 1000);
		expect(tcp.closeReason).toBe("finished");
		expect(test.network.openFlows()).toEqual([]);
		expect(test.network.usage().tcpFlows).toBe(1);
		await test.advance(TCP_LINGER_MS, 5000);
		expect(socket.destroyed).toBe(true);
		expect(test.network.usage()).toMatchObject({ tcpFlows: 0, deadlines: 0 });
		expect(test.clock.pendingTimers).toBe(0);
	});

	it("ends after two hours without traffic", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		await test.advance(TCP_ESTABLISHED_IDLE_MS - 1000, 60_000);
		expect(tcp.closeReason).toBeUndefined();
		await test.advance(2000, 500);
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(socket.wasReset).toBe(true);
		expect(test.clock.pendingTimers).toBe(0);
	});

	it("may use a port again while the old connection is in TIME-WAIT", async () => {
		const test = createTestNetwork();
		const first = await openFlow(test);
		first.socket.push(null);
		await test.settle();
		first.tcp.connection.end();
		await test.advance(200);
		expect(first.socket.wasEnded).toBe(true);
		expect(test.network.usage().tcpFlows).toBe(1);
		await test.advance(1000);
		const again = test.guest.connect(SERVER, 80, first.tcp.localPort);
		await test.settle();
		expect(test.host.tcp.length).toBe(2);
		test.host.last.accept();
		await test.settle();
		expect(again.isEstablished).toBe(true);
		again.connection.send(bytes("again"));
		await test.advance(100);
		expect(test.host.last.receivedBytes.toString()).toBe("again");
	});

	it("of single bytes to a host that doesn't read costs few writes", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		socket.isReading = false;
		for (let at = 0; at < 1000; at++) {
			tcp.connection.send(Uint8Array.of(at & 0xff));
			test.guest.deliver();
		}
		await test.settle();
		socket.isReading = true;
		socket.readOn();
		await test.advance(100);
		expectBytes(
			socket.receivedBytes,
			Uint8Array.from({ length: 1000 }, (_, at) => at & 0xff),
		);
		expect(socket.received.length).toBe(2);
	});

	it("costs one timer at most while it is idle", async () => {
		const test = createTestNetwork();
		await openFlow(test);
		await test.advance(10_000, 1000);
		let fired = 0;
		for (let minute = 0; minute < 60; minute++) {
			const before = test.clock.nowMs();
			if (test.clock.pendingTimers > 0 && test.clock.pendingTimers !== 1) fired += 1;
			await test.advance(60_000 - (test.clock.nowMs() - before), 60_000);
		}
		expect(fired).toBe(0);
		expect(test.clock.pendingTimers).toBe(1);
	});
});

describe("a guest that is paused", () => {
	it("finds its connections as they were, whatever the host has sent meanwhile", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		test.network.guestPaused();
		socket.push(pattern(5000));
		// A guest that stands still hears nothing and says nothing.
		await new Promise<void>((resolve) => setImmediate(resolve));
		expect(test.guest.hasFramesInFlight).toBe(true);
		test.clock.advance(10 * 60_000);
		expect(test.clock.pendingTimers).toBe(0);
		expect(test.network.usage().tcpFlows).toBe(1);
		test.network.guestResumed();
		await test.advance(20_000, 100);
		tcp.connection.send(bytes("still here"));
		await test.advance(1000, 100);
		expectBytes(tcp.receivedBytes, pattern(5000));
		expect(socket.receivedBytes.toString()).toBe("still here");
		expect(tcp.closeReason).toBeUndefined();
	});

	it("keeps its idle connections, and its UDP ports, for as long as it likes", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		test.guest.sendUdp(SERVER, 1000, bytes("a"));
		await test.settle();
		test.network.guestPaused();
		test.clock.advance(2 * TCP_ESTABLISHED_IDLE_MS);
		expect(test.network.usage()).toMatchObject({ tcpFlows: 1, udpMappings: 1 });
		test.network.guestIsUp();
		socket.push(bytes("good morning"));
		await test.advance(500);
		expect(tcp.receivedBytes.toString()).toBe("good morning");
	});

	it("loses its connections when the host resets them", async () => {
		const test = createTestNetwork();
		const { tcp, socket } = await openFlow(test);
		test.network.guestPaused();
		socket.fail("ECONNRESET");
		await test.settle();
		expect(test.network.usage().tcpFlows).toBe(0);
		expect(tcp.closeReason).toBe("reset-by-guest");
	});
});

describe("TCP to 10.0.2.2", () => {
	it("reaches the host's localhost on an opened port", async () => {
		const test = createTestNetwork({ hostPorts: [8080] });
		const tcp = test.guest.connect(GATEWAY_ADDRESS, 8080);
		await test.settle();
		expect(test.host.last).toMatchObject({ address: "localhost", port: 8080 });
		test.host.last.accept();
		await test.settle();
		expect(tcp.isEstablished).toBe(true);
	});

	it("is reset on every other port", async () => {
		const test = createTestNetwork({ hostPorts: [8080] });
		const tcp = test.guest.connect(GATEWAY_ADDRESS, 22);
		await test.settle();
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(test.host.tcp).toEqual([]);
	});

	it("port 53 answers DNS queries, several on one connection", async () => {
		const test = createTestNetwork({ answerDns: async (query) => Uint8Array.of(...query, 33) });
		const tcp = test.guest.connect(GATEWAY_ADDRESS, 53);
		await test.settle();
		tcp.connection.send(Uint8Array.of(0, 2, 65, 66, 0, 1, 67, 0));
		await test.settle();
		tcp.connection.send(Uint8Array.of(1, 68));
		await test.settle();
		expect([...tcp.receivedBytes]).toEqual([0, 3, 65, 66, 33, 0, 2, 67, 33, 0, 2, 68, 33]);
		expect(test.host.tcp).toEqual([]);
		tcp.connection.end();
		await test.advance(1000);
		expect(tcp.hasEnded).toBe(true);
		await test.advance(15_000, 1000);
		expect(test.network.usage().tcpFlows).toBe(0);
		expect(test.clock.pendingTimers).toBe(0);
	});

	it("a DNS connection has 16 queries under way at a time", async () => {
		let asked = 0;
		const test = createTestNetwork({
			answerDns: () => {
				asked += 1;
				return new Promise(() => {});
			},
		});
		const tcp = test.guest.connect(GATEWAY_ADDRESS, 53);
		for (let query = 0; query < 40; query++) tcp.connection.send(Uint8Array.of(0, 1, query));
		await test.settle();
		expect(asked).toBe(16);
	});

	it("a DNS connection that sends a query of absurd size, or none at all, is reset", async () => {
		const test = createTestNetwork({ answerDns: async () => undefined });
		const long = test.guest.connect(GATEWAY_ADDRESS, 53);
		long.connection.send(Uint8Array.of(255, 255));
		const wrong = test.guest.connect(GATEWAY_ADDRESS, 53);
		wrong.connection.send(Uint8Array.of(0, 1, 7));
		await test.settle();
		expect([long.closeReason, wrong.closeReason]).toEqual(["reset-by-guest", "reset-by-guest"]);
	});

	it("a DNS connection that idles ends after seconds", async () => {
		const test = createTestNetwork();
		const tcp = test.guest.connect(GATEWAY_ADDRESS, 53);
		await test.advance(11_000, 500);
		expect(tcp.closeReason).toBe("reset-by-guest");
	});
});

describe("flows by name", () => {
	/** GET with a Host header. */
	const request = (name: string) => bytes(`GET / HTTP/1.1\r\nHost: ${name}\r\n\r\n`);

	async function openNamed(test: TestNetwork): Promise<{ tcp: GuestTcp; socket: FakeSocket }> {
		test.names.record("good.example", SERVER, 60);
		return await openFlow(test);
	}

	it("send nothing out before the name in the first bytes is known to be allowed", async () => {
		const test = createTestNetwork({ allow: ["good.example"] });
		const { tcp, socket } = await openNamed(test);
		const whole = request("good.example");
		tcp.connection.send(whole.slice(0, 20));
		await test.advance(100);
		expect(socket.received).toEqual([]);
		tcp.connection.send(whole.slice(20));
		await test.advance(100);
		expect(socket.receivedBytes.toString()).toBe(Buffer.from(whole).toString());
		tcp.connection.send(bytes("more"));
		await test.advance(100);
		expect(socket.receivedBytes.toString().endsWith("more")).toBe(true);
	});

	it("with another name are reset, and nothing of what they said goes out", async () => {
		const test = createTestNetwork({ allow: ["good.example"] });
		const { tcp, socket } = await openNamed(test);
		tcp.connection.send(request("evil.example"));
		await test.advance(100);
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(socket.received).toEqual([]);
		expect(socket.wasReset).toBe(true);
		expect(test.audit.at(-1)).toMatchObject({ verdict: "refused", name: "evil.example" });
		expect(test.network.usage().tcpFlows).toBe(0);
	});

	it("hear the server's greeting before they speak", async () => {
		const test = createTestNetwork({ allow: ["good.example"] });
		const { tcp, socket } = await openNamed(test);
		socket.push(bytes("SSH-2.0-server\r\n"));
		await test.advance(100);
		expect(tcp.receivedBytes.toString()).toBe("SSH-2.0-server\r\n");
	});
});

describe("limits", () => {
	it("a flow that carries more than it may is ended, with a line in the audit log", async () => {
		const test = createTestNetwork({ maxFlowBytes: 10_000 });
		const { tcp, socket } = await openFlow(test);
		tcp.connection.send(pattern(20_000));
		await test.advance(100);
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(socket.receivedBytes.length).toBeLessThanOrEqual(10_000);
		expect(test.audit.at(-1)).toMatchObject({ verdict: "refused", rule: "limit (bytes of the flow)" });
	});

	it("a machine that has carried all that it may gets no further", async () => {
		const test = createTestNetwork({ maxTotalBytes: 30_000 });
		const first = await openFlow(test);
		first.socket.push(pattern(20_000));
		await test.advance(100);
		expect(first.tcp.receivedBytes.length).toBe(20_000);
		const second = await openFlow(test);
		second.socket.push(pattern(20_000));
		await test.advance(100);
		expect(second.tcp.closeReason).toBe("reset-by-guest");
		expect(test.audit.at(-1)).toMatchObject({ rule: "limit (bytes of the machine)" });
	});

	it("a flood of SYNs stays in bounds, and warns at most once per second", async () => {
		const test = createTestNetwork();
		test.guest.isRecording = false;
		for (let port = 1; port <= 5000; port++) {
			test.guest.sendTcp(SERVER, {
				sourcePort: 1024 + port,
				destinationPort: port,
				sequence: port,
				acknowledgment: 0,
				flags: TCP_SYN,
				window: 1000,
				options: {},
				payload: new Uint8Array(0),
			});
		}
		await test.settle();
		expect(test.network.usage().tcpFlows).toBe(256);
		expect(test.host.tcp.length).toBe(256);
		expect(test.network.counters.tcpFlowLimit).toBe(4744);
		expect(test.warnings.length).toBe(1);
		await test.advance(120_000, 1000);
		expect(test.network.usage()).toMatchObject({ tcpFlows: 0, deadlines: 0 });
		expect(test.clock.pendingTimers).toBe(0);
		test.guest.isRecording = true;
		await openFlow(test);
	});

	it("bandwidth delays TCP both ways and loses nothing", async () => {
		const test = createTestNetwork({
			bandwidth: { toGuestBytesPerSecond: 100_000, fromGuestBytesPerSecond: 100_000 },
		});
		const { tcp, socket } = await openFlow(test);
		for (let piece = 0; piece < 8; piece++) socket.push(pattern(65_536, piece));
		await test.settle();
		expect(tcp.receivedBytes.length).toBeLessThan(200_000);
		await test.advance(10_000, 100);
		expect(tcp.receivedBytes.length).toBe(8 * 65_536);

		tcp.connection.send(pattern(4_000_000));
		await test.advance(5000, 100);
		expect(socket.receivedBytes.length).toBeLessThan(1_700_000);
		await test.advance(60_000, 100);
		expectBytes(socket.receivedBytes, pattern(4_000_000));
	});
});

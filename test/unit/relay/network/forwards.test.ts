import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { GATEWAY_ADDRESS } from "../../../../src/relay/addresses.js";
import { nodeHostSockets } from "../../../../src/relay/egress/host-sockets.js";
import { TCP_TIME_WAIT_MS, UDP_IDLE_MS } from "../../../../src/relay/limits.js";
import { bytes, createTestNetwork, pattern, type TestNetwork, type TestNetworkOptions } from "./test-network.js";

const open: TestNetwork[] = [];

function createLoopbackNetwork(options: TestNetworkOptions = {}): TestNetwork {
	const test = createTestNetwork({ sockets: nodeHostSockets, ...options });
	open.push(test);
	// The guest's first frame.
	test.guest.sendArp({});
	return test;
}

afterEach(() => {
	for (const test of open.splice(0)) test.network.close();
});

/** Lets real sockets and the guest speak until `done`. */
async function until(test: TestNetwork, done: () => boolean): Promise<void> {
	for (let round = 0; !done(); round++) {
		if (round > 5000) throw new Error("it never came to pass");
		test.clock.advance(1);
		test.guest.tick();
		await test.settle();
		await new Promise<void>((resolve) => setTimeout(resolve, 1));
	}
}

/** What a socket receives, as it comes. */
function collect(socket: Socket): Buffer[] {
	const received: Buffer[] = [];
	socket.on("data", (piece: Buffer) => received.push(piece));
	return received;
}

describe("a TCP forward", () => {
	it("leads from a port of the host's loopback to the guest's, with bytes and ends both ways", async () => {
		const test = createLoopbackNetwork();
		test.guest.listening.add(80);
		const forward = await test.network.forward(0, 80, "tcp");
		expect(forward.url).toBe(`http://127.0.0.1:${forward.hostPort}`);
		const client = connect({ host: "127.0.0.1", port: forward.hostPort, allowHalfOpen: true });
		const received = collect(client);
		let ended = false;
		client.on("end", () => {
			ended = true;
		});
		const sent = pattern(1_000_000);
		client.end(sent);
		await until(test, () => test.guest.accepted[0]?.hasEnded === true);
		const [tcp] = test.guest.accepted;
		expect(tcp?.remoteAddress).toBe(GATEWAY_ADDRESS);
		expect(tcp?.receivedBytes.equals(sent)).toBe(true);
		expect(test.network.inboundFlows).toBe(1);
		tcp?.connection.send(pattern(1_000_000, 5));
		tcp?.connection.end();
		await until(test, () => ended);
		expect(Buffer.concat(received).equals(pattern(1_000_000, 5))).toBe(true);
		await test.advance(15_000, 1000);
		await until(test, () => test.network.inboundFlows === 0);
		expect(test.network.usage()).toMatchObject({ tcpFlows: 0, deadlines: 0 });
		expect(test.audit).toMatchObject([
			{ protocol: "tcp", port: 80, rule: "forward", bytesOut: 1_000_000, bytesIn: 1_000_000 },
		]);
	}, 60_000);

	it("to a port that the guest refuses resets the client", async () => {
		const test = createLoopbackNetwork();
		const forward = await test.network.forward(0, 81, "tcp");
		const client = connect({ host: "127.0.0.1", port: forward.hostPort });
		let code: string | undefined;
		client.on("error", (error: NodeJS.ErrnoException) => {
			code = error.code;
		});
		await until(test, () => code !== undefined);
		expect(code).toBe("ECONNRESET");
		expect(test.network.inboundFlows).toBe(0);
	});

	it("wakes the machine before the guest hears of the client, and tells when the last flow is over", async () => {
		const events: string[] = [];
		let wake: () => void = () => {};
		const test = createLoopbackNetwork({
			onInbound: (guestPort) => {
				events.push(`inbound ${guestPort}`);
				return new Promise((resolve) => {
					wake = resolve;
				});
			},
			onInboundIdle: () => events.push("idle"),
		});
		test.guest.listening.add(80);
		const forward = await test.network.forward(0, 80, "tcp");
		const client = connect({ host: "127.0.0.1", port: forward.hostPort });
		client.on("error", () => {});
		await until(test, () => events.length === 1);
		await test.settle();
		expect(test.guest.tcp).toEqual([]);
		expect(test.network.inboundFlows).toBe(1);
		wake();
		await until(test, () => test.guest.accepted[0]?.isEstablished === true);
		client.resetAndDestroy();
		await until(test, () => events.length === 2);
		expect(events).toEqual(["inbound 80", "idle"]);
	});

	it("tells that it is idle only when all of its clients have left", async () => {
		let idle = 0;
		const test = createLoopbackNetwork({ onInboundIdle: () => idle++ });
		test.guest.listening.add(80);
		const forward = await test.network.forward(0, 80, "tcp");
		const clients = [1, 2].map(() => connect({ host: "127.0.0.1", port: forward.hostPort }).on("error", () => {}));
		await until(test, () => test.guest.accepted.filter(({ isEstablished }) => isEstablished).length === 2);
		clients[0]?.resetAndDestroy();
		await until(test, () => test.network.inboundFlows === 1);
		expect(idle).toBe(0);
		clients[1]?.resetAndDestroy();
		await until(test, () => test.network.inboundFlows === 0);
		expect(idle).toBe(1);
	});

	it("needs the guest no more once both sides have ended, though TIME-WAIT goes on", async () => {
		let idle = 0;
		const test = createLoopbackNetwork({ onInboundIdle: () => idle++ });
		test.guest.listening.add(80);
		const forward = await test.network.forward(0, 80, "tcp");
		const client = connect({ host: "127.0.0.1", port: forward.hostPort });
		await until(test, () => test.guest.accepted[0]?.isEstablished === true);
		expect(test.network.openFlows().length).toBe(1);
		client.end();
		await until(test, () => test.guest.accepted[0]?.hasEnded === true);
		expect(test.network.inboundFlows).toBe(1);
		test.guest.accepted[0]?.connection.end();
		await until(test, () => test.guest.accepted[0]?.closeReason === "finished");
		expect([test.network.inboundFlows, idle]).toEqual([0, 1]);
		expect(test.network.openFlows()).toEqual([]);
		expect(test.network.usage().tcpFlows).toBe(1);
		test.clock.advance(TCP_TIME_WAIT_MS);
		expect(test.network.usage().tcpFlows).toBe(0);
		expect([test.network.inboundFlows, idle]).toEqual([0, 1]);
	});

	it("leaves nothing behind when the network is closed while the machine wakes", async () => {
		let wake: (() => void) | undefined;
		const test = createLoopbackNetwork({
			onInbound: () =>
				new Promise((resolve) => {
					wake = resolve;
				}),
		});
		const forward = await test.network.forward(0, 80, "tcp");
		const client = connect({ host: "127.0.0.1", port: forward.hostPort });
		let isClosed = false;
		client
			.on("error", () => {})
			.on("close", () => {
				isClosed = true;
			});
		client.resume();
		await until(test, () => wake !== undefined);
		test.network.close();
		await until(test, () => isClosed);
		wake?.();
		await test.settle();
		expect(test.network.inboundFlows).toBe(0);
		expect(test.network.usage()).toMatchObject({ tcpFlows: 0, deadlines: 0 });
		expect(test.clock.pendingTimers).toBe(0);
	});

	it("speaks to a guest that has sent nothing yet only when it is known to be up, and asks for its MAC first", async () => {
		const test = createTestNetwork({ sockets: nodeHostSockets });
		open.push(test);
		test.guest.listening.add(80);
		const forward = await test.network.forward(0, 80, "tcp");
		const client = connect({ host: "127.0.0.1", port: forward.hostPort });
		client.on("error", () => {});
		await until(test, () => test.network.usage().tcpFlows === 1);
		await test.advance(3000);
		expect(test.guest.frames).toEqual([]);
		test.network.guestIsUp();
		await test.settle();
		expect(test.guest.arp).toMatchObject([{ operation: "request", senderAddress: GATEWAY_ADDRESS }]);
		expect(test.guest.accepted[0]?.isEstablished).toBe(true);
		client.destroy();
	});

	it("resets the client when the machine can't be woken", async () => {
		const test = createLoopbackNetwork({ onInbound: () => Promise.reject(new Error("it is gone")) });
		const forward = await test.network.forward(0, 80, "tcp");
		const client = connect({ host: "127.0.0.1", port: forward.hostPort });
		let failed = false;
		client.on("error", () => {
			failed = true;
		});
		await until(test, () => failed);
		expect(test.network.inboundFlows).toBe(0);
	});

	it("of a port in use says which, and what to do next", async () => {
		const test = createLoopbackNetwork();
		const { hostPort } = await test.network.forward(0, 80, "tcp");
		await expect(test.network.forward(hostPort, 81, "tcp")).rejects.toMatchObject({
			code: "already-exists",
			message: `TCP port ${hostPort} of the host is in use`,
			hint: "Choose another host port, or 0 for any free one.",
		});
		await expect(test.network.forward(0, 0, "tcp")).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(test.network.forward(70_000, 1, "udp")).rejects.toMatchObject({ code: "invalid-argument" });
	});

	it("is gone with the network, and its port is free again", async () => {
		const test = createLoopbackNetwork();
		const { hostPort } = await test.network.forward(0, 80, "tcp");
		test.network.close();
		expect(test.network.forwards).toEqual([]);
		const server = createServer();
		server.listen(hostPort, "127.0.0.1");
		await once(server, "listening");
		server.close();
	});
});

describe("a UDP forward", () => {
	it("gives each client a port of the gateway's, and takes the guest's answers back", async () => {
		const events: string[] = [];
		const test = createLoopbackNetwork({
			onInbound: async (guestPort) => void events.push(`inbound ${guestPort}`),
			onInboundIdle: () => events.push("idle"),
		});
		const forward = await test.network.forward(0, 5353, "udp");
		expect(forward.url).toBe(`udp://127.0.0.1:${forward.hostPort}`);
		const client = createSocket("udp4");
		const answers: string[] = [];
		client.on("message", (answer) => answers.push(answer.toString()));
		client.send("question", forward.hostPort, "127.0.0.1");
		await until(test, () => test.guest.udp.length === 1);
		const [question] = test.guest.udp;
		expect(question).toMatchObject({ source: GATEWAY_ADDRESS, destinationPort: 5353, payload: bytes("question") });
		test.guest.sendUdp(GATEWAY_ADDRESS, question?.sourcePort ?? 0, bytes("answer"), 5353);
		await until(test, () => answers.length === 1);
		expect(answers).toEqual(["answer"]);
		client.close();
		await test.advance(UDP_IDLE_MS + 1000, 5000);
		expect(events).toEqual(["inbound 5353", "idle"]);
		expect(test.network.usage()).toMatchObject({ udpForwardClients: 0, deadlines: 0 });
	});
});

describe("real servers on the host's loopback", () => {
	it("are reached through 10.0.2.2 on opened ports, with a megabyte each way", async () => {
		const server = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
		server.listen(0, "127.0.0.1");
		await once(server, "listening");
		const { port } = server.address() as AddressInfo;
		const test = createLoopbackNetwork({ hostPorts: [port] });
		const tcp = test.guest.connect(GATEWAY_ADDRESS, port);
		tcp.connection.send(pattern(1_000_000));
		tcp.connection.end();
		await until(test, () => tcp.hasEnded);
		expect(tcp.receivedBytes.equals(pattern(1_000_000))).toBe(true);
		server.close();
	}, 60_000);

	it("that don't listen for UDP are unreachable, until they do", async () => {
		const server = createSocket("udp4");
		server.on("message", (message, from) => server.send(`${message}!`, from.port, from.address));
		await new Promise<void>((bound) => server.bind(0, "127.0.0.1", bound));
		const { port } = server.address();
		const test = createLoopbackNetwork({ hostPorts: [port] });
		test.guest.sendUdp(GATEWAY_ADDRESS, port, bytes("hello"));
		await until(test, () => test.guest.udp.length === 1);
		expect(test.guest.udp[0]).toMatchObject({ source: GATEWAY_ADDRESS, sourcePort: port, payload: bytes("hello!") });
		await new Promise<void>((closed) => server.close(closed));
		test.guest.sendUdp(GATEWAY_ADDRESS, port, bytes("nobody"));
		await until(test, () => test.guest.icmp.length === 1);
		const [error] = test.guest.icmp;
		expect(error).toMatchObject({ type: 3, code: 3, source: GATEWAY_ADDRESS });
		// The quoted datagram's ports, by which the guest's kernel finds the socket.
		expect(Buffer.from(error?.payload ?? []).readUInt16BE(20)).toBe(40_000);
		expect(Buffer.from(error?.payload ?? []).readUInt16BE(22)).toBe(port);
		const again = createSocket("udp4");
		again.on("message", (message, from) => again.send(`${message}?`, from.port, from.address));
		await new Promise<void>((bound) => again.bind(port, "127.0.0.1", bound));
		test.guest.sendUdp(GATEWAY_ADDRESS, port, bytes("back"));
		await until(test, () => test.guest.udp.length === 2);
		expect(test.guest.udp[1]?.payload).toEqual(bytes("back?"));
		again.close();
	});

	it("that don't listen refuse, as they do on the host", async () => {
		const server = createServer();
		server.listen(0, "127.0.0.1");
		await once(server, "listening");
		const { port } = server.address() as AddressInfo;
		server.close();
		await once(server, "close");
		const test = createLoopbackNetwork({ hostPorts: [port] });
		const tcp = test.guest.connect(GATEWAY_ADDRESS, port);
		await until(test, () => tcp.closeReason !== undefined);
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(test.guest.icmp).toEqual([]);
	});
});

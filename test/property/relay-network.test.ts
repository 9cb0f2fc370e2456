import { BlockList } from "node:net";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DNS_ADDRESS, GATEWAY_ADDRESS } from "../../src/relay/addresses.js";
import { MAX_TCP_FLOWS, MAX_UDP_MAPPINGS } from "../../src/relay/limits.js";
import { ETHERTYPE_ARP, ETHERTYPE_IPV4 } from "../../src/relay/wire/ethernet.js";
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from "../../src/relay/wire/ipv4.js";
import type { GuestTcp } from "../unit/relay/network/fake-guest.js";
import type { FakeHost, FakeSocket } from "../unit/relay/network/fake-host.js";
import { address, createTestNetwork, pattern, type TestNetwork } from "../unit/relay/network/test-network.js";

const SEED = 86;

/** An oracle of its own: what no guest may reach while no rule says so. */
const closed = new BlockList();
for (const [base, bits] of [
	["0.0.0.0", 8],
	["10.0.0.0", 8],
	["100.64.0.0", 10],
	["127.0.0.0", 8],
	["169.254.0.0", 16],
	["172.16.0.0", 12],
	["192.0.0.0", 24],
	["192.168.0.0", 16],
	["198.18.0.0", 15],
	["224.0.0.0", 4],
	["240.0.0.0", 4],
] as const) {
	closed.addSubnet(base, bits);
}

function contactedAddresses(host: FakeHost): string[] {
	return [
		...host.tcp.map((socket) => socket.address),
		...host.udp.flatMap((socket) => socket.sent.map((datagram) => datagram.address)),
		...host.pinged,
	];
}

const anyAddress = fc.oneof(
	{ weight: 3, arbitrary: fc.integer({ min: 0, max: 0xffffffff }) },
	{
		weight: 3,
		arbitrary: fc.constantFrom(
			...[
				"127.0.0.1",
				"10.0.2.2",
				"10.0.2.3",
				"10.0.2.15",
				"10.1.2.3",
				"169.254.169.254",
				"192.168.1.1",
				"172.16.0.1",
				"0.0.0.0",
				"224.0.0.1",
				"255.255.255.255",
			].map(address),
		),
	},
	{ weight: 1, arbitrary: fc.constant(address("93.184.216.34")) },
);
const port = fc.oneof(fc.constantFrom(0, 22, 53, 67, 68, 80, 443, 8080), fc.integer({ min: 0, max: 65_535 }));
const payload = fc.uint8Array({ maxLength: 80 });

/** Something well-formed that the guest sends. */
type Action = (test: TestNetwork) => void;
const action: fc.Arbitrary<Action> = fc.oneof(
	fc.tuple(anyAddress, port, port, fc.nat(63), fc.integer({ min: 0, max: 0xffffffff }), payload).map(
		([to, sourcePort, destinationPort, flags, sequence, data]): Action =>
			(test) =>
				test.guest.sendTcp(to, {
					sourcePort,
					destinationPort,
					sequence,
					acknowledgment: sequence,
					flags,
					window: 1000,
					options: {},
					payload: data,
				}),
	),
	fc.tuple(anyAddress, port).map(
		([to, at]): Action =>
			(test) =>
				void test.guest.connect(to, at),
	),
	fc.tuple(anyAddress, port, port, payload).map(
		([to, at, from, data]): Action =>
			(test) =>
				test.guest.sendUdp(to, at, data, from),
	),
	fc.tuple(anyAddress, fc.nat(255), payload).map(
		([to, type, data]): Action =>
			(test) =>
				test.guest.sendIcmp(to, { type, code: 0, rest: 1, payload: data }),
	),
	fc
		.tuple(
			anyAddress,
			fc.constantFrom(PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, 47),
			payload,
			fc.nat(100),
			fc.boolean(),
		)
		.map(
			([to, protocol, data, units, moreFragments]): Action =>
				(test) =>
					test.guest.sendIpv4(to, protocol, data, { fragmentOffset: units * 8, moreFragments, identification: 5 }),
		),
	fc.tuple(anyAddress, anyAddress).map(
		([senderAddress, targetAddress]): Action =>
			(test) =>
				test.guest.sendArp({ senderAddress, targetAddress }),
	),
	fc.tuple(fc.constantFrom(ETHERTYPE_ARP, ETHERTYPE_IPV4), payload).map(
		([type, data]): Action =>
			(test) =>
				test.guest.sendEthernet(type, data),
	),
	fc.uint8Array({ maxLength: 200 }).map(
		(frame): Action =>
			(test) =>
				test.guest.sendFrame(frame),
	),
	fc.constantFrom<Action>(
		(test) => test.host.tcp.at(-1)?.accept(),
		(test) => test.host.tcp.at(-1)?.push(pattern(3000)),
		(test) => test.host.tcp.at(-1)?.fail("ECONNREFUSED"),
		(test) => test.host.tcp.at(-1)?.fail("ECONNRESET"),
		(test) => test.host.udp.at(-1)?.arrive(pattern(100), "93.184.216.34", 80),
		(test) => test.clock.advance(500),
		(test) => test.network.abandonFlows(test.network.openFlows()),
	),
);

/** The guest's frames are damaged on the way: bytes at places, modulo the frame's length. */
const damage = fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 3 });

describe("a machine's network under hostile frames", () => {
	it("never throws, stays in bounds, and contacts no closed address", async () => {
		const script = fc.array(fc.tuple(action, damage), { minLength: 1, maxLength: 60 });
		await fc.assert(
			fc.asyncProperty(script, async (steps) => {
				const test = createTestNetwork();
				const { receive } = test.network;
				let damaging: readonly (readonly [number, number])[] = [];
				test.network.receive = (frame) => {
					for (const [at, value] of damaging) if (frame.length > 0) frame[at % frame.length] = value;
					receive.call(test.network, frame);
				};
				for (const [act, bytes] of steps) {
					damaging = bytes;
					act(test);
					await test.settle();
					const usage = test.network.usage();
					expect(usage.tcpFlows).toBeLessThanOrEqual(MAX_TCP_FLOWS);
					expect(usage.udpMappings).toBeLessThanOrEqual(MAX_UDP_MAPPINGS);
					expect(test.clock.pendingTimers).toBeLessThanOrEqual(1);
				}
				for (const contacted of contactedAddresses(test.host)) {
					expect([contacted, closed.check(contacted)]).toEqual([contacted, false]);
				}
				test.network.close();
				expect(test.clock.pendingTimers).toBe(0);
			}),
			{ seed: SEED, numRuns: 300 },
		);
	}, 120_000);
});

/** Numbers that look random and are the same in every run (xorshift). */
function randomNumbers(seed: number): (below: number) => number {
	let state = seed;
	return (below) => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		return (state >>> 0) % below;
	};
}

describe("a day of a machine's network", () => {
	it("leaks no flow, no timer and no byte", async () => {
		const test = createTestNetwork({ hostPorts: [8080] });
		test.guest.isRecording = false;
		const random = randomNumbers(SEED);
		const live: { readonly tcp: GuestTcp; readonly socket: FakeSocket }[] = [];
		let opened = 0;
		let contacts = 0;
		test.host.onConnect = () => {
			contacts += 1;
		};
		let mostFlows = 0;
		const HOUR_MS = 3_600_000;
		while (test.clock.nowMs() < 24 * HOUR_MS) {
			const kind = random(10);
			if (kind < 4) {
				const contacted = test.host.tcp.length;
				const tcp = test.guest.connect(address("93.184.0.0") + random(65_536), 80);
				opened += 1;
				await test.settle();
				const socket = test.host.tcp[contacted];
				if (socket === undefined) continue;
				const fate = random(10);
				if (fate === 0) socket.fail("ECONNREFUSED");
				else if (fate === 1) socket.fail("EHOSTUNREACH");
				else if (fate > 2) {
					socket.accept();
					live.push({ tcp, socket });
				}
			} else if (kind < 6) {
				test.guest.sendUdp(address("93.184.0.0") + random(1000), 1000 + random(10), pattern(100), 2000 + random(50));
				await test.settle();
				const sent = test.host.udp.at(-1)?.sent.at(-1);
				if (sent !== undefined) test.host.udp.at(-1)?.arrive(pattern(200), sent.address, sent.port);
			} else if (kind === 6) {
				test.guest.sendUdp(DNS_ADDRESS, 53, pattern(30));
				test.guest.sendIcmp(GATEWAY_ADDRESS, { type: 8, code: 0, rest: 1, payload: pattern(56) });
				test.guest.connect(address("10.0.0.0") + random(65_536), 22);
			}
			for (const flow of live) {
				const deed = random(12);
				if (deed === 0) flow.tcp.connection.send(pattern(random(50_000)));
				else if (deed === 1 && !flow.socket.readableEnded && !flow.socket.destroyed)
					flow.socket.push(pattern(random(50_000)));
				else if (deed === 2) flow.tcp.connection.end();
				else if (deed === 3 && !flow.socket.destroyed) flow.socket.push(null);
				else if (deed === 4 && random(4) === 0) flow.tcp.connection.abort();
				else if (deed === 5 && random(4) === 0) flow.socket.fail("ECONNRESET");
			}
			await test.advance(5000 + random(60_000), 20_000);
			mostFlows = Math.max(mostFlows, test.network.usage().tcpFlows);
			for (let at = live.length - 1; at >= 0; at--) {
				if (live[at]?.tcp.closeReason !== undefined) live.splice(at, 1);
			}
			test.host.tcp.splice(0, Math.max(0, test.host.tcp.length - 50));
		}
		expect(opened).toBeGreaterThan(500);
		expect(mostFlows).toBeLessThan(200);
		await test.advance(3 * HOUR_MS, 60_000);
		expect(test.network.usage()).toEqual({ tcpFlows: 0, udpMappings: 0, udpForwardClients: 0, deadlines: 0 });
		expect(test.clock.pendingTimers).toBe(0);
		expect(test.audit.filter((entry) => entry.protocol === "tcp" && entry.rule === "default").length).toBe(contacts);
	}, 120_000);

	it("carries every byte of flows that both sides end, whatever the sizes and the order", async () => {
		const piece = fc.record({ toHost: fc.boolean(), bytes: fc.integer({ min: 0, max: 100_000 }) });
		await fc.assert(
			fc.asyncProperty(
				fc.array(piece, { maxLength: 12 }),
				fc.boolean(),
				fc.constantFrom(576, 1500, 9000, 65_521),
				async (pieces, hostFirst, mtu) => {
					const test = createTestNetwork({ mtu });
					test.guest.isRecording = false;
					const tcp = test.guest.connect(address("93.184.216.34"), 80);
					await test.settle();
					const socket = test.host.last;
					socket.accept();
					const toHost: Uint8Array[] = [];
					const toGuest: Uint8Array[] = [];
					for (const [index, { toHost: up, bytes }] of pieces.entries()) {
						(up ? toHost : toGuest).push(pattern(bytes, index));
						if (up) tcp.connection.send(pattern(bytes, index));
						else if (bytes > 0) socket.push(pattern(bytes, index));
						if (index % 3 === 0) await test.settle();
					}
					if (hostFirst) socket.push(null);
					else tcp.connection.end();
					await test.advance(500);
					if (hostFirst) tcp.connection.end();
					else socket.push(null);
					await test.advance(15_000, 500);
					expect(socket.receivedBytes.equals(Buffer.concat(toHost))).toBe(true);
					expect(tcp.receivedBytes.equals(Buffer.concat(toGuest))).toBe(true);
					expect(test.audit).toMatchObject([
						{ bytesOut: Buffer.concat(toHost).length, bytesIn: Buffer.concat(toGuest).length },
					]);
					expect(test.network.usage()).toMatchObject({ tcpFlows: 0, deadlines: 0 });
					expect(test.clock.pendingTimers).toBe(0);
				},
			),
			{ seed: SEED, numRuns: 60 },
		);
	}, 120_000);
});

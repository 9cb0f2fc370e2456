import { describe, expect, it } from "vitest";
import { DNS_ADDRESS, GATEWAY_ADDRESS } from "../../../../src/relay/addresses.js";
import { DNS_IDLE_MS, MAX_UDP_MAPPINGS, MAX_UDP_PEERS, UDP_IDLE_MS } from "../../../../src/relay/limits.js";
import { PROTOCOL_UDP } from "../../../../src/relay/wire/ipv4.js";
import { serializeUdpDatagram } from "../../../../src/relay/wire/udp.js";
import { address, bytes, createTestNetwork, pattern } from "./test-network.js";

const ONE = address("93.184.216.34");
const TWO = address("93.184.216.35");

describe("UDP of the guest", () => {
	it("has one host socket for each of its ports, whatever the destination", async () => {
		const test = createTestNetwork();
		test.guest.sendUdp(ONE, 1000, bytes("a"), 5000);
		test.guest.sendUdp(TWO, 2000, bytes("b"), 5000);
		test.guest.sendUdp(ONE, 1000, bytes("c"), 5001);
		await test.settle();
		expect(test.host.udp.map(({ sent }) => sent)).toEqual([
			[
				{ bytes: bytes("a"), port: 1000, address: "93.184.216.34" },
				{ bytes: bytes("b"), port: 2000, address: "93.184.216.35" },
			],
			[{ bytes: bytes("c"), port: 1000, address: "93.184.216.34" }],
		]);
	});

	it("hears the addresses and ports only that it has sent to", async () => {
		const test = createTestNetwork();
		test.guest.sendUdp(ONE, 1000, bytes("a"), 5000);
		await test.settle();
		const [socket] = test.host.udp;
		socket?.arrive(bytes("answer"), "93.184.216.34", 1000);
		socket?.arrive(bytes("other port"), "93.184.216.34", 1001);
		socket?.arrive(bytes("other address"), "93.184.216.35", 1000);
		await test.settle();
		expect(test.guest.udp).toMatchObject([
			{ source: ONE, sourcePort: 1000, destinationPort: 5000, payload: bytes("answer") },
		]);
	});

	it("to a closed address is answered with ICMP port unreachable, and no socket is made", async () => {
		const test = createTestNetwork();
		test.guest.sendUdp(address("10.1.2.3"), 1000, bytes("a"));
		test.guest.sendUdp(GATEWAY_ADDRESS, 1000, bytes("a"));
		await test.settle();
		expect(test.guest.icmp).toMatchObject([
			{ type: 3, code: 3, source: address("10.1.2.3") },
			{ type: 3, code: 3, source: GATEWAY_ADDRESS },
		]);
		expect(test.host.udp).toEqual([]);
		expect(test.audit).toMatchObject([
			{ protocol: "udp", verdict: "refused" },
			{ protocol: "udp", verdict: "refused" },
		]);
		expect(test.network.usage().udpMappings).toBe(0);
	});

	it("knocking at a closed door is one line per second in the audit log", async () => {
		const test = createTestNetwork();
		for (let time = 0; time < 30; time++) {
			test.guest.sendUdp(address("10.1.2.3"), 1000, bytes("a"));
			await test.advance(100, 100);
		}
		expect(test.audit.length).toBe(3);
		expect(test.network.counters.deniedUdp).toBe(30);
	});

	it("to closed doors gets a hundred ICMP errors per second and no more", async () => {
		const test = createTestNetwork();
		for (let port = 1; port <= 1000; port++) test.guest.sendUdp(address("10.1.2.3"), port, bytes("a"));
		await test.settle();
		expect(test.guest.icmp.length).toBe(100);
		expect(test.network.counters.icmpErrorLimit).toBe(900);
	});

	it("to 10.0.2.2 on an opened port reaches the host's localhost, which answers as 10.0.2.2", async () => {
		const test = createTestNetwork({ hostPorts: [7000] });
		test.guest.sendUdp(GATEWAY_ADDRESS, 7000, bytes("a"));
		await test.settle();
		expect(test.host.udp[0]?.sent).toMatchObject([{ address: "127.0.0.1", port: 7000 }]);
		test.host.udp[0]?.arrive(bytes("b"), "127.0.0.1", 7000);
		await test.settle();
		expect(test.guest.udp).toMatchObject([{ source: GATEWAY_ADDRESS, sourcePort: 7000, payload: bytes("b") }]);
	});

	it("larger than the link's packets comes in fragments, and may be sent in fragments in any order", async () => {
		const test = createTestNetwork();
		const payload = pattern(5000);
		const whole = serializeUdpDatagram({ sourcePort: 5000, destinationPort: 1000, payload }, address("10.0.2.15"), ONE);
		const pieces = [0, 1480, 2960, 4440].map((fragmentOffset) => ({
			fragmentOffset,
			moreFragments: fragmentOffset < 4440,
			identification: 77,
		}));
		for (const piece of [2, 0, 3, 1]) {
			const fields = pieces[piece];
			if (fields === undefined) continue;
			test.guest.sendIpv4(ONE, PROTOCOL_UDP, whole.slice(fields.fragmentOffset, fields.fragmentOffset + 1480), fields);
		}
		await test.settle();
		expect(test.host.udp[0]?.sent[0]?.bytes).toEqual(payload);
		test.host.udp[0]?.arrive(payload, "93.184.216.34", 1000);
		await test.settle();
		expect(test.guest.frames.length).toBe(4);
		expect(test.guest.udp[0]?.payload).toEqual(payload);
	});

	it("ends when it has been idle, with a line in the audit log and no timer left", async () => {
		const test = createTestNetwork();
		test.guest.sendUdp(ONE, 1000, bytes("abc"));
		await test.advance(UDP_IDLE_MS - 1000, 5000);
		test.host.udp[0]?.arrive(bytes("fresh"), "93.184.216.34", 1000);
		await test.advance(UDP_IDLE_MS - 1000, 5000);
		expect(test.network.usage().udpMappings).toBe(1);
		await test.advance(2000);
		expect(test.network.usage()).toMatchObject({ udpMappings: 0, deadlines: 0 });
		expect(test.host.udp[0]?.isClosed).toBe(true);
		expect(test.clock.pendingTimers).toBe(0);
		expect(test.audit).toMatchObject([
			{ protocol: "udp", address: ONE, port: 1000, verdict: "allowed", rule: "default", bytesOut: 3, bytesIn: 5 },
		]);
	});

	it("to other resolvers is idle after seconds", async () => {
		const test = createTestNetwork();
		test.guest.sendUdp(ONE, 53, bytes("q"));
		await test.advance(DNS_IDLE_MS + 100);
		expect(test.network.usage().udpMappings).toBe(0);
	});

	it("stays in bounds, however many ports and destinations there are", async () => {
		const test = createTestNetwork();
		test.guest.isRecording = false;
		for (let port = 1; port <= 1000; port++) test.guest.sendUdp(ONE, 1000, bytes("a"), port);
		for (let last = 0; last < 1000; last++) test.guest.sendUdp(address("93.184.0.0") + last, 1000, bytes("a"), 1);
		await test.settle();
		expect(test.network.usage().udpMappings).toBe(MAX_UDP_MAPPINGS);
		expect(test.network.counters.udpMappingLimit).toBe(1000 - MAX_UDP_MAPPINGS);
		expect(test.network.counters.udpPeerLimit).toBe(1001 - MAX_UDP_PEERS);
		expect(test.host.udp.length).toBe(MAX_UDP_MAPPINGS);
		await test.advance(UDP_IDLE_MS + 1000, 1000);
		expect(test.network.usage()).toMatchObject({ udpMappings: 0, deadlines: 0 });
	});

	it("over the bandwidth, over the quota and over a full link is dropped and counted", async () => {
		const test = createTestNetwork({ bandwidth: { fromGuestBytesPerSecond: 10_000 }, maxTotalBytes: 5000 });
		for (let time = 0; time < 3; time++) test.guest.sendUdp(ONE, 1000, pattern(600));
		await test.settle();
		expect(test.host.udp[0]?.sent.length).toBe(1);
		expect(test.network.counters.overBandwidth).toBe(2);
		test.host.udp[0]?.arrive(pattern(4000), "93.184.216.34", 1000);
		test.host.udp[0]?.arrive(pattern(4000), "93.184.216.34", 1000);
		await test.settle();
		expect(test.guest.udp.length).toBe(1);
		expect(test.network.counters.overQuota).toBe(1);

		const full = createTestNetwork();
		full.guest.isLinkRoomy = false;
		full.guest.sendUdp(ONE, 1000, bytes("a"));
		await full.settle();
		for (let time = 0; time < 3; time++) full.host.udp[0]?.arrive(bytes("b"), "93.184.216.34", 1000);
		await full.settle();
		expect(full.guest.udp.length).toBe(1);
		expect(full.network.counters.linkFull).toBe(2);
	});
});

describe("DNS over UDP", () => {
	it("is answered by the address that was asked", async () => {
		const test = createTestNetwork({ answerDns: async (query, via) => bytes(`${via} ${Buffer.from(query)}`) });
		test.guest.sendUdp(DNS_ADDRESS, 53, bytes("q1"));
		test.guest.sendUdp(GATEWAY_ADDRESS, 53, bytes("q2"), 41_000);
		await test.settle();
		expect(test.guest.udp).toMatchObject([
			{ source: DNS_ADDRESS, sourcePort: 53, destinationPort: 40_000, payload: bytes("udp q1") },
			{ source: GATEWAY_ADDRESS, sourcePort: 53, destinationPort: 41_000, payload: bytes("udp q2") },
		]);
		expect(test.host.udp).toEqual([]);
	});

	it("goes to the relay's resolver whatever the address, once a rule is by name", async () => {
		const test = createTestNetwork({ allow: ["good.example"] });
		test.guest.sendUdp(address("8.8.8.8"), 53, bytes("q"));
		await test.settle();
		expect(test.guest.udp).toMatchObject([{ source: address("8.8.8.8"), sourcePort: 53, payload: bytes("q") }]);
		expect(test.host.udp).toEqual([]);
	});

	it("that is never answered is bounded", async () => {
		const test = createTestNetwork({ answerDns: () => new Promise(() => {}) });
		for (let query = 0; query < 1000; query++) test.guest.sendUdp(DNS_ADDRESS, 53, bytes("q"));
		await test.settle();
		expect(test.network.counters.dnsLimit).toBe(1000 - 256);
	});
});

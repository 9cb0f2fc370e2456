import { describe, expect, it } from "vitest";
import {
	BROADCAST_MAC,
	DNS_ADDRESS,
	GATEWAY_ADDRESS,
	GATEWAY_MAC,
	GUEST_ADDRESS,
} from "../../../../src/relay/addresses.js";
import { parseDhcpMessage, serializeDhcpMessage } from "../../../../src/relay/wire/dhcp.js";
import {
	ETHERTYPE_ARP,
	ETHERTYPE_IPV4,
	ETHERTYPE_IPV6,
	serializeEthernetFrame,
} from "../../../../src/relay/wire/ethernet.js";
import { PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP } from "../../../../src/relay/wire/ipv4.js";
import { TCP_ACK, TCP_RST } from "../../../../src/relay/wire/tcp.js";
import { serializeUdpDatagram } from "../../../../src/relay/wire/udp.js";
import { GUEST_MAC } from "./fake-guest.js";
import { address, bytes, createTestNetwork, pattern } from "./test-network.js";

const SERVER = address("93.184.216.34");
const ECHO = { type: 8, code: 0, rest: 0x00010002, payload: bytes("ping") };

describe("a network", () => {
	it("sends nothing, and sets no timer, before the guest's first frame", async () => {
		const test = createTestNetwork();
		await test.advance(10_000, 1000);
		expect(test.guest.frames).toEqual([]);
		expect(test.clock.pendingTimers).toBe(0);
	});

	it("answers ARP for the gateway and the DNS server, and for nobody else", async () => {
		const test = createTestNetwork();
		for (const target of [GATEWAY_ADDRESS, DNS_ADDRESS, address("10.0.2.4"), GUEST_ADDRESS]) {
			test.guest.sendArp({ targetAddress: target });
		}
		await test.settle();
		expect(test.guest.arp).toEqual(
			[GATEWAY_ADDRESS, DNS_ADDRESS].map((senderAddress) => ({
				operation: "reply",
				senderMac: GATEWAY_MAC,
				senderAddress,
				targetMac: GUEST_MAC,
				targetAddress: GUEST_ADDRESS,
			})),
		);
		expect(test.network.counters.unansweredArp).toBe(2);
	});

	it("gives its lease to a guest without an address", async () => {
		const test = createTestNetwork({ mtu: 1400 });
		const discover = serializeDhcpMessage({
			operation: "request",
			transaction: 7,
			seconds: 0,
			flags: 0,
			clientAddress: 0,
			yourAddress: 0,
			serverAddress: 0,
			gatewayAddress: 0,
			clientMac: GUEST_MAC,
			options: new Map([[53, Uint8Array.of(1)]]),
		});
		const datagram = { sourcePort: 68, destinationPort: 67, payload: discover };
		test.guest.sendIpv4(
			0xffffffff,
			PROTOCOL_UDP,
			serializeUdpDatagram(datagram, 0, 0xffffffff),
			{ source: 0 },
			BROADCAST_MAC,
		);
		await test.settle();
		expect(test.guest.udp).toMatchObject([
			{
				sourcePort: 67,
				destinationPort: 68,
				source: GATEWAY_ADDRESS,
				destination: GUEST_ADDRESS,
				destinationMac: GUEST_MAC,
			},
		]);
		const offer = parseDhcpMessage(test.guest.udp[0]?.payload ?? new Uint8Array(0));
		expect(offer.ok && offer.value.options.get(26)).toEqual(Uint8Array.of(1400 >> 8, 1400 & 0xff));
	});

	it("answers pings to the gateway and the DNS server itself, large ones in fragments", async () => {
		const test = createTestNetwork();
		test.guest.sendIcmp(GATEWAY_ADDRESS, ECHO);
		await test.settle();
		expect(test.guest.icmp).toMatchObject([{ type: 0, rest: ECHO.rest, source: GATEWAY_ADDRESS }]);
		const payload = pattern(1600);
		test.guest.sendIcmp(DNS_ADDRESS, { ...ECHO, payload });
		await test.settle();
		expect(test.guest.icmp[1]?.payload).toEqual(payload);
		expect(test.guest.frames.length).toBe(3);
		expect(test.host.pinged).toEqual([]);
	});

	it("has the host ping what is beyond, and says so when it can't", async () => {
		const test = createTestNetwork();
		test.guest.sendIcmp(SERVER, ECHO);
		await test.settle();
		expect(test.host.pinged).toEqual(["93.184.216.34"]);
		expect(test.guest.icmp).toMatchObject([{ type: 0, source: SERVER, rest: ECHO.rest, payload: ECHO.payload }]);
		test.host.pingOutcome = { kind: "no-reply" };
		test.guest.sendIcmp(SERVER, ECHO);
		await test.settle();
		expect(test.guest.icmp.length).toBe(1);
		test.host.pingOutcome = { kind: "unavailable" };
		test.guest.sendIcmp(SERVER, ECHO);
		await test.settle();
		expect(test.guest.icmp[1]).toMatchObject({ type: 3, code: 1 });
		expect(test.audit.map((entry) => [entry.protocol, entry.bytesIn])).toEqual([
			["icmp", 4],
			["icmp", 0],
			["icmp", 0],
		]);
	});

	it("has few pings under way at a time", async () => {
		const test = createTestNetwork();
		test.host.pingOutcome = new Promise(() => {});
		for (let time = 0; time < 20; time++) test.guest.sendIcmp(SERVER, ECHO);
		await test.settle();
		expect(test.host.pinged.length).toBe(8);
		expect(test.network.counters.pingLimit).toBe(12);
	});

	it("passes no reply on to a guest that was restored meanwhile", async () => {
		const test = createTestNetwork();
		let reply: () => void = () => {};
		test.host.pingOutcome = new Promise((resolve) => {
			reply = () => resolve({ kind: "reply" });
		});
		test.guest.sendIcmp(SERVER, ECHO);
		await test.settle();
		test.network.abandonFlows([]);
		reply();
		await test.settle();
		expect(test.guest.icmp).toEqual([]);
	});

	it("pings nobody whom the policy closes", async () => {
		const test = createTestNetwork();
		test.guest.sendIcmp(address("192.168.1.1"), ECHO);
		await test.settle();
		expect(test.host.pinged).toEqual([]);
		expect(test.guest.icmp).toMatchObject([{ type: 3, code: 13 }]);
	});

	it("tells of packets whose time to live ends at the gateway", async () => {
		const test = createTestNetwork();
		test.guest.sendIcmp(SERVER, ECHO, { timeToLive: 1 });
		test.guest.sendIcmp(GATEWAY_ADDRESS, ECHO, { timeToLive: 1 });
		await test.settle();
		expect(test.guest.icmp.map(({ type }) => type)).toEqual([11, 0]);
	});

	it("resets the segments of flows that it does not know", async () => {
		const test = createTestNetwork();
		test.guest.sendTcp(SERVER, {
			sourcePort: 5000,
			destinationPort: 80,
			sequence: 100,
			acknowledgment: 777,
			flags: TCP_ACK,
			window: 1000,
			options: {},
			payload: bytes("x"),
		});
		await test.settle();
		expect(test.guest.tcp).toMatchObject([{ flags: TCP_RST, sequence: 777, source: SERVER, destinationPort: 5000 }]);
		expect(test.host.tcp).toEqual([]);
	});

	it("counts and drops what is not its business", async () => {
		const test = createTestNetwork();
		const { guest } = test;
		const icmp = Uint8Array.of(8, 0, 0xf7, 0xff, 0, 0, 0, 0);
		guest.sendFrame(new Uint8Array(13));
		guest.sendFrame(new Uint8Array(70_000));
		guest.sendEthernet(ETHERTYPE_IPV6, new Uint8Array(40), 0x333300000001);
		guest.sendEthernet(0x88cc, new Uint8Array(40), 0x0180c200000e);
		guest.sendEthernet(ETHERTYPE_IPV4, guest.packet(SERVER, PROTOCOL_ICMP, icmp), 0x01005e000001);
		guest.sendEthernet(ETHERTYPE_IPV4, guest.packet(SERVER, PROTOCOL_ICMP, icmp), 0x525400000001);
		guest.sendEthernet(ETHERTYPE_ARP, new Uint8Array(20));
		guest.sendEthernet(ETHERTYPE_IPV4, new Uint8Array(20));
		guest.sendFrame(
			serializeEthernetFrame({ destination: GATEWAY_MAC, source: BROADCAST_MAC, etherType: 0x800, payload: icmp }),
		);
		guest.sendIpv4(SERVER, PROTOCOL_ICMP, icmp, { source: address("10.0.2.16") });
		guest.sendIpv4(address("224.0.0.251"), PROTOCOL_UDP, new Uint8Array(8));
		guest.sendIpv4(
			address("10.0.2.255"),
			PROTOCOL_UDP,
			serializeUdpDatagram(
				{ sourcePort: 1, destinationPort: 137, payload: icmp },
				GUEST_ADDRESS,
				address("10.0.2.255"),
			),
		);
		guest.sendIpv4(SERVER, 47, icmp);
		guest.sendIpv4(SERVER, PROTOCOL_TCP, new Uint8Array(20));
		guest.sendIpv4(SERVER, PROTOCOL_UDP, new Uint8Array(4));
		guest.sendIpv4(GATEWAY_ADDRESS, PROTOCOL_ICMP, new Uint8Array(8).fill(1));
		guest.sendIpv4(GUEST_ADDRESS, PROTOCOL_ICMP, icmp);
		guest.sendUdp(GATEWAY_ADDRESS, 67, bytes("no DHCP"));
		await test.settle();
		const counted = Object.entries(test.network.counters).filter(([, count]) => count > 0);
		expect(Object.fromEntries(counted)).toEqual({
			framesReceived: 18,
			longFrame: 1,
			badEthernet: 1,
			badSourceMac: 1,
			badArp: 1,
			badIpv4: 1,
			badIcmp: 1,
			badUdp: 1,
			badTcp: 1,
			badDhcp: 1,
			otherMac: 1,
			multicast: 2,
			broadcast: 1,
			ipv6: 1,
			otherEtherType: 1,
			otherSource: 1,
			otherProtocol: 1,
			hairpin: 1,
		});
		expect(test.guest.frames).toEqual([]);
	});

	it("follows the guest to a new MAC", async () => {
		const test = createTestNetwork();
		test.guest.sendIcmp(GATEWAY_ADDRESS, ECHO);
		await test.settle();
		test.guest.mac = 0x525400ddeeff;
		test.guest.sendIcmp(GATEWAY_ADDRESS, ECHO);
		await test.settle();
		expect([...(test.guest.frames[1]?.subarray(0, 6) ?? [])]).toEqual([0x52, 0x54, 0, 0xdd, 0xee, 0xff]);
	});

	it("says nothing more once it is closed", async () => {
		const test = createTestNetwork();
		test.guest.connect(SERVER, 80);
		await test.settle();
		test.host.last.accept();
		await test.settle();
		test.network.close();
		expect(test.host.last.destroyed).toBe(true);
		const frames = test.guest.frames.length;
		test.guest.sendIcmp(GATEWAY_ADDRESS, ECHO);
		await test.advance(10_000, 1000);
		expect(test.guest.frames.length).toBe(frames);
		expect(test.network.usage()).toEqual({ tcpFlows: 0, udpMappings: 0, udpForwardClients: 0, deadlines: 0 });
		expect(test.clock.pendingTimers).toBe(0);
	});
});

describe("after a restore", () => {
	it("the flows of the past are reset, before the guest has sent a frame", async () => {
		const test = createTestNetwork();
		const tcp = test.guest.connect(SERVER, 80);
		await test.settle();
		test.host.last.accept();
		await test.settle();
		const flows = test.network.openFlows();
		expect(flows).toEqual([
			{ protocol: "tcp", guestPort: tcp.localPort, remoteAddress: "93.184.216.34", remotePort: 80 },
		]);

		// Another process, another network; the guest's stack is as it was when it was saved.
		test.network.close();
		const { network: fresh } = createTestNetwork({ guest: test.guest, clock: test.clock });
		fresh.abandonFlows(flows);
		await test.settle();
		expect(tcp.closeReason).toBe("reset-by-guest");
	});

	it("live flows are dropped without a word to the guest, UDP too, and new ones work at once", async () => {
		const test = createTestNetwork();
		test.guest.connect(SERVER, 80);
		test.guest.sendUdp(SERVER, 9999, bytes("x"));
		await test.settle();
		test.host.last.accept();
		await test.settle();
		const frames = test.guest.frames.length;
		test.guest.restart();
		test.network.abandonFlows([]);
		await test.settle();
		expect(test.host.last.wasReset).toBe(true);
		expect(test.host.udp[0]?.isClosed).toBe(true);
		expect(test.guest.frames.length).toBe(frames);
		expect(test.clock.pendingTimers).toBe(0);
		test.guest.sendUdp(GATEWAY_ADDRESS, 53, bytes("query"));
		await test.settle();
		expect(test.guest.udp.at(-1)).toMatchObject({ source: GATEWAY_ADDRESS, sourcePort: 53 });
	});
});

import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { silentLog } from "../../../src/log.js";
import {
	BROADCAST_MAC,
	DNS_ADDRESS,
	GATEWAY_ADDRESS,
	GATEWAY_MAC,
	GUEST_ADDRESS,
	type Ipv4,
	type Mac,
} from "../../../src/relay/addresses.js";
import { MAX_SHARED_ADDRESSES } from "../../../src/relay/limits.js";
import { SharedNetwork, type SharedPort } from "../../../src/relay/shared-network.js";
import { serializeArpPacket } from "../../../src/relay/wire/arp.js";
import {
	ETHERTYPE_ARP,
	ETHERTYPE_IPV4,
	ETHERTYPE_IPV6,
	serializeEthernetFrame,
} from "../../../src/relay/wire/ethernet.js";
import { IPV4_HEADER_BYTES, PROTOCOL_UDP, writeIpv4Header } from "../../../src/relay/wire/ipv4.js";

/** 224.0.0.251 as an Ethernet address (RFC 1112 6.4). */
const MULTICAST_MAC: Mac = 0x01005e0000fb;
const mac = (number: number): Mac => 0x020000000000 + number;

let network: SharedNetwork;
let warnings: string[];
beforeEach(() => {
	warnings = [];
	network = new SharedNetwork({ ...silentLog, warn: (line: string) => warnings.push(line) });
});

/** A machine that has said its first word. */
class Machine {
	readonly frames: Uint8Array[] = [];
	readonly port: SharedPort;
	isSlow = false;

	constructor(readonly mac: Mac) {
		this.port = network.join(`machine-${mac}`, {
			send: (frame) => {
				this.frames.push(frame);
				return !this.isSlow;
			},
			close: () => {},
		});
		this.port.receive(frameOf(mac, GATEWAY_MAC, ETHERTYPE_ARP, new Uint8Array(28)));
	}

	get address(): Ipv4 {
		return this.port.address;
	}

	asks(target: Ipv4, sender: { mac?: Mac; address?: Ipv4 } = {}): boolean {
		const packet = {
			...{ operation: "request" as const, targetMac: 0, targetAddress: target },
			...{ senderMac: sender.mac ?? this.mac, senderAddress: sender.address ?? this.address },
		};
		return this.port.receive(frameOf(this.mac, BROADCAST_MAC, ETHERTYPE_ARP, serializeArpPacket(packet)));
	}

	sends(destination: Mac, source: Ipv4 = this.address, to: Ipv4 = GATEWAY_ADDRESS): boolean {
		return this.port.receive(frameOf(this.mac, destination, ETHERTYPE_IPV4, packetOf(source, to)));
	}
}

function frameOf(source: Mac, destination: Mac, etherType: number, payload: Uint8Array): Uint8Array {
	return serializeEthernetFrame({ source, destination, etherType, payload });
}

function packetOf(source: Ipv4, destination: Ipv4): Uint8Array {
	const bytes = new Uint8Array(IPV4_HEADER_BYTES + 8);
	const fragment = { moreFragments: false, fragmentOffset: 0, identification: 1 };
	writeIpv4Header(bytes, 0, { source, destination, protocol: PROTOCOL_UDP, payloadBytes: 8, ...fragment });
	return bytes;
}

describe("machines of a shared network", () => {
	test("have addresses of their own, which they find again when they come back", () => {
		const [first, second] = [new Machine(mac(1)), new Machine(mac(2))];
		expect([first.address, second.address]).toEqual([GUEST_ADDRESS, GUEST_ADDRESS + 1]);
		first.port.leave();
		expect(new Machine(mac(3)).address).toBe(GUEST_ADDRESS + 2);
		expect(new Machine(mac(1)).address).toBe(GUEST_ADDRESS);
	});

	test("are 240 at most; one that is away for long gives its address to a newcomer", () => {
		const all = Array.from({ length: MAX_SHARED_ADDRESSES }, (_, at) => new Machine(mac(at + 1)));
		expect(new Set(all.map(({ address }) => address)).size).toBe(MAX_SHARED_ADDRESSES);
		const late = new Machine(mac(1000));
		expect(late.sends(GATEWAY_MAC)).toBe(false);
		expect(warnings).toEqual([`machine machine-${mac(1000)} is not heard: all 240 addresses are taken`]);
		all[7]?.port.leave();
		all[3]?.port.leave();
		expect(new Machine(mac(1001)).address).toBe(GUEST_ADDRESS + 3);
		expect(new Machine(mac(1002)).address).toBe(GUEST_ADDRESS + 7);
	});

	test("hear each other's questions and packets, and the relay hears what is for it", () => {
		const [first, second, third] = [new Machine(mac(1)), new Machine(mac(2)), new Machine(mac(3))];
		expect(first.asks(second.address)).toBe(true);
		expect([first, second, third].map(({ frames }) => frames.length)).toEqual([0, 1, 1]);
		expect(second.sends(first.mac)).toBe(false);
		expect([first, second, third].map(({ frames }) => frames.length)).toEqual([1, 1, 1]);
		expect(second.sends(MULTICAST_MAC)).toBe(false);
		expect([first, second, third].map(({ frames }) => frames.length)).toEqual([2, 1, 2]);
		expect(first.sends(GATEWAY_MAC)).toBe(true);
		expect([first, second, third].map(({ frames }) => frames.length)).toEqual([2, 1, 2]);
	});

	test("hear none that speaks for another, for the relay, or of something else than IPv4", () => {
		const [first, second] = [new Machine(mac(1)), new Machine(mac(2))];
		for (const address of [GATEWAY_ADDRESS, DNS_ADDRESS, second.address]) {
			first.asks(second.address, { address });
			first.sends(second.mac, address);
			first.sends(BROADCAST_MAC, address);
		}
		first.asks(second.address, { mac: GATEWAY_MAC });
		first.port.receive(frameOf(first.mac, BROADCAST_MAC, ETHERTYPE_IPV6, new Uint8Array(40)));
		first.port.receive(frameOf(mac(9), second.mac, ETHERTYPE_IPV4, packetOf(first.address, second.address)));
		// A DHCP client's first packet: no other machine can answer what it does not hear.
		first.sends(BROADCAST_MAC, 0, 0xffffffff);
		expect(second.frames).toEqual([]);
	});

	test("can't take the MAC of one that is there", () => {
		const first = new Machine(mac(1));
		const second = new Machine(mac(1));
		const third = new Machine(mac(3));
		expect(second.sends(GATEWAY_MAC)).toBe(false);
		expect(warnings).toEqual([`machine machine-${mac(1)} is not heard: another one has its MAC`]);
		third.sends(mac(1));
		expect([first.frames.length, second.frames.length]).toEqual([1, 0]);
		second.port.leave();
		third.sends(mac(1));
		expect(first.frames.length).toBe(2);
	});

	test("that read too slowly lose frames of others until their link has drained", () => {
		const [first, second] = [new Machine(mac(1)), new Machine(mac(2))];
		second.isSlow = true;
		for (let count = 0; count < 5; count++) first.sends(second.mac);
		expect(second.frames.length).toBe(1);
		second.isSlow = false;
		second.port.drained();
		first.sends(second.mac);
		expect(second.frames.length).toBe(2);
	});

	test("hear only frames with their sender's MAC and address, whatever is sent", () => {
		const number = (most: number) => fc.integer({ min: 0, max: most });
		const address = fc.constantFrom(0, GATEWAY_ADDRESS, GUEST_ADDRESS, GUEST_ADDRESS + 1, GUEST_ADDRESS + 2);
		const payload = fc.oneof(
			fc.uint8Array({ maxLength: 80 }),
			fc.tuple(address, address).map(([from, to]) => packetOf(from, to)),
			fc
				.tuple(number(2), address, address)
				.map(([from, senderAddress, targetAddress]) =>
					serializeArpPacket({ operation: "reply", senderMac: mac(from), senderAddress, targetMac: 0, targetAddress }),
				),
		);
		const macs = fc.constantFrom(mac(0), mac(1), mac(2), GATEWAY_MAC, BROADCAST_MAC, MULTICAST_MAC, 0);
		const types = fc.constantFrom(ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6);
		const frame = fc.oneof(
			fc.uint8Array({ maxLength: 20 }),
			fc.tuple(macs, macs, types, payload).map((parts) => frameOf(...parts)),
		);
		fc.assert(
			fc.property(fc.array(fc.tuple(number(2), frame), { maxLength: 60 }), (sent) => {
				network = new SharedNetwork(silentLog);
				const machines = [0, 1, 2].map((at) => new Machine(mac(at)));
				for (const [from, bytes] of sent) {
					const before = machines.map(({ frames }) => frames.length);
					machines[from]?.port.receive(Buffer.from(bytes));
					for (const [at, machine] of machines.entries()) {
						for (const heard of machine.frames.slice(before[at])) {
							expect(at).not.toBe(from);
							const buffer = Buffer.from(heard);
							expect(buffer.readUIntBE(6, 6)).toBe(mac(from));
							const isArp = buffer.readUInt16BE(12) === ETHERTYPE_ARP;
							const claimed = buffer.readUInt32BE(14 + (isArp ? 14 : 12));
							expect(isArp ? [0, GUEST_ADDRESS + from] : [GUEST_ADDRESS + from]).toContain(claimed);
						}
					}
				}
			}),
		);
	});
});

import {
	BROADCAST_MAC,
	GATEWAY_ADDRESS,
	GATEWAY_MAC,
	type Ipv4,
	isGroupMac,
	isMachineMac,
	NETWORK_BROADCAST,
} from "./addresses.js";
import type { AnswerDns } from "./flows/dns-end.js";
import { Reassembly } from "./flows/reassembly.js";
import type { TcpNat } from "./flows/tcp-nat.js";
import type { UdpForwards } from "./flows/udp-forwards.js";
import type { UdpNat } from "./flows/udp-nat.js";
import { DNS_UDP_MAX_OUTSTANDING, MAX_FRAME_BYTES } from "./limits.js";
import { isOwnAddress, type NetworkContext } from "./network-context.js";
import { answerArp } from "./services/arp.js";
import { answerDhcp, DHCP_CLIENT_PORT, DHCP_SERVER_PORT } from "./services/dhcp.js";
import type { IcmpService } from "./services/icmp.js";
import { parseArpPacket } from "./wire/arp.js";
import { parseDhcpMessage, serializeDhcpMessage } from "./wire/dhcp.js";
import {
	ETHERTYPE_ARP,
	ETHERTYPE_IPV4,
	ETHERTYPE_IPV6,
	type EthernetFrame,
	parseEthernetFrame,
} from "./wire/ethernet.js";
import { isIcmpError, timeExceeded } from "./wire/icmp.js";
import { type Ipv4Packet, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, parseIpv4Packet } from "./wire/ipv4.js";
import { parseTcpSegment } from "./wire/tcp.js";
import { parseUdpDatagram, serializeUdpDatagram, type UdpDatagram } from "./wire/udp.js";

const DNS_PORT = 53;
const BROADCAST_ADDRESS: Ipv4 = 0xffffffff;

/** Where a frame of the guest can lead. */
export interface Services {
	readonly tcp: TcpNat;
	readonly udp: UdpNat;
	readonly udpForwards: UdpForwards;
	readonly icmp: IcmpService;
	readonly answerDns: AnswerDns;
}

/** Tells the guest's frames apart, and counts and drops what is not the relay's business. */
export class Demultiplexer {
	readonly #context: NetworkContext;
	readonly #services: Services;
	#reassembly = new Reassembly();
	#dnsOutstanding = 0;

	constructor(context: NetworkContext, services: Services) {
		this.#context = context;
		this.#services = services;
	}

	/** Forgets the fragments of datagrams that are not whole. */
	abandon(): void {
		this.#reassembly = new Reassembly();
	}

	/** A frame of the guest. */
	receive(frame: Uint8Array): void {
		const { counters } = this.#context;
		counters.framesReceived += 1;
		if (frame.length > MAX_FRAME_BYTES) {
			counters.longFrame += 1;
			return;
		}
		const parsed = parseEthernetFrame(plain(frame));
		if (!parsed.ok) {
			counters.badEthernet += 1;
			return;
		}
		const ethernet = parsed.value;
		if (!isMachineMac(ethernet.source)) {
			counters.badSourceMac += 1;
			return;
		}
		this.#context.wire.guestIsUp();
		if (ethernet.etherType === ETHERTYPE_IPV6) counters.ipv6 += 1;
		else if (ethernet.etherType !== ETHERTYPE_ARP && ethernet.etherType !== ETHERTYPE_IPV4)
			counters.otherEtherType += 1;
		else if (ethernet.destination !== GATEWAY_MAC && ethernet.destination !== BROADCAST_MAC) {
			if (isGroupMac(ethernet.destination)) counters.multicast += 1;
			else counters.otherMac += 1;
		} else if (ethernet.etherType === ETHERTYPE_ARP) this.#receiveArp(ethernet);
		else this.#receiveIpv4(ethernet);
	}

	#receiveArp(ethernet: EthernetFrame): void {
		const { counters } = this.#context;
		const parsed = parseArpPacket(ethernet.payload);
		if (!parsed.ok || parsed.value.senderMac !== ethernet.source) {
			counters.badArp += 1;
			return;
		}
		const { wire } = this.#context;
		if (parsed.value.senderAddress === wire.guestAddress) wire.learn(ethernet.source);
		const answer = answerArp(parsed.value);
		if (answer === undefined) counters.unansweredArp += 1;
		else wire.sendArp(answer, ethernet.source);
	}

	#receiveIpv4(ethernet: EthernetFrame): void {
		const { counters } = this.#context;
		const parsed = parseIpv4Packet(ethernet.payload);
		if (!parsed.ok) {
			counters.badIpv4 += 1;
			return;
		}
		const packet = parsed.value;
		if (packet.source !== this.#context.wire.guestAddress) {
			if (packet.source === 0 && packet.destination === BROADCAST_ADDRESS) this.#receiveBootstrap(packet);
			else counters.otherSource += 1;
			return;
		}
		this.#context.wire.learn(ethernet.source);
		if (packet.timeToLive === 0) {
			counters.timeToLive += 1;
		} else if (packet.timeToLive === 1 && !isOwnAddress(packet.destination) && !isBroadcast(packet.destination)) {
			counters.timeToLive += 1;
			if (mayHaveError(packet)) this.#context.wire.sendIcmpError(timeExceeded(packet));
		} else if (packet.moreFragments || packet.fragmentOffset > 0) {
			const whole = this.#reassembly.add(packet, this.#context.clock.nowMs());
			if (whole !== undefined) this.#receivePacket(whole);
		} else {
			this.#receivePacket(packet);
		}
	}

	/** A client without an address may say one thing only. */
	#receiveBootstrap(packet: Ipv4Packet): void {
		const datagram = packet.protocol === PROTOCOL_UDP ? this.#parseUdp(packet) : undefined;
		if (datagram?.destinationPort === DHCP_SERVER_PORT) this.#receiveDhcp(datagram);
		else if (datagram !== undefined || packet.protocol !== PROTOCOL_UDP) this.#context.counters.otherSource += 1;
	}

	#receivePacket(packet: Ipv4Packet): void {
		const { counters, wire } = this.#context;
		const { destination } = packet;
		if (destination === wire.guestAddress) {
			counters.hairpin += 1;
		} else if (isMulticast(destination)) {
			counters.multicast += 1;
		} else if (isBroadcast(destination)) {
			const datagram = packet.protocol === PROTOCOL_UDP ? this.#parseUdp(packet) : undefined;
			if (datagram?.destinationPort === DHCP_SERVER_PORT) this.#receiveDhcp(datagram);
			else counters.broadcast += 1;
		} else if (packet.protocol === PROTOCOL_TCP) {
			const segment = parseTcpSegment(packet.payload, packet.source, destination);
			if (segment.ok) this.#services.tcp.receive(packet, segment.value);
			else counters.badTcp += 1;
		} else if (packet.protocol === PROTOCOL_UDP) {
			const datagram = this.#parseUdp(packet);
			if (datagram !== undefined) this.#receiveUdp(packet, datagram);
		} else if (packet.protocol === PROTOCOL_ICMP) {
			this.#services.icmp.receive(packet);
		} else {
			counters.otherProtocol += 1;
		}
	}

	#parseUdp(packet: Ipv4Packet): UdpDatagram | undefined {
		const parsed = parseUdpDatagram(packet.payload, packet.source, packet.destination);
		if (parsed.ok) return parsed.value;
		this.#context.counters.badUdp += 1;
		return undefined;
	}

	#receiveUdp(packet: Ipv4Packet, datagram: UdpDatagram): void {
		const { sourcePort, destinationPort, payload } = datagram;
		const isOwn = isOwnAddress(packet.destination);
		if (destinationPort === DNS_PORT && (isOwn || this.#context.gate.isDnsRedirected(DNS_PORT))) {
			this.#receiveDns(packet.destination, datagram);
		} else if (destinationPort === DHCP_SERVER_PORT && packet.destination === GATEWAY_ADDRESS) {
			this.#receiveDhcp(datagram);
		} else if (
			packet.destination !== GATEWAY_ADDRESS ||
			!this.#services.udpForwards.fromGuest(sourcePort, destinationPort, payload)
		) {
			this.#services.udp.receive(packet, datagram);
		}
	}

	#receiveDhcp(datagram: UdpDatagram): void {
		const { mtu, wire } = this.#context;
		const message = parseDhcpMessage(datagram.payload);
		if (!message.ok) {
			this.#context.counters.badDhcp += 1;
			return;
		}
		const answer = answerDhcp(message.value, mtu, wire.guestAddress);
		if (answer === undefined) {
			this.#context.counters.unansweredDhcp += 1;
			return;
		}
		const reply = {
			sourcePort: DHCP_SERVER_PORT,
			destinationPort: DHCP_CLIENT_PORT,
			payload: serializeDhcpMessage(answer.message),
		};
		const { address } = answer.delivery;
		wire.sendIpv4(
			GATEWAY_ADDRESS,
			PROTOCOL_UDP,
			serializeUdpDatagram(reply, GATEWAY_ADDRESS, address),
			answer.delivery,
		);
	}

	#receiveDns(server: Ipv4, { sourcePort, payload }: UdpDatagram): void {
		if (this.#dnsOutstanding >= DNS_UDP_MAX_OUTSTANDING) {
			this.#context.counters.dnsLimit += 1;
			return;
		}
		this.#dnsOutstanding += 1;
		const settle = (answer: Uint8Array | undefined): void => {
			this.#dnsOutstanding -= 1;
			if (answer !== undefined) this.#context.wire.sendUdp(server, DNS_PORT, sourcePort, answer);
		};
		this.#services.answerDns(payload, "udp").then(settle, () => settle(undefined));
	}
}

/** A Buffer as what it is otherwise: its own slice() would not copy, and its views are slower to make. */
function plain(bytes: Uint8Array): Uint8Array {
	return bytes instanceof Buffer ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length) : bytes;
}

/** The limited broadcast and that of 10.0.2.0/24. */
function isBroadcast(address: Ipv4): boolean {
	return address === BROADCAST_ADDRESS || address === NETWORK_BROADCAST;
}

/** 224.0.0.0/4 (RFC 1112), and 240.0.0.0/4 with it, which nobody routes. */
function isMulticast(address: Ipv4): boolean {
	return address >= 0xe0000000 && address !== BROADCAST_ADDRESS;
}

/** No error is sent about an error, nor about a later fragment (RFC 1122 3.2.2). */
function mayHaveError(packet: Ipv4Packet): boolean {
	return packet.fragmentOffset === 0 && !(packet.protocol === PROTOCOL_ICMP && isIcmpError(packet.payload));
}

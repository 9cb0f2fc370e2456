import {
	BROADCAST_MAC,
	GATEWAY_ADDRESS,
	GATEWAY_MAC,
	GUEST_ADDRESS,
	type Ipv4,
	type Mac,
} from "../../../../src/relay/addresses.js";
import { endpointKey } from "../../../../src/relay/flows/flow-table.js";
import { Reassembly } from "../../../../src/relay/flows/reassembly.js";
import { rstForStray } from "../../../../src/relay/flows/stray-segment.js";
import {
	type TcpCloseReason,
	TcpConnection,
	type TcpConnectionOutput,
} from "../../../../src/relay/flows/tcp-connection.js";
import type { FrameLink } from "../../../../src/relay/link.js";
import type { Network } from "../../../../src/relay/network.js";
import { type ArpPacket, parseArpPacket, serializeArpPacket } from "../../../../src/relay/wire/arp.js";
import {
	ETHERTYPE_ARP,
	ETHERTYPE_IPV4,
	parseEthernetFrame,
	serializeEthernetFrame,
} from "../../../../src/relay/wire/ethernet.js";
import { type IcmpMessage, parseIcmpMessage, serializeIcmpMessage } from "../../../../src/relay/wire/icmp.js";
import {
	IPV4_HEADER_BYTES,
	type Ipv4Packet,
	PROTOCOL_ICMP,
	PROTOCOL_TCP,
	PROTOCOL_UDP,
	parseIpv4Packet,
	writeIpv4Header,
} from "../../../../src/relay/wire/ipv4.js";
import {
	parseTcpSegment,
	serializeTcpFrame,
	TCP_ACK,
	TCP_SYN,
	type TcpSegment,
} from "../../../../src/relay/wire/tcp.js";
import { parseUdpDatagram, serializeUdpDatagram, type UdpDatagram } from "../../../../src/relay/wire/udp.js";

export const GUEST_MAC: Mac = 0x525400aabbcc;

/** One TCP connection as the guest's program sees it. */
export class GuestTcp implements TcpConnectionOutput {
	readonly received: Uint8Array[] = [];
	isEstablished = false;
	hasEnded = false;
	closeReason: TcpCloseReason | undefined;
	/** While true the program reads nothing, and its window closes. */
	isStalled = false;
	connection!: TcpConnection;

	constructor(
		readonly guest: FakeGuest,
		readonly remoteAddress: Ipv4,
		readonly remotePort: number,
		readonly localPort: number,
	) {}

	get receivedBytes(): Buffer {
		return Buffer.concat(this.received);
	}

	segment(segment: TcpSegment): void {
		this.guest.sendTcp(this.remoteAddress, { ...segment, payload: segment.payload.slice() });
	}

	data(bytes: Uint8Array): void {
		this.received.push(bytes.slice());
	}

	end(): void {
		this.hasEnded = true;
	}

	writable(): void {}

	established(): void {
		this.isEstablished = true;
	}

	timeWait(): void {}

	closed(reason: TcpCloseReason): void {
		this.closeReason = reason;
		this.guest.forget(this);
	}
}

export interface ReceivedDatagram extends UdpDatagram {
	readonly source: Ipv4;
	readonly destination: Ipv4;
	readonly destinationMac: Mac;
}

/** A guest's network stack, as small as the tests need it. Frames lie in queues until they are delivered. */
export class FakeGuest implements FrameLink {
	network!: Network;
	mac: Mac = GUEST_MAC;
	answersArp = true;
	/** What `send` returns to the relay. */
	isLinkRoomy = true;
	/** All frames of the relay, as long as somebody wants them. */
	readonly frames: Uint8Array[] = [];
	readonly arp: ArpPacket[] = [];
	readonly udp: ReceivedDatagram[] = [];
	readonly icmp: (IcmpMessage & { readonly source: Ipv4 })[] = [];
	/** Segments that the stack got, those of unknown connections too. */
	readonly tcp: (TcpSegment & { readonly source: Ipv4 })[] = [];
	readonly listening = new Set<number>();
	readonly accepted: GuestTcp[] = [];
	isRecording = true;
	readonly #connections = new Map<string, GuestTcp>();
	#fromRelay: Uint8Array[] = [];
	#toRelay: Uint8Array[] = [];
	readonly #reassembly = new Reassembly();
	#nextPort = 32_768;
	#identification = 0;

	constructor(
		readonly mtu: number,
		readonly nowMs: () => number,
	) {}

	// The relay's link

	send(frame: Uint8Array): boolean {
		this.#fromRelay.push(frame);
		return this.isLinkRoomy;
	}

	close(): void {}

	get hasFramesInFlight(): boolean {
		return this.#fromRelay.length + this.#toRelay.length > 0;
	}

	/** Carries frames both ways until none is left. */
	deliver(): void {
		for (let round = 0; this.hasFramesInFlight; round++) {
			if (round > 100_000) throw new Error("frames go to and fro for ever");
			const toRelay = this.#toRelay;
			this.#toRelay = [];
			for (const frame of toRelay) this.network.receive(frame);
			if (toRelay.length > 0) this.network.endBatch();
			const fromRelay = this.#fromRelay;
			this.#fromRelay = [];
			for (const frame of fromRelay) this.#receive(frame);
			for (const connection of this.#connections.values()) {
				if (!connection.isStalled) connection.connection.setReceiveBudget(1_048_576);
				connection.connection.flush();
			}
		}
	}

	/** Forgets everything, as a restore does. */
	restart(): void {
		this.#connections.clear();
		this.#fromRelay = [];
		this.#toRelay = [];
	}

	// What the guest sends

	sendFrame(frame: Uint8Array): void {
		this.#toRelay.push(frame);
	}

	sendArp(packet: Partial<ArpPacket>): void {
		const whole: ArpPacket = {
			operation: "request",
			senderMac: this.mac,
			senderAddress: GUEST_ADDRESS,
			targetMac: 0,
			targetAddress: GATEWAY_ADDRESS,
			...packet,
		};
		this.sendEthernet(ETHERTYPE_ARP, serializeArpPacket(whole), BROADCAST_MAC);
	}

	sendEthernet(etherType: number, payload: Uint8Array, destination: Mac = GATEWAY_MAC): void {
		this.sendFrame(serializeEthernetFrame({ destination, source: this.mac, etherType, payload }));
	}

	sendIpv4(
		destination: Ipv4,
		protocol: number,
		payload: Uint8Array,
		fields: Partial<Ipv4Packet> = {},
		destinationMac: Mac = GATEWAY_MAC,
	): void {
		this.sendEthernet(ETHERTYPE_IPV4, this.packet(destination, protocol, payload, fields), destinationMac);
	}

	packet(destination: Ipv4, protocol: number, payload: Uint8Array, fields: Partial<Ipv4Packet> = {}): Uint8Array {
		this.#identification = (this.#identification + 1) & 0xffff;
		const bytes = new Uint8Array(IPV4_HEADER_BYTES + payload.length);
		writeIpv4Header(bytes, 0, {
			source: fields.source ?? GUEST_ADDRESS,
			destination,
			protocol,
			payloadBytes: payload.length,
			identification: fields.identification ?? this.#identification,
			...(fields.timeToLive !== undefined && { timeToLive: fields.timeToLive }),
			...(fields.moreFragments !== undefined && { moreFragments: fields.moreFragments }),
			...(fields.fragmentOffset !== undefined && { fragmentOffset: fields.fragmentOffset }),
		});
		bytes.set(payload, IPV4_HEADER_BYTES);
		return bytes;
	}

	sendUdp(destination: Ipv4, destinationPort: number, payload: Uint8Array, sourcePort = 40_000): void {
		const datagram = { sourcePort, destinationPort, payload };
		this.sendIpv4(destination, PROTOCOL_UDP, serializeUdpDatagram(datagram, GUEST_ADDRESS, destination));
	}

	sendIcmp(destination: Ipv4, message: IcmpMessage, fields: Partial<Ipv4Packet> = {}): void {
		this.sendIpv4(destination, PROTOCOL_ICMP, serializeIcmpMessage(message), fields);
	}

	sendTcp(destination: Ipv4, segment: TcpSegment): void {
		this.sendFrame(
			serializeTcpFrame({
				segment,
				source: GUEST_ADDRESS,
				destination,
				sourceMac: this.mac,
				destinationMac: GATEWAY_MAC,
				identification: 0,
			}),
		);
	}

	connect(remoteAddress: Ipv4, remotePort: number, localPort = this.#nextPort++): GuestTcp {
		const tcp = new GuestTcp(this, remoteAddress, remotePort, localPort);
		tcp.connection = TcpConnection.connect({ ...this.#tcpOptions(tcp), guestPort: remotePort, remotePort: localPort });
		this.#connections.set(connectionKey(tcp), tcp);
		return tcp;
	}

	forget(tcp: GuestTcp): void {
		if (this.#connections.get(connectionKey(tcp)) === tcp) this.#connections.delete(connectionKey(tcp));
	}

	/** Does what the guest's connections have due. */
	tick(): void {
		for (const { connection } of [...this.#connections.values()]) {
			if ((connection.nextTimerMs ?? Number.POSITIVE_INFINITY) <= this.nowMs()) connection.tick();
		}
	}

	// What the guest gets

	#receive(frame: Uint8Array): void {
		if (this.isRecording) this.frames.push(frame);
		const ethernet = parseEthernetFrame(frame);
		if (!ethernet.ok) throw new Error(`the relay sent a bad frame: ${ethernet.reason}`);
		const { etherType, payload, destination } = ethernet.value;
		if (etherType === ETHERTYPE_ARP) this.#receiveArp(payload);
		if (etherType !== ETHERTYPE_IPV4) return;
		const packet = parseIpv4Packet(payload);
		if (!packet.ok) throw new Error(`the relay sent a bad packet: ${packet.reason}`);
		const isFragment = packet.value.moreFragments || packet.value.fragmentOffset > 0;
		const whole = isFragment ? this.#reassembly.add(packet.value, this.nowMs()) : packet.value;
		if (whole !== undefined) this.#receivePacket(whole, destination);
	}

	#receiveArp(payload: Uint8Array): void {
		const packet = parseArpPacket(payload);
		if (!packet.ok) throw new Error(`the relay sent bad ARP: ${packet.reason}`);
		this.arp.push(packet.value);
		if (packet.value.operation !== "request" || !this.answersArp) return;
		this.sendArp({
			operation: "reply",
			targetMac: packet.value.senderMac,
			targetAddress: packet.value.senderAddress,
		});
	}

	#receivePacket(packet: Ipv4Packet, destinationMac: Mac): void {
		const { source, destination, protocol, payload } = packet;
		if (protocol === PROTOCOL_UDP) {
			const datagram = parseUdpDatagram(payload, source, destination);
			if (!datagram.ok) throw new Error(`the relay sent bad UDP: ${datagram.reason}`);
			if (this.isRecording) this.udp.push({ ...datagram.value, source, destination, destinationMac });
		} else if (protocol === PROTOCOL_ICMP) {
			const message = parseIcmpMessage(payload);
			if (!message.ok) throw new Error(`the relay sent bad ICMP: ${message.reason}`);
			if (this.isRecording) this.icmp.push({ ...message.value, source });
		} else if (protocol === PROTOCOL_TCP) {
			const segment = parseTcpSegment(payload, source, destination);
			if (!segment.ok) throw new Error(`the relay sent bad TCP: ${segment.reason}`);
			this.#receiveTcp(source, segment.value);
		}
	}

	#receiveTcp(source: Ipv4, segment: TcpSegment): void {
		if (this.isRecording) this.tcp.push({ ...segment, source });
		const key = `${segment.destinationPort} ${endpointKey(source, segment.sourcePort)}`;
		const known = this.#connections.get(key);
		if (known !== undefined) {
			known.connection.receive(segment);
		} else if ((segment.flags & (TCP_SYN | TCP_ACK)) === TCP_SYN && this.listening.has(segment.destinationPort)) {
			const tcp = new GuestTcp(this, source, segment.sourcePort, segment.destinationPort);
			this.#connections.set(key, tcp);
			this.accepted.push(tcp);
			tcp.connection = TcpConnection.accept(segment, this.#tcpOptions(tcp));
			tcp.connection.hostConnected();
		} else {
			const rst = rstForStray(segment);
			if (rst !== undefined) this.sendTcp(source, rst);
		}
	}

	#tcpOptions(output: TcpConnectionOutput) {
		return {
			nowMs: this.nowMs,
			initialSequence: (Math.floor(this.nowMs() * 250) + 4_000_000_000) >>> 0,
			mtu: this.mtu,
			output,
			receiveBudgetBytes: 1_048_576,
			sendBudgetBytes: 1_048_576,
		};
	}
}

function connectionKey(tcp: GuestTcp): string {
	return `${tcp.localPort} ${endpointKey(tcp.remoteAddress, tcp.remotePort)}`;
}

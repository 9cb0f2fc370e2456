import { BROADCAST_MAC, GATEWAY_ADDRESS, GATEWAY_MAC, type Ipv4, type Mac } from "./addresses.js";
import type { Clock } from "./clock.js";
import type { Counters } from "./counters.js";
import { RateLimit } from "./flows/rate-limit.js";
import { ICMP_ERRORS_PER_SECOND } from "./limits.js";
import type { FrameLink } from "./link.js";
import { type ArpPacket, serializeArpPacket } from "./wire/arp.js";
import { ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV4, writeEthernetHeader } from "./wire/ethernet.js";
import { fragmentIpv4 } from "./wire/fragment.js";
import { IPV4_HEADER_BYTES, PROTOCOL_ICMP, PROTOCOL_UDP, writeIpv4Header } from "./wire/ipv4.js";
import { serializeTcpFrame, type TcpSegment } from "./wire/tcp.js";
import { serializeUdpDatagram } from "./wire/udp.js";

/** A few SYNs and RSTs; whatever is lost here is sent again by its flow. */
const MAX_UNSENT_SEGMENTS = 16;

/** Where a frame with an IPv4 packet goes, when not to the guest's address. */
export interface Delivery {
	readonly mac: Mac;
	readonly address: Ipv4;
}

/**
 * The sending side of the guest's wire. It knows the guest's MAC from the guest's own frames, asks for it by ARP where
 * something is to be sent before, and is silent until the guest is known to be up.
 */
export class GuestWire {
	readonly #link: FrameLink;
	readonly #mtu: number;
	readonly #counters: Counters;
	readonly #clock: Clock;
	readonly #guestAddress: () => Ipv4;
	readonly #waiting = new Set<() => void>();
	readonly #errorLimit = new RateLimit(ICMP_ERRORS_PER_SECOND, 1000);
	readonly #askLimit = new RateLimit(1, 1000);
	#guestMac: Mac | undefined;
	#isUp = false;
	#isClosed = false;
	#isCongested = false;
	#identification = 0;
	#onKnown: (() => void) | undefined;
	/** Segments without payload that wait for the MAC (RFC 1122 2.3.2.2). */
	readonly #unsent: [TcpSegment, Ipv4][] = [];

	constructor(link: FrameLink, mtu: number, counters: Counters, clock: Clock, guestAddress: () => Ipv4) {
		this.#link = link;
		this.#mtu = mtu;
		this.#counters = counters;
		this.#clock = clock;
		this.#guestAddress = guestAddress;
	}

	get guestAddress(): Ipv4 {
		return this.#guestAddress();
	}

	get guestMac(): Mac | undefined {
		return this.#guestMac;
	}

	/** The link holds more than it wants: producers wait. */
	get isCongested(): boolean {
		return this.#isCongested;
	}

	/** A frame of the guest was here, or the guest is known to have its network up: it may be spoken to. */
	guestIsUp(): void {
		if (this.#isUp) return;
		this.#isUp = true;
		if (this.#onKnown !== undefined || this.#unsent.length > 0) this.#askForGuest();
	}

	/** A valid frame of the guest's address came from `mac`. */
	learn(mac: Mac): void {
		if (mac === this.#guestMac) return;
		this.#guestMac = mac;
		for (const [segment, source] of this.#unsent.splice(0)) this.sendTcp(segment, source);
		const known = this.#onKnown;
		this.#onKnown = undefined;
		known?.();
	}

	/** Calls `known` once the guest's MAC is, which may be at once; asks for it. The last caller is called. */
	whenGuestKnown(known: () => void): void {
		if (this.#guestMac !== undefined) {
			known();
			return;
		}
		this.#onKnown = known;
		this.#askForGuest();
	}

	/** Calls `resume` when the link has drained; each function waits but once. */
	wait(resume: () => void): void {
		this.#waiting.add(resume);
	}

	forget(resume: () => void): void {
		this.#waiting.delete(resume);
	}

	/** Nothing is sent any more. */
	close(): void {
		this.#isClosed = true;
		this.#waiting.clear();
		this.#onKnown = undefined;
		this.#unsent.length = 0;
	}

	drained(): void {
		this.#isCongested = false;
		const resumed = [...this.#waiting];
		this.#waiting.clear();
		for (const resume of resumed) resume();
	}

	sendTcp(segment: TcpSegment, source: Ipv4): void {
		const mac = this.#guestMac;
		if (mac === undefined) {
			// Such as a forward's SYN to a guest that was just restored: it goes out as soon as the MAC is known.
			if (segment.payload.length === 0 && this.#unsent.length < MAX_UNSENT_SEGMENTS)
				this.#unsent.push([segment, source]);
			else this.#counters.guestUnknown += 1;
			this.#askForGuest();
			return;
		}
		this.#send(
			serializeTcpFrame({
				segment,
				source,
				destination: this.guestAddress,
				sourceMac: GATEWAY_MAC,
				destinationMac: mac,
				identification: this.#nextIdentification(),
			}),
		);
	}

	/** Datagrams can be lost: over a link that is full they are. */
	sendUdp(source: Ipv4, sourcePort: number, destinationPort: number, payload: Uint8Array): void {
		if (this.#isCongested) {
			this.#counters.linkFull += 1;
			return;
		}
		const datagram = { sourcePort, destinationPort, payload };
		this.sendIpv4(source, PROTOCOL_UDP, serializeUdpDatagram(datagram, source, this.guestAddress));
	}

	sendIcmp(source: Ipv4, message: Uint8Array): void {
		if (this.#isCongested) this.#counters.linkFull += 1;
		else this.sendIpv4(source, PROTOCOL_ICMP, message);
	}

	/** An ICMP error, at most so many per second (RFC 1812 4.3.2.8). */
	sendIcmpError(message: Uint8Array, source: Ipv4 = GATEWAY_ADDRESS): void {
		if (this.#errorLimit.allows(this.#clock.nowMs())) this.sendIcmp(source, message);
		else this.#counters.icmpErrorLimit += 1;
	}

	sendIpv4(source: Ipv4, protocol: number, payload: Uint8Array, delivery?: Delivery): void {
		const mac = delivery?.mac ?? this.#guestMac;
		if (mac === undefined) {
			this.#counters.guestUnknown += 1;
			this.#askForGuest();
			return;
		}
		const destination = delivery?.address ?? this.guestAddress;
		const identification = this.#nextIdentification();
		for (const piece of fragmentIpv4(payload, this.#mtu)) {
			const start = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES;
			const frame = new Uint8Array(start + piece.payload.length);
			writeEthernetHeader(frame, mac, GATEWAY_MAC, ETHERTYPE_IPV4);
			writeIpv4Header(frame, ETHERNET_HEADER_BYTES, {
				source,
				destination,
				protocol,
				payloadBytes: piece.payload.length,
				identification,
				moreFragments: piece.moreFragments,
				fragmentOffset: piece.fragmentOffset,
			});
			frame.set(piece.payload, start);
			this.#send(frame);
		}
	}

	sendArp(packet: ArpPacket, destination: Mac): void {
		const bytes = serializeArpPacket(packet);
		const frame = new Uint8Array(ETHERNET_HEADER_BYTES + bytes.length);
		writeEthernetHeader(frame, destination, GATEWAY_MAC, ETHERTYPE_ARP);
		frame.set(bytes, ETHERNET_HEADER_BYTES);
		this.#send(frame);
	}

	/** At most one request per second (RFC 1122 2.3.2.1). */
	#askForGuest(): void {
		if (!this.#isUp || !this.#askLimit.allows(this.#clock.nowMs())) return;
		this.sendArp(
			{
				operation: "request",
				senderMac: GATEWAY_MAC,
				senderAddress: GATEWAY_ADDRESS,
				targetMac: 0,
				targetAddress: this.guestAddress,
			},
			BROADCAST_MAC,
		);
	}

	#nextIdentification(): number {
		this.#identification = (this.#identification + 1) & 0xffff;
		return this.#identification;
	}

	#send(frame: Uint8Array): void {
		if (!this.#isUp || this.#isClosed) return;
		this.#counters.framesSent += 1;
		if (!this.#link.send(frame)) this.#isCongested = true;
	}
}

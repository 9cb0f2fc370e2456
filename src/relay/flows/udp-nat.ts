import { GATEWAY_ADDRESS, type Ipv4 } from "../addresses.js";
import type { GatedUdp } from "../egress/gated-udp.js";
import { DNS_IDLE_MS, MAX_UDP_MAPPINGS, MAX_UDP_PEERS, UDP_IDLE_MS, UDP_MAX_QUEUED_BYTES } from "../limits.js";
import type { NetworkContext } from "../network-context.js";
import { destinationUnreachable, ICMP_PORT_UNREACHABLE, quotable } from "../wire/icmp.js";
import type { Ipv4Packet } from "../wire/ipv4.js";
import type { UdpDatagram } from "../wire/udp.js";
import type { Waiting } from "./deadlines.js";
import { endpointKey } from "./flow-table.js";

const DNS_PORT = 53;

/**
 * UDP of one machine towards the world: a host socket for each port of the guest (endpoint-independent mapping, RFC 4787 4.1), and
 * one more for each port of the host's localhost that it speaks to.
 */
export class UdpNat {
	readonly #context: NetworkContext;
	readonly #mappings = new Map<number, Mapping>();

	constructor(context: NetworkContext) {
		this.#context = context;
	}

	get size(): number {
		return this.#mappings.size;
	}

	/** A datagram of the guest to anywhere but the relay's own services. */
	receive(packet: Ipv4Packet, datagram: UdpDatagram): void {
		const { sourcePort, destinationPort } = datagram;
		const localPort = packet.destination === GATEWAY_ADDRESS ? destinationPort : undefined;
		const key = localPort === undefined ? sourcePort : endpointKey(localPort + 1, sourcePort);
		const mapping = this.#mappings.get(key) ?? this.#createMapping(key, sourcePort, localPort);
		if (mapping === undefined || !mapping.fromGuest(packet, destinationPort, datagram.payload)) {
			this.#context.wire.sendIcmpError(destinationUnreachable(packet, ICMP_PORT_UNREACHABLE), packet.destination);
		}
	}

	close(): void {
		for (const mapping of [...this.#mappings.values()]) mapping.close();
	}

	#createMapping(key: number, guestPort: number, localPort: number | undefined): Mapping | undefined {
		const { counters, warn } = this.#context;
		if (this.#mappings.size >= MAX_UDP_MAPPINGS) {
			counters.udpMappingLimit += 1;
			warn(`the guest sends UDP from ${MAX_UDP_MAPPINGS} ports; more are refused`);
			return undefined;
		}
		const mapping = new Mapping(this.#context, { guestPort, localPort }, () => this.#mappings.delete(key));
		this.#mappings.set(key, mapping);
		return mapping;
	}
}

/** A destination of a mapping, which may answer. */
interface Peer {
	readonly address: Ipv4;
	readonly port: number;
	readonly rule: string;
	readonly name: string | undefined;
	readonly idleMs: number;
	activeMs: number;
	bytesOut: number;
	bytesIn: number;
	/** It has carried all that it may. */
	isSpent: boolean;
}

/** One port of the guest, with a host socket of its own and the destinations that it sends to. */
class Mapping implements Waiting {
	heapIndex = -1;
	heapMs = 0;
	readonly #context: NetworkContext;
	readonly #guestPort: number;
	readonly #onClose: () => void;
	readonly #socket: GatedUdp;
	/** The one that was sent to least lately comes first, to a second. */
	readonly #peers = new Map<number, Peer>();
	readonly #isLocal: boolean;
	/** The last one to the host's localhost, for an error about it. */
	#lastPacket: Ipv4Packet | undefined;
	#dueMs: number | undefined;
	#isClosed = false;

	constructor(
		context: NetworkContext,
		{ guestPort, localPort }: { readonly guestPort: number; readonly localPort: number | undefined },
		onClose: () => void,
	) {
		this.#context = context;
		this.#guestPort = guestPort;
		this.#isLocal = localPort !== undefined;
		this.#onClose = onClose;
		const events = {
			message: (bytes: Uint8Array, address: Ipv4, port: number) => this.#fromHost(bytes, address, port),
			refused: () => this.#refused(),
			failed: (reason: string) => {
				context.counters.failedUdp += 1;
				context.warn(`a UDP socket of the host failed: ${reason}`);
				this.close();
			},
		};
		this.#socket = context.gate.openUdp(events, localPort);
	}

	/** False: the destination is closed to the guest. */
	fromGuest(packet: Ipv4Packet, port: number, payload: Uint8Array): boolean {
		const { destination: address } = packet;
		const { clock, counters, fromGuest } = this.#context;
		const key = endpointKey(address, port);
		const nowMs = clock.nowMs();
		const peer = this.#peers.get(key) ?? this.#admit(key, address, port, nowMs);
		if (peer === undefined) {
			if (this.#peers.size === 0) this.close();
			return false;
		}
		this.#refresh(key, peer, nowMs);
		if (peer.isSpent) {
			counters.overQuota += 1;
		} else if (fromGuest !== undefined && !fromGuest.tryTake(payload.length)) {
			counters.overBandwidth += 1;
		} else if (this.#socket.queuedBytes > UDP_MAX_QUEUED_BYTES) {
			counters.failedUdp += 1;
		} else if (this.#count(peer, payload.length)) {
			peer.bytesOut += payload.length;
			if (this.#isLocal) this.#lastPacket = quotable(packet);
			// The datagram outlives the frame in the host's queue: it must not keep a whole batch of frames alive.
			if (!this.#socket.send(payload.slice(), address, port)) counters.failedUdp += 1;
		}
		return true;
	}

	deadlineMs(): number | undefined {
		return this.#dueMs;
	}

	/** Forgets the peers that have been idle, and looks when the next one may be. */
	expire(nowMs: number): void {
		this.#dueMs = undefined;
		for (const [key, peer] of this.#peers) {
			const dueMs = peer.activeMs + peer.idleMs;
			if (dueMs <= nowMs) this.#release(key, peer);
			else this.#dueMs = Math.min(this.#dueMs ?? dueMs, dueMs);
		}
		if (this.#peers.size === 0) this.close();
	}

	close(): void {
		if (this.#isClosed) return;
		this.#isClosed = true;
		for (const [key, peer] of this.#peers) this.#release(key, peer);
		this.#dueMs = undefined;
		this.#socket.close();
		this.#context.deadlines.remove(this);
		this.#onClose();
	}

	#admit(key: number, address: Ipv4, port: number, nowMs: number): Peer | undefined {
		const { counters, deadlines } = this.#context;
		const verdict = this.#socket.admit(address, port);
		if (!verdict.allowed) {
			counters.deniedUdp += 1;
			this.#context.recordRefused("udp", address, port, verdict);
			return undefined;
		}
		if (this.#peers.size >= MAX_UDP_PEERS) {
			counters.udpPeerLimit += 1;
			for (const [oldestKey, oldest] of this.#peers) {
				this.#release(oldestKey, oldest);
				break;
			}
		}
		const peer: Peer = {
			address,
			port,
			rule: verdict.rule,
			name: verdict.name,
			idleMs: port === DNS_PORT ? DNS_IDLE_MS : UDP_IDLE_MS,
			activeMs: nowMs,
			bytesOut: 0,
			bytesIn: 0,
			isSpent: false,
		};
		this.#peers.set(key, peer);
		this.#dueMs = Math.min(this.#dueMs ?? Number.POSITIVE_INFINITY, nowMs + peer.idleMs);
		deadlines.update(this);
		return peer;
	}

	#fromHost(bytes: Uint8Array, address: Ipv4, port: number): void {
		const { clock, counters, toGuest, wire } = this.#context;
		const peer = this.#peers.get(endpointKey(address, port));
		if (peer === undefined) {
			counters.unexpectedUdp += 1;
			return;
		}
		peer.activeMs = clock.nowMs();
		if (peer.isSpent) {
			counters.overQuota += 1;
		} else if (toGuest !== undefined && !toGuest.tryTake(bytes.length)) {
			counters.overBandwidth += 1;
		} else if (this.#count(peer, bytes.length)) {
			peer.bytesIn += bytes.length;
			wire.sendUdp(address, port, this.#guestPort, bytes);
		}
	}

	/** Nobody listens on the host's localhost: the guest's program learns it as it would on its own. */
	#refused(): void {
		const packet = this.#lastPacket;
		this.#lastPacket = undefined;
		if (packet === undefined) return;
		this.#context.wire.sendIcmpError(destinationUnreachable(packet, ICMP_PORT_UNREACHABLE), packet.destination);
	}

	/** Keeps the order of the peers, by no more than one move per second each. */
	#refresh(key: number, peer: Peer, nowMs: number): void {
		if (nowMs - peer.activeMs >= 1000) {
			this.#peers.delete(key);
			this.#peers.set(key, peer);
		}
		peer.activeMs = nowMs;
	}

	/** False: the peer or the machine has used up what it may carry. */
	#count(peer: Peer, bytes: number): boolean {
		const { counters, maxFlowBytes, quota } = this.#context;
		if (peer.bytesOut + peer.bytesIn + bytes <= maxFlowBytes && quota.take(bytes)) return true;
		counters.overQuota += 1;
		peer.isSpent = true;
		return false;
	}

	#release(key: number, peer: Peer): void {
		const { address, port, name, rule, bytesOut, bytesIn, isSpent } = peer;
		this.#peers.delete(key);
		this.#socket.release(address, port);
		this.#context.record({
			protocol: "udp",
			name,
			address,
			port,
			verdict: isSpent ? "refused" : "allowed",
			rule: isSpent ? "limit (bytes)" : rule,
			bytesOut,
			bytesIn,
		});
	}
}

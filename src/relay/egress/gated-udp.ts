import type { RemoteInfo, Socket } from "node:dgram";
import { GATEWAY_ADDRESS, type Ipv4 } from "../addresses.js";
import { formatIpv4Address, parseIpv4Address } from "../wire/address.js";
import type { Policy, Verdict } from "./policy.js";

const LOOPBACK: Ipv4 = 0x7f000001;

export interface GatedUdpEvents {
	/** A datagram of an admitted peer; the bytes belong to the receiver. The host's localhost speaks as 10.0.2.2. */
	message(bytes: Uint8Array, address: Ipv4, port: number): void;
	/** The socket is of no more use (no port could be had, for one). */
	failed(reason: string): void;
}

/** A UDP socket of the host that speaks with admitted peers only, and hears them only. Bound at the first admission. */
export class GatedUdp {
	readonly #policy: Policy;
	readonly #bind: () => Socket;
	readonly #events: GatedUdpEvents;
	/** By the peer's key: the address to send to. */
	readonly #peers = new Map<number, string>();
	#socket: Socket | undefined;
	#closed = false;

	constructor(policy: Policy, bind: () => Socket, events: GatedUdpEvents) {
		this.#policy = policy;
		this.#bind = bind;
		this.#events = events;
	}

	/** Decides on a peer. Allowed: it may be sent to and heard until it is released. */
	admit(address: Ipv4, port: number): Verdict {
		const verdict = this.#closed ? CLOSED : this.#policy.decide({ protocol: "udp", address, port });
		if (verdict.allowed) {
			this.#open();
			this.#peers.set(peerKey(address, port), address === GATEWAY_ADDRESS ? "127.0.0.1" : formatIpv4Address(address));
		}
		return verdict;
	}

	/** Sends to an admitted peer; false: it is none. The bytes must not change any more. */
	send(bytes: Uint8Array, address: Ipv4, port: number): boolean {
		const target = this.#peers.get(peerKey(address, port));
		if (target === undefined || this.#socket === undefined) return false;
		// A datagram that the host does not take is lost, as datagrams are.
		this.#socket.send(bytes, port, target, ignore);
		return true;
	}

	/** Bytes that wait in the host's socket. */
	get queuedBytes(): number {
		return this.#socket?.getSendQueueSize() ?? 0;
	}

	/** Ends an admission. */
	release(address: Ipv4, port: number): void {
		this.#peers.delete(peerKey(address, port));
	}

	close(): void {
		this.#closed = true;
		this.#peers.clear();
		this.#socket?.close();
		this.#socket = undefined;
	}

	#open(): void {
		if (this.#socket !== undefined) return;
		const socket = this.#bind();
		this.#socket = socket;
		socket.on("message", (bytes: Buffer, from: RemoteInfo) => this.#receive(bytes, from));
		socket.on("error", (error: NodeJS.ErrnoException) => {
			if (this.#closed) return;
			this.close();
			this.#events.failed(error.code ?? error.message);
		});
	}

	#receive(bytes: Buffer, from: RemoteInfo): void {
		const source = parseIpv4Address(from.address);
		if (this.#closed || source === undefined) return;
		const address = source === LOOPBACK ? GATEWAY_ADDRESS : source;
		if (this.#peers.has(peerKey(address, from.port))) this.#events.message(bytes, address, from.port);
	}
}

const CLOSED: Verdict = { allowed: false, rule: "closed", reason: "the socket is closed", name: undefined };

function ignore(): void {}

/** Address and port as one number of 48 bits. */
function peerKey(address: Ipv4, port: number): number {
	return address * 0x10000 + port;
}

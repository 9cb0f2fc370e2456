import type { RemoteInfo, Socket } from "node:dgram";
import { errnoOf } from "../../errors.js";
import { GATEWAY_ADDRESS, type Ipv4 } from "../addresses.js";
import { formatIpv4Address, parseIpv4Address } from "../wire/address.js";
import type { Policy, Verdict } from "./policy.js";

export interface GatedUdpEvents {
	/** A datagram of an admitted peer; the bytes belong to the receiver. The host's localhost speaks as 10.0.2.2. */
	message(bytes: Uint8Array, address: Ipv4, port: number): void;
	/** Nobody listens on the localhost's port that was sent to; the socket stays of use. */
	refused(): void;
	/** The socket is of no more use (no port could be had, for one). */
	failed(reason: string): void;
}

export interface UdpRoute {
	readonly policy: Policy;
	/** The host's socket, made at the first admission. */
	readonly open: () => Socket;
	/** The socket is connected to this port of the host's localhost, and to nothing else. */
	readonly localPort: number | undefined;
}

/** A UDP socket of the host that speaks with admitted peers only, and hears them only. */
export class GatedUdp {
	readonly #route: UdpRoute;
	readonly #events: GatedUdpEvents;
	/** By the peer's key: the address to send to. */
	readonly #peers = new Map<number, string>();
	#socket: Socket | undefined;
	#closed = false;

	constructor(route: UdpRoute, events: GatedUdpEvents) {
		this.#route = route;
		this.#events = events;
	}

	/** Decides on a peer. Allowed: it may be sent to and heard until it is released. */
	admit(address: Ipv4, port: number): Verdict {
		const { localPort, policy } = this.#route;
		const isReachable = localPort === undefined ? address !== GATEWAY_ADDRESS : isLocal(address, port, localPort);
		const verdict = policy.decide({ protocol: "udp", address, port });
		if (!verdict.allowed) return verdict;
		if (this.#closed || !isReachable) return CLOSED;
		this.#open();
		this.#peers.set(peerKey(address, port), formatIpv4Address(address));
		return verdict;
	}

	/** Sends to an admitted peer; false: it is none. The bytes must not change any more. */
	send(bytes: Uint8Array, address: Ipv4, port: number): boolean {
		const target = this.#peers.get(peerKey(address, port));
		if (target === undefined || this.#socket === undefined) return false;
		// A datagram that the host does not take is lost, as datagrams are.
		if (this.#route.localPort === undefined) this.#socket.send(bytes, port, target, ignore);
		else this.#socket.send(bytes, this.#sent);
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
		const socket = this.#route.open();
		this.#socket = socket;
		socket.on("message", (bytes: Buffer, from: RemoteInfo) => this.#receive(bytes, from));
		socket.on("error", (error: NodeJS.ErrnoException) => {
			if (this.#closed) return;
			if (isRefusal(error) && this.#route.localPort !== undefined) {
				this.#events.refused();
				return;
			}
			this.close();
			this.#events.failed(error.code ?? error.message);
		});
	}

	/** The system tells of a refusal with whatever is done next on the socket. */
	readonly #sent = (error: Error | null): void => {
		if (error !== null && isRefusal(error) && !this.#closed) this.#events.refused();
	};

	#receive(bytes: Buffer, from: RemoteInfo): void {
		const address = this.#route.localPort === undefined ? parseIpv4Address(from.address) : GATEWAY_ADDRESS;
		if (this.#closed || address === undefined) return;
		if (this.#peers.has(peerKey(address, from.port))) this.#events.message(bytes, address, from.port);
	}
}

const CLOSED: Verdict = { allowed: false, rule: "closed", reason: "the socket is closed", name: undefined };

function ignore(): void {}

function isLocal(address: Ipv4, port: number, localPort: number): boolean {
	return address === GATEWAY_ADDRESS && port === localPort;
}

/** ICMP port unreachable, as systems report it: Windows takes it for a reset. */
function isRefusal(error: Error): boolean {
	const errno = errnoOf(error);
	return errno === "ECONNREFUSED" || errno === "ECONNRESET";
}

/** Address and port as one number of 48 bits. */
function peerKey(address: Ipv4, port: number): number {
	return address * 0x10000 + port;
}

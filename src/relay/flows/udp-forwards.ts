import type { RemoteInfo, Socket } from "node:dgram";
import { GATEWAY_ADDRESS, type Ipv4 } from "../addresses.js";
import type { Bandwidth } from "../bandwidth.js";
import { MAX_UDP_FORWARD_CLIENTS, UDP_IDLE_MS } from "../limits.js";
import type { NetworkContext } from "../network-context.js";
import type { Waiting } from "./deadlines.js";
import { EphemeralPorts } from "./ephemeral-ports.js";
import { type FlowKey, FlowTable } from "./flow-table.js";

/** Datagrams of one client that wait for the machine to wake; more are dropped. */
const MAX_WAITING = 16;

export interface UdpForwardPort {
	close(): void;
}

/** UDP forwards: each client on the host has a port of the gateway's in the guest's eyes. */
export class UdpForwards {
	readonly #context: NetworkContext;
	readonly #clients = new FlowTable<Client>();
	readonly #ports = new EphemeralPorts();

	constructor(context: NetworkContext) {
		this.#context = context;
	}

	get size(): number {
		return this.#clients.size;
	}

	/** Serves what arrives on `socket`, which is bound, and now belongs to the forward. */
	open(socket: Socket, guestPort: number): UdpForwardPort {
		const own = new Map<string, Client>();
		socket.on("message", (payload, from) => {
			const name = `${from.address}:${from.port}`;
			let client = own.get(name);
			if (client === undefined) {
				client = this.#admit(socket, guestPort, from, () => own.delete(name));
				if (client === undefined) return;
				own.set(name, client);
			}
			client.fromHost(payload);
		});
		return {
			close: () => {
				for (const client of [...own.values()]) client.end();
				socket.close();
			},
		};
	}

	/** A datagram of the guest to the gateway; false: no client has this port. */
	fromGuest(guestPort: number, gatewayPort: number, payload: Uint8Array): boolean {
		const client = this.#clients.get(guestPort, GATEWAY_ADDRESS, gatewayPort);
		client?.fromGuest(payload);
		return client !== undefined;
	}

	#admit(socket: Socket, guestPort: number, from: RemoteInfo, onEnd: () => void): Client | undefined {
		const { counters } = this.#context;
		const isTaken = (port: number) => this.#clients.get(guestPort, GATEWAY_ADDRESS, port) !== undefined;
		const remotePort = this.#clients.size < MAX_UDP_FORWARD_CLIENTS ? this.#ports.take(isTaken) : undefined;
		if (remotePort === undefined) {
			counters.udpPeerLimit += 1;
			return undefined;
		}
		const client: Client = new Client(this.#context, { socket, from, guestPort, remotePort }, () => {
			this.#clients.delete(client);
			onEnd();
		});
		this.#clients.add(client);
		return client;
	}
}

/** One client of a forward; a live inbound flow until it has been idle. */
class Client implements FlowKey, Waiting {
	readonly guestPort: number;
	readonly remoteAddress: Ipv4 = GATEWAY_ADDRESS;
	readonly remotePort: number;
	heapIndex = -1;
	heapMs = 0;
	readonly #context: NetworkContext;
	readonly #socket: Socket;
	readonly #from: RemoteInfo;
	readonly #onEnd: () => void;
	readonly #waiting: Uint8Array[] = [];
	#isAwake = false;
	#isEnded = false;
	#activeMs: number;
	#bytesIn = 0;
	#bytesOut = 0;
	/** The limit that it has come to. */
	#spent: string | undefined;

	constructor(
		context: NetworkContext,
		flow: {
			readonly socket: Socket;
			readonly from: RemoteInfo;
			readonly guestPort: number;
			readonly remotePort: number;
		},
		onEnd: () => void,
	) {
		this.#context = context;
		this.#socket = flow.socket;
		this.#from = flow.from;
		this.guestPort = flow.guestPort;
		this.remotePort = flow.remotePort;
		this.#onEnd = onEnd;
		this.#activeMs = context.clock.nowMs();
		context.deadlines.update(this);
		context.inbound.enter(this.guestPort).then(
			() => this.#awake(),
			() => this.end(),
		);
	}

	fromHost(payload: Uint8Array): void {
		if (this.#isEnded) return;
		this.#activeMs = this.#context.clock.nowMs();
		if (this.#isAwake) this.#toGuest(payload);
		else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(payload);
	}

	fromGuest(payload: Uint8Array): void {
		this.#activeMs = this.#context.clock.nowMs();
		if (!this.#mayCarry(this.#context.fromGuest, payload.length)) return;
		this.#bytesOut += payload.length;
		this.#socket.send(payload, this.#from.port, this.#from.address, (error) => {
			if (error !== null) this.#context.counters.failedUdp += 1;
		});
	}

	end(): void {
		if (this.#isEnded) return;
		this.#isEnded = true;
		this.#waiting.length = 0;
		this.#context.deadlines.remove(this);
		this.#onEnd();
		this.#context.record({
			protocol: "udp",
			name: undefined,
			address: GATEWAY_ADDRESS,
			port: this.guestPort,
			verdict: this.#spent === undefined ? "allowed" : "refused",
			rule: this.#spent ?? "forward",
			bytesOut: this.#bytesOut,
			bytesIn: this.#bytesIn,
		});
		this.#context.inbound.leave();
	}

	deadlineMs(): number | undefined {
		return this.#isEnded ? undefined : this.#activeMs + UDP_IDLE_MS;
	}

	expire(): void {
		this.end();
	}

	#awake(): void {
		this.#isAwake = true;
		for (const payload of this.#waiting.splice(0)) this.#toGuest(payload);
	}

	#toGuest(payload: Uint8Array): void {
		if (!this.#mayCarry(this.#context.toGuest, payload.length)) return;
		this.#bytesIn += payload.length;
		this.#context.wire.sendUdp(GATEWAY_ADDRESS, this.remotePort, this.guestPort, payload);
	}

	#mayCarry(bandwidth: Bandwidth | undefined, bytes: number): boolean {
		const { counters, maxFlowBytes, quota } = this.#context;
		if (bandwidth !== undefined && !bandwidth.tryTake(bytes)) {
			counters.overBandwidth += 1;
			return false;
		}
		const withinFlow = this.#bytesIn + this.#bytesOut + bytes <= maxFlowBytes;
		if (this.#spent === undefined && withinFlow && quota.take(bytes)) return true;
		counters.overQuota += 1;
		this.#spent ??= withinFlow ? "limit (bytes of the machine)" : "limit (bytes of the flow)";
		return false;
	}
}

import type { Socket as UdpSocket } from "node:dgram";
import { EventEmitter } from "node:events";
import { Socket } from "node:net";
import { GATEWAY_ADDRESS, type Ipv4 } from "../../../../src/relay/addresses.js";
import { EgressGate } from "../../../../src/relay/egress/gate.js";
import type { HostSockets } from "../../../../src/relay/egress/host-sockets.js";
import { NameTable } from "../../../../src/relay/egress/name-table.js";
import { createPolicy, type Policy } from "../../../../src/relay/egress/policy.js";
import { parseRule } from "../../../../src/relay/egress/rule.js";
import { parseIpv4Address } from "../../../../src/relay/wire/address.js";
import { VirtualClock } from "../virtual-clock.js";

export function ipv4(text: string): Ipv4 {
	const address = parseIpv4Address(text);
	if (address === undefined) throw new Error(`${text} is not an address`);
	return address;
}

/** Host sockets that reach nobody and remember what they were asked for: "tcp 192.0.2.1:80", "localhost:80". */
export class RecordingSockets implements HostSockets {
	readonly asked: string[] = [];
	readonly udp: RecordingUdp[] = [];

	connectTcp(address: string, port: number): Socket {
		this.asked.push(`tcp ${address}:${port}`);
		return new Socket();
	}

	connectLocalhost(port: number): Socket {
		this.asked.push(`localhost:${port}`);
		return new Socket();
	}

	bindUdp(): UdpSocket {
		const socket = new RecordingUdp(this.asked);
		this.udp.push(socket);
		return socket as unknown as UdpSocket;
	}

	connectLocalUdp(port: number): UdpSocket {
		const socket = new RecordingUdp(this.asked, port);
		this.udp.push(socket);
		return socket as unknown as UdpSocket;
	}

	ping(address: string): Promise<{ kind: "reply" }> {
		this.asked.push(`ping ${address}`);
		return Promise.resolve({ kind: "reply" });
	}
}

export class RecordingUdp extends EventEmitter {
	isClosed = false;
	readonly #asked: string[];

	constructor(
		asked: string[],
		readonly localPort?: number,
	) {
		super();
		this.#asked = asked;
	}

	send(_bytes: Uint8Array, port: unknown, address: unknown): void {
		this.#asked.push(this.localPort === undefined ? `udp ${address}:${port}` : `udp 127.0.0.1:${this.localPort}`);
	}

	getSendQueueSize(): number {
		return 0;
	}

	close(): void {
		this.isClosed = true;
	}
}

export interface Rules {
	readonly allow?: readonly string[];
	readonly deny?: readonly string[];
	readonly hostPorts?: readonly number[];
	readonly hostAddresses?: readonly string[];
}

export interface GateParts {
	readonly gate: EgressGate;
	readonly policy: Policy;
	readonly names: NameTable;
	readonly clock: VirtualClock;
	readonly sockets: RecordingSockets;
}

/** A gate with these rules, in front of recording sockets. */
export function createGate({ allow = [], deny = [], hostPorts = [], hostAddresses = [] }: Rules = {}): GateParts {
	const clock = new VirtualClock();
	const names = new NameTable(clock);
	const own = new Set(hostAddresses.map(ipv4));
	const policy = createPolicy({
		allow: allow.map(parseRule),
		deny: deny.map(parseRule),
		hostPorts: new Set(hostPorts),
		hostAddresses: () => own,
		names,
	});
	const sockets = new RecordingSockets();
	return { gate: new EgressGate(policy, sockets), policy, names, clock, sockets };
}

/** Asks the gate by every protocol; what came through to the host's sockets. */
export function tryEverything({ gate, sockets }: GateParts, address: Ipv4, port: number): string[] {
	const before = sockets.asked.length;
	gate.connectTcp(address, port);
	const udp = gate.openUdp({ message() {}, refused() {}, failed() {} }, address === GATEWAY_ADDRESS ? port : undefined);
	udp.admit(address, port);
	udp.send(new Uint8Array(1), address, port);
	udp.close();
	gate.ping(address);
	return sockets.asked.slice(before);
}

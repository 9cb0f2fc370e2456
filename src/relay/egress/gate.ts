import type { Socket as UdpSocket } from "node:dgram";
import type { Socket } from "node:net";
import { GATEWAY_ADDRESS, type Ipv4 } from "../addresses.js";
import { formatIpv4Address } from "../wire/address.js";
import { GatedUdp, type GatedUdpEvents } from "./gated-udp.js";
import type { HostSockets } from "./host-sockets.js";
import { NameCheck } from "./name-check.js";
import type { PingOutcome } from "./ping.js";
import type { Allowed, Policy, Refused } from "./policy.js";

export type TcpOpening =
	| {
			readonly verdict: Allowed;
			/** Connecting; half-open ends allowed, Nagle's delay off. */
			readonly socket: Socket;
			/** If there: the guest's bytes are held back until it lets them pass. What the host sends goes on. */
			readonly nameCheck: NameCheck | undefined;
	  }
	| { readonly verdict: Refused };

export type PingOpening =
	| { readonly verdict: Allowed; readonly outcome: Promise<PingOutcome> }
	| { readonly verdict: Refused };

/**
 * The one gate in front of every host socket: it decides on the exact address that is then connected, and is the only
 * caller of HostSockets.
 */
export class EgressGate {
	readonly #policy: Policy;
	readonly #sockets: HostSockets;

	constructor(policy: Policy, sockets: HostSockets) {
		this.#policy = policy;
		this.#sockets = sockets;
	}

	/** 10.0.2.2 stands for the host's localhost. */
	connectTcp(address: Ipv4, port: number): TcpOpening {
		const request = { protocol: "tcp", address, port } as const;
		const verdict = this.#policy.decide(request);
		if (!verdict.allowed) return { verdict };
		const socket =
			address === GATEWAY_ADDRESS
				? this.#sockets.connectLocalhost(port)
				: this.#sockets.connectTcp(formatIpv4Address(address), port);
		return { verdict, socket, nameCheck: verdict.checkNames ? new NameCheck(this.#policy, request) : undefined };
	}

	/** One host socket for datagrams; each peer is decided on when it is admitted. `localPort`: for 10.0.2.2:`localPort` alone. */
	openUdp(events: GatedUdpEvents, localPort?: number): GatedUdp {
		const open = (): UdpSocket =>
			localPort === undefined ? this.#sockets.bindUdp() : this.#sockets.connectLocalUdp(localPort);
		return new GatedUdp({ policy: this.#policy, open, localPort }, events);
	}

	ping(address: Ipv4): PingOpening {
		const verdict = this.#policy.decide({ protocol: "icmp", address, port: 0 });
		if (!verdict.allowed) return { verdict };
		return { verdict, outcome: this.#sockets.ping(formatIpv4Address(address)) };
	}

	/** Whether datagrams and connections to this port of any address belong to the relay's own resolver. */
	isDnsRedirected(port: number): boolean {
		return this.#policy.isDnsRedirected(port);
	}
}

import type { Socket } from "node:net";
import type { Ipv4 } from "../addresses.js";
import { DNS_IDLE_MS, DNS_TCP_BUFFER_BYTES, MAX_OPEN_FLOWS, MAX_TCP_FLOWS } from "../limits.js";
import { isOwnAddress, type NetworkContext } from "../network-context.js";
import { parseIpv4Address } from "../wire/address.js";
import { quotable } from "../wire/icmp.js";
import type { Ipv4Packet } from "../wire/ipv4.js";
import { NO_TCP_OPTIONS, TCP_ACK, TCP_RST, TCP_SYN, type TcpSegment } from "../wire/tcp.js";
import { type AnswerDns, DnsEnd } from "./dns-end.js";
import type { FlowKey } from "./flow-table.js";
import { NameCheckedEnd } from "./name-checked-end.js";
import { listOpenFlows, type OpenFlow } from "./open-flow.js";
import { SocketEnd } from "./socket-end.js";
import { rstForStray } from "./stray-segment.js";
import { type Standing, TcpFlows } from "./tcp-flows.js";

const DNS_PORT = 53;
const NO_BYTES = new Uint8Array(0);

/** TCP of one machine: decides where a segment of the guest, or a client of a forward, leads. */
export class TcpNat {
	readonly #context: NetworkContext;
	readonly #answerDns: AnswerDns;
	readonly #flows: TcpFlows;
	/** Clients of forwards that wait for the machine to wake. */
	readonly #knocking = new Set<Socket>();

	constructor(context: NetworkContext, answerDns: AnswerDns) {
		this.#context = context;
		this.#answerDns = answerDns;
		this.#flows = new TcpFlows(context);
	}

	get size(): number {
		return this.#flows.size;
	}

	/** A segment of the guest. Call endBatch() once no more are at hand. */
	receive(packet: Ipv4Packet, segment: TcpSegment): void {
		const flow = this.#flows.get(segment.sourcePort, packet.destination, segment.destinationPort);
		const opens = (segment.flags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN;
		if (flow === undefined) {
			if (opens) this.#open(packet, segment, undefined);
			else this.#answerStray(packet.destination, segment);
		} else if (opens && flow.connection.canBeReplacedBy(segment)) {
			const { lastSequence } = flow.connection;
			flow.connection.abort();
			this.#open(packet, segment, lastSequence);
		} else {
			flow.receive(segment);
		}
	}

	/** The frames at hand have all been received. */
	endBatch(): void {
		this.#flows.endBatch();
	}

	/** A client of a forward, paused: opens a flow to the guest's port once the machine is awake. */
	acceptForward(socket: Socket, guestPort: number): void {
		socket.on("error", () => {});
		if (this.#knocking.size >= MAX_TCP_FLOWS) {
			socket.resetAndDestroy();
			return;
		}
		const { inbound } = this.#context;
		const leave = (): void => inbound.leave();
		const refuse = (): void => {
			this.#knocking.delete(socket);
			socket.resetAndDestroy();
			leave();
		};
		this.#knocking.add(socket);
		inbound.enter(guestPort).then(() => {
			this.#knocking.delete(socket);
			if (socket.destroyed || !this.#flows.startInbound(socket, guestPort, leave)) refuse();
		}, refuse);
	}

	openFlows(): OpenFlow[] {
		return listOpenFlows(this.#flows.live());
	}

	/**
	 * Forgets every flow without a word to the guest, and prods it about those of its past: an ACK out of the blue makes it
	 * answer with its own numbers (RFC 9293 3.10.7.4), to which the answer is a RST that fits.
	 */
	abandon(past: readonly OpenFlow[]): void {
		this.#flows.dropAll();
		const prods: FlowKey[] = [];
		for (const { guestPort, remoteAddress, remotePort } of past.slice(0, MAX_OPEN_FLOWS)) {
			const address = parseIpv4Address(remoteAddress);
			if (address !== undefined) prods.push({ guestPort, remoteAddress: address, remotePort });
		}
		if (prods.length === 0) return;
		this.#context.wire.whenGuestKnown(() => {
			for (const { guestPort, remoteAddress, remotePort } of prods) {
				if (this.#flows.get(guestPort, remoteAddress, remotePort) !== undefined) continue;
				const sequence = this.#flows.initialSequence(remoteAddress, remotePort, guestPort);
				this.#context.wire.sendTcp(
					{
						sourcePort: remotePort,
						destinationPort: guestPort,
						sequence,
						acknowledgment: sequence,
						flags: TCP_ACK,
						window: 0,
						options: NO_TCP_OPTIONS,
						payload: NO_BYTES,
					},
					remoteAddress,
				);
			}
		});
	}

	close(): void {
		this.#flows.dropAll();
		for (const socket of this.#knocking) socket.destroy();
	}

	/** The guest's SYN. `lastSequence`: of the connection in TIME-WAIT that it replaces. */
	#open(packet: Ipv4Packet, syn: TcpSegment, lastSequence: number | undefined): void {
		const { gate, counters } = this.#context;
		const { destinationPort: port } = syn;
		if (!this.#flows.hasRoom()) {
			this.#answerStray(packet.destination, syn);
			return;
		}
		if (port === DNS_PORT && (isOwnAddress(packet.destination) || gate.isDnsRedirected(port))) {
			const standing = { rule: "dns", name: undefined };
			const flow = this.#flows.start(
				packet.destination,
				syn,
				standing,
				lastSequence,
				DNS_TCP_BUFFER_BYTES,
				DNS_IDLE_MS,
			);
			flow.join(new DnsEnd(this.#answerDns, flow));
			flow.farReady();
			return;
		}
		const opening = gate.connectTcp(packet.destination, port);
		if (!("socket" in opening)) {
			counters.deniedTcp += 1;
			this.#context.recordRefused("tcp", packet.destination, port, opening.verdict);
			this.#answerStray(packet.destination, syn);
			return;
		}
		const { socket, verdict, nameCheck } = opening;
		const standing: Standing = { rule: verdict.rule, name: verdict.name, synPacket: quotable(packet) };
		const flow = this.#flows.start(packet.destination, syn, standing, lastSequence, this.#flows.bufferBytes());
		socket.once("connect", () => {
			standing.synPacket = undefined;
			flow.farReady();
		});
		const far = new SocketEnd(socket, flow);
		if (nameCheck === undefined) {
			flow.join(far);
			return;
		}
		flow.join(
			new NameCheckedEnd(far, nameCheck, {
				passed: (name) => {
					standing.name = name ?? standing.name;
				},
				refused: (rule, name) => {
					standing.name = name ?? standing.name;
					flow.abort("denied", rule);
				},
			}),
		);
	}

	#answerStray(remoteAddress: Ipv4, segment: TcpSegment): void {
		this.#context.counters.strayTcp += 1;
		const answer = rstForStray(segment);
		if (answer !== undefined) this.#context.wire.sendTcp(answer, remoteAddress);
	}
}

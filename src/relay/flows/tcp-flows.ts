import type { Socket } from "node:net";
import { GATEWAY_ADDRESS, type Ipv4 } from "../addresses.js";
import {
	MAX_HALF_OPEN_TCP_FLOWS,
	MAX_TCP_FLOWS,
	TCP_BUFFERS_BYTES,
	TCP_FLOW_BUFFER_BYTES,
	TCP_FLOW_MIN_BUFFER_BYTES,
} from "../limits.js";
import type { NetworkContext } from "../network-context.js";
import { destinationUnreachable, ICMP_HOST_UNREACHABLE } from "../wire/icmp.js";
import type { Ipv4Packet } from "../wire/ipv4.js";
import type { TcpSegment } from "../wire/tcp.js";
import { EphemeralPorts } from "./ephemeral-ports.js";
import { FlowTable } from "./flow-table.js";
import { InitialSequence } from "./initial-sequence.js";
import { SocketEnd } from "./socket-end.js";
import { TcpConnection, type TcpConnectionOptions } from "./tcp-connection.js";
import { TcpFlow, type TcpFlowContext, type TcpFlowEnd } from "./tcp-flow.js";

/** The rule that a flow stands under, for its line in the audit log. */
export interface Standing {
	readonly rule: string;
	name: string | undefined;
	/** What an ICMP error about the guest's SYN quotes, until the host has answered. */
	synPacket?: Ipv4Packet | undefined;
	/** The guest is no more needed for the flow: called once, in TIME-WAIT or at the end. */
	onQuiet?: (() => void) | undefined;
}

/** From a replaced connection's last number to the next one's first. */
const SEQUENCE_STEP = 250_000;

/** All TCP flows of one machine: their number, their buffers, and their lines in the audit log. */
export class TcpFlows implements TcpFlowContext {
	readonly clock: TcpFlowContext["clock"];
	readonly wire: TcpFlowContext["wire"];
	readonly deadlines: TcpFlowContext["deadlines"];
	readonly toGuest: TcpFlowContext["toGuest"];
	readonly fromGuest: TcpFlowContext["fromGuest"];
	readonly quota: TcpFlowContext["quota"];
	readonly maxFlowBytes: number;
	readonly #context: NetworkContext;
	readonly #nowMs: () => number;
	readonly #sequences: InitialSequence;
	readonly #ports = new EphemeralPorts();
	readonly #flows = new FlowTable<TcpFlow>();
	/** Everything that is not gone: the flows, and those that linger on the host. */
	readonly #standing = new Map<TcpFlow, Standing>();
	#halfOpen = 0;
	#touched: TcpFlow[] = [];

	constructor(context: NetworkContext) {
		this.#context = context;
		this.#nowMs = () => context.clock.nowMs();
		this.#sequences = new InitialSequence(context.clock);
		this.clock = context.clock;
		this.wire = context.wire;
		this.deadlines = context.deadlines;
		this.toGuest = context.toGuest;
		this.fromGuest = context.fromGuest;
		this.quota = context.quota;
		this.maxFlowBytes = context.maxFlowBytes;
	}

	/** Flows, and sockets that still have something to write. */
	get size(): number {
		return this.#standing.size;
	}

	get(guestPort: number, remoteAddress: Ipv4, remotePort: number): TcpFlow | undefined {
		return this.#flows.get(guestPort, remoteAddress, remotePort);
	}

	/** Those of which the guest's side isn't over. */
	*live(): Generator<TcpFlow> {
		for (const flow of this.#flows.values()) if (flow.isLive) yield flow;
	}

	/** The frames at hand have all been received. */
	endBatch(): void {
		if (this.#touched.length === 0) return;
		const touched = this.#touched;
		this.#touched = [];
		for (const flow of touched) flow.endBatch();
	}

	/** Whether one more may be opened; a refusal is counted and logged. */
	hasRoom(): boolean {
		const { counters, warn } = this.#context;
		if (this.#standing.size < MAX_TCP_FLOWS && this.#halfOpen < MAX_HALF_OPEN_TCP_FLOWS) return true;
		counters.tcpFlowLimit += 1;
		warn(
			`the guest has ${this.#standing.size} TCP flows, ${this.#halfOpen} of them half open; more are refused ` +
				`(limits: ${MAX_TCP_FLOWS} and ${MAX_HALF_OPEN_TCP_FLOWS})`,
		);
		return false;
	}

	/** A new flow's share of the buffers, bytes: all of it for the first ones, less the more there are. */
	bufferBytes(): number {
		const share = Math.floor(TCP_BUFFERS_BYTES / (this.#standing.size + 1));
		return Math.max(TCP_FLOW_MIN_BUFFER_BYTES, Math.min(TCP_FLOW_BUFFER_BYTES, share));
	}

	/** An unguessable number to begin with (RFC 6528). */
	initialSequence(remoteAddress: Ipv4, remotePort: number, guestPort: number): number {
		return this.#sequences.next(remoteAddress, remotePort, this.#context.wire.guestAddress, guestPort);
	}

	/** A flow of the guest's, by its SYN. `lastSequence`: of the connection in TIME-WAIT that it replaces. */
	start(
		remoteAddress: Ipv4,
		syn: TcpSegment,
		standing: Standing,
		lastSequence: number | undefined,
		bufferBytes: number,
		establishedIdleMs?: number,
	): TcpFlow {
		const { sourcePort: guestPort, destinationPort: remotePort } = syn;
		let initialSequence = this.initialSequence(remoteAddress, remotePort, guestPort);
		if (lastSequence !== undefined && ((initialSequence - lastSequence) | 0) <= 0) {
			initialSequence = (lastSequence + SEQUENCE_STEP) >>> 0;
		}
		const options = this.#connectionOptions(initialSequence, bufferBytes);
		const flow = new TcpFlow(this, {
			guestPort,
			remoteAddress,
			remotePort,
			inbound: false,
			receiveBudgetBytes: bufferBytes,
			connection: (output) => TcpConnection.accept(syn, { ...options, output }),
			...(establishedIdleMs !== undefined && { establishedIdleMs }),
		});
		this.#add(flow, standing);
		return flow;
	}

	/** A flow towards the guest's port, for a client of the host. False: there is no room for it. */
	startInbound(socket: Socket, guestPort: number, onQuiet: () => void): boolean {
		const isTaken = (port: number) => this.#flows.get(guestPort, GATEWAY_ADDRESS, port) !== undefined;
		const remotePort = this.hasRoom() ? this.#ports.take(isTaken) : undefined;
		if (remotePort === undefined) return false;
		const bufferBytes = this.bufferBytes();
		const initialSequence = this.initialSequence(GATEWAY_ADDRESS, remotePort, guestPort);
		const options = this.#connectionOptions(initialSequence, bufferBytes);
		const flow = new TcpFlow(this, {
			guestPort,
			remoteAddress: GATEWAY_ADDRESS,
			remotePort,
			inbound: true,
			receiveBudgetBytes: bufferBytes,
			connection: (output) => TcpConnection.connect({ ...options, output, guestPort, remotePort }),
		});
		this.#add(flow, { rule: "forward", name: undefined, onQuiet });
		flow.join(new SocketEnd(socket, flow));
		return true;
	}

	/** Forgets every flow without a word to the guest. */
	dropAll(): void {
		for (const flow of [...this.#standing.keys()]) flow.drop();
		this.#touched = [];
	}

	// What the flows tell (TcpFlowContext)

	touched(flow: TcpFlow): void {
		this.#touched.push(flow);
	}

	established(flow: TcpFlow): void {
		this.#halfOpen -= 1;
		if (flow.inbound) flow.farReady();
	}

	timeWait(flow: TcpFlow): void {
		this.#quieten(flow);
	}

	ended(flow: TcpFlow, end: TcpFlowEnd, detail: string | undefined): void {
		if (!flow.isEstablished) this.#halfOpen -= 1;
		this.#flows.delete(flow);
		const standing = this.#standing.get(flow);
		if (end === "denied") this.#context.counters.deniedTcp += 1;
		this.#context.record({
			protocol: "tcp",
			name: standing?.name,
			address: flow.remoteAddress,
			port: flow.inbound ? flow.guestPort : flow.remotePort,
			verdict: end === "denied" || end === "limit" ? "refused" : "allowed",
			rule: ruleOf(end, detail) ?? standing?.rule ?? "none",
			bytesOut: flow.bytesOut,
			bytesIn: flow.bytesIn,
		});
		this.#quieten(flow);
		if (end !== "unreachable" || standing?.synPacket === undefined) return;
		this.wire.sendIcmpError(destinationUnreachable(standing.synPacket, ICMP_HOST_UNREACHABLE));
	}

	gone(flow: TcpFlow): void {
		this.#standing.delete(flow);
	}

	#quieten(flow: TcpFlow): void {
		const standing = this.#standing.get(flow);
		const onQuiet = standing?.onQuiet;
		if (standing === undefined || onQuiet === undefined) return;
		standing.onQuiet = undefined;
		onQuiet();
	}

	#connectionOptions(initialSequence: number, bufferBytes: number): Omit<TcpConnectionOptions, "output"> {
		return {
			nowMs: this.#nowMs,
			initialSequence,
			mtu: this.#context.mtu,
			receiveBudgetBytes: bufferBytes,
			sendBudgetBytes: bufferBytes,
		};
	}

	#add(flow: TcpFlow, standing: Standing): void {
		this.#flows.add(flow);
		this.#standing.set(flow, standing);
		this.#halfOpen += 1;
	}
}

/** The rule that ended a flow that another one had let begin. */
function ruleOf(end: TcpFlowEnd, detail: string | undefined): string | undefined {
	if (end === "denied") return detail;
	return end === "limit" ? `limit (${detail})` : undefined;
}

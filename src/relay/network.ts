import { type Counters, createCounters } from "./counters.js";
import { Demultiplexer } from "./demultiplexer.js";
import type { AnswerDns } from "./flows/dns-end.js";
import type { OpenFlow } from "./flows/open-flow.js";
import { TcpNat } from "./flows/tcp-nat.js";
import { UdpForwards } from "./flows/udp-forwards.js";
import { UdpNat } from "./flows/udp-nat.js";
import { type Forward, type ForwardProtocol, Forwards } from "./forwards.js";
import type { NetworkContext } from "./network-context.js";
import { createNetworkContext, type NetworkOptions } from "./network-options.js";
import { IcmpService } from "./services/icmp.js";

export type { NetworkOptions } from "./network-options.js";

/** One machine's network, behind one link. */
export interface Network {
	/**
	 * A frame of the guest; its bytes belong to the network afterwards (they may be written to a socket later). Never throws.
	 * Call endBatch() once no more frames are at hand: acknowledgments and writes of the whole batch go out then.
	 */
	receive(frame: Uint8Array): void;
	endBatch(): void;
	/** The link, having returned false, has drained. */
	drained(): void;
	/** The guest's queues are known to be set up, as after a restore: it may be spoken to before its first frame. */
	guestIsUp(): void;
	/**
	 * The guest stands still: nothing of its network runs out, is sent again or given up until it goes on. What the host's servers do
	 * still happens. guestIsUp() ends it, too.
	 */
	guestPaused(): void;
	guestResumed(): void;
	/** The TCP flows that a snapshot taken now has to remember. */
	openFlows(): OpenFlow[];
	/**
	 * The guest was restored: drops everything that is live, and has the guest's connections of its past (`flows`, as they
	 * were when it was saved) reset. The guest is up if there were any.
	 */
	abandonFlows(flows: readonly OpenFlow[]): void;
	/** Listens on the host's loopback for a port of the guest; 0: any free port. Throws SandboxError. */
	forward(hostPort: number, guestPort: number, protocol: ForwardProtocol): Promise<Forward>;
	readonly forwards: readonly Forward[];
	/** Live flows that the host has opened, those included that wait for the machine to wake. */
	readonly inboundFlows: number;
	readonly counters: Readonly<Counters>;
	/** Everything of the network that is live now. */
	usage(): NetworkUsage;
	/** Ends all flows and forwards; nothing is sent any more. */
	close(): void;
}

export interface NetworkUsage {
	/** Those that linger on the host included. */
	readonly tcpFlows: number;
	readonly udpMappings: number;
	readonly udpForwardClients: number;
	readonly deadlines: number;
}

export function createNetwork(options: NetworkOptions): Network {
	return new MachineNetwork(options);
}

class MachineNetwork implements Network {
	readonly counters: Counters = createCounters();
	readonly #context: NetworkContext;
	readonly #demultiplexer: Demultiplexer;
	readonly #tcp: TcpNat;
	readonly #udp: UdpNat;
	readonly #udpForwards: UdpForwards;
	readonly #icmp: IcmpService;
	readonly #forwards: Forwards;
	#isClosed = false;

	constructor(options: NetworkOptions) {
		const context = createNetworkContext(options, this.counters);
		this.#context = context;
		const answerDns: AnswerDns = (query, via) => options.dns.handle(query, via);
		const tcp = new TcpNat(context, answerDns);
		const udpForwards = new UdpForwards(context);
		this.#tcp = tcp;
		this.#udp = new UdpNat(context);
		this.#udpForwards = udpForwards;
		this.#icmp = new IcmpService(context);
		this.#demultiplexer = new Demultiplexer(context, {
			tcp,
			udp: this.#udp,
			udpForwards,
			icmp: this.#icmp,
			answerDns,
		});
		this.#forwards = new Forwards({
			acceptTcp: (socket, guestPort) => tcp.acceptForward(socket, guestPort),
			udp: udpForwards,
		});
	}

	get forwards(): readonly Forward[] {
		return this.#forwards.list;
	}

	get inboundFlows(): number {
		return this.#context.inbound.live;
	}

	receive(frame: Uint8Array): void {
		if (!this.#isClosed) this.#demultiplexer.receive(frame);
	}

	endBatch(): void {
		this.#tcp.endBatch();
	}

	drained(): void {
		this.#context.wire.drained();
	}

	guestIsUp(): void {
		this.#context.clock.resume();
		this.#context.wire.guestIsUp();
	}

	guestPaused(): void {
		if (!this.#isClosed) this.#context.clock.pause();
	}

	guestResumed(): void {
		this.#context.clock.resume();
	}

	openFlows(): OpenFlow[] {
		return this.#tcp.openFlows();
	}

	abandonFlows(flows: readonly OpenFlow[]): void {
		if (flows.length > 0) this.guestIsUp();
		this.#demultiplexer.abandon();
		this.#udp.close();
		this.#icmp.abandon();
		this.#tcp.abandon(flows);
	}

	forward(hostPort: number, guestPort: number, protocol: ForwardProtocol): Promise<Forward> {
		return this.#forwards.open(hostPort, guestPort, protocol);
	}

	usage(): NetworkUsage {
		return {
			tcpFlows: this.#tcp.size,
			udpMappings: this.#udp.size,
			udpForwardClients: this.#udpForwards.size,
			deadlines: this.#context.deadlines.size,
		};
	}

	close(): void {
		if (this.#isClosed) return;
		this.#isClosed = true;
		this.#context.wire.close();
		this.#forwards.closeAll();
		this.#udp.close();
		this.#icmp.abandon();
		this.#tcp.close();
		this.#demultiplexer.abandon();
		this.#context.deadlines.clear();
	}
}

/** The relay: one isolated network for each machine that connects, and the host's sockets behind a policy. */

import type { Log } from "../log.js";
import { AccessTokens } from "./access.js";
import { type AuditLog, openAuditLog, silentAuditLog } from "./audit-log.js";
import type { BandwidthLimits } from "./bandwidth.js";
import { type Clock, systemClock } from "./clock.js";
import { createHostAddresses } from "./egress/host-addresses.js";
import { checkHostPorts } from "./egress/policy.js";
import type { EgressRule } from "./egress/rule.js";
import { ByteQuota } from "./flows/byte-quota.js";
import type { Forward, ForwardProtocol } from "./forwards.js";
import { KeptForwards } from "./kept-forwards.js";
import { MAX_MACHINES, PCAP_MAX_BYTES } from "./limits.js";
import type { FrameLink } from "./link.js";
import { DEFAULT_LISTEN_ADDRESS, type ListenAddress } from "./listen-address.js";
import { type MachineNetwork, openMachineNetwork, type SharedParts } from "./machine-network.js";
import type { Network } from "./network.js";
import { PcapFile } from "./pcap.js";
import { nodeDnsTransport } from "./services/dns-transport.js";
import { hostResolvers, type Resolver } from "./services/resolver.js";
import { checkRelayOptions } from "./settings.js";
import { SharedNetwork } from "./shared-network.js";
import { type FrameSink, type LinkServer, listenForMachines } from "./websocket.js";

export interface RelayOptions {
	/** Default: a free port of 127.0.0.1. */
	readonly listen?: ListenAddress;
	/** Origins of web pages that may connect; "*" allows all. Default: none. Programs may always. */
	readonly origins?: readonly string[];
	/** With any rule in `allow` everything else is closed; `deny` goes first. */
	readonly allow?: readonly EgressRule[];
	readonly deny?: readonly EgressRule[];
	/** 10.0.2.2:PORT is the host's localhost:PORT for these. */
	readonly hostPorts?: readonly number[];
	/** DNS servers to ask. Default: those of the host. */
	readonly resolvers?: readonly Resolver[];
	/** Largest IPv4 packet of the machines' link, bytes. Default: 1500. */
	readonly mtu?: number;
	readonly maxMachines?: number;
	/** All machines on one Ethernet, each with an address of its own by DHCP. Default: none sees another. */
	readonly shared?: boolean;
	/** Of each machine. */
	readonly bandwidth?: BandwidthLimits;
	/** Bytes that one flow may carry, both directions together. Default: any number. */
	readonly maxFlowBytes?: number;
	/** Bytes that all flows of one machine may carry; a named one goes on with what was left when it connects again. */
	readonly maxTotalBytes?: number;
	/** One line for each decision. Default: none is kept. */
	readonly auditLogPath?: string;
	/** Frames of all machines. */
	readonly pcapPath?: string;
	readonly pcapMaxBytes?: number;
	readonly log: Log;
	readonly clock?: Clock;
	readonly events?: RelayEvents;
}

/** Called synchronously; `machine` is a name that machineUrl() was asked for, or one that the relay gave. */
export interface RelayEvents {
	/** The machine is on the wire; a connection of the same name before it has been reported as gone. */
	connected?(machine: string, network: Network): void;
	disconnected?(machine: string): void;
	/** A flow is about to be opened towards the machine; it waits until this resolves. A rejection refuses it. */
	inbound?(machine: string, guestPort: number): Promise<void>;
	/** The last live flow towards the machine is over. */
	inboundIdle?(machine: string): void;
}

export interface Relay {
	/** For machines without a name; v86 takes it as relay_url. It holds the token: whoever has it may connect. */
	readonly url: string;
	/** The URL of one named machine, with a token of its own. Throws SandboxError("invalid-argument") for what is no name. */
	machineUrl(machine: string): string;
	/** Of a machine that is connected. */
	network(machine: string): Network | undefined;
	readonly machines: readonly string[];
	/**
	 * A forward that outlives the machine's connections; the machine must be connected now. `hostPort` 0: any free one.
	 * Throws SandboxError.
	 */
	forward(machine: string, hostPort: number, guestPort: number, protocol: ForwardProtocol): Promise<Forward>;
	/** Those of the machine that are kept, whether it is connected or not. */
	forwards(machine: string): readonly Forward[];
	/** Ends all connections and flows; done when nothing is left of them and the logs are written. */
	close(): Promise<void>;
}

const DEFAULT_MTU = 1500;

/** Listens and is ready. Throws SandboxError for options that can't be had. */
export async function createRelay(options: RelayOptions): Promise<Relay> {
	await checkRelayOptions(options);
	return await startRelay(options);
}

/** The same for options that checkRelayOptions() has passed. */
export async function startRelay(options: RelayOptions): Promise<Relay> {
	const clock = options.clock ?? systemClock;
	const hostPorts = new Set(options.hostPorts);
	const { resolvers } = options;
	const policy = {
		allow: options.allow ?? [],
		deny: options.deny ?? [],
		hostPorts,
		hostAddresses: createHostAddresses(clock),
	};
	const audit = options.auditLogPath === undefined ? silentAuditLog : openAuditLog(options.auditLogPath, options.log);
	const pcap = await openPcap(options);
	const relay = new WebSocketRelay(options, pcap, {
		policy,
		resolvers: resolvers === undefined ? hostResolvers : () => resolvers,
		dnsTransport: nodeDnsTransport(clock),
		mtu: options.mtu ?? DEFAULT_MTU,
		audit,
		clock,
		log: options.log,
		...(options.bandwidth === undefined ? {} : { bandwidth: options.bandwidth }),
		...(options.maxFlowBytes === undefined ? {} : { maxFlowBytes: options.maxFlowBytes }),
	});
	try {
		const port = await relay.listen();
		checkHostPorts(hostPorts, port);
	} catch (error) {
		await relay.close();
		throw error;
	}
	return relay;
}

async function openPcap(options: RelayOptions): Promise<PcapFile | undefined> {
	if (options.pcapPath === undefined) return undefined;
	return await PcapFile.open({
		path: options.pcapPath,
		maxBytes: options.pcapMaxBytes ?? PCAP_MAX_BYTES,
		nowMs: Date.now,
		log: options.log,
	});
}

class WebSocketRelay implements Relay {
	readonly #options: RelayOptions;
	readonly #pcap: PcapFile | undefined;
	readonly #shared: SharedParts;
	readonly #audit: AuditLog;
	readonly #access = new AccessTokens();
	readonly #connected = new Map<string, MachineNetwork>();
	/** Of the named machines: their owner names them, so that there are not more than it asked for. */
	readonly #quotas = new Map<string, ByteQuota>();
	readonly #forwards: KeptForwards;
	readonly #sharedNetwork: SharedNetwork | undefined;
	#server: LinkServer | undefined;
	#unnamed = 0;
	#closing: Promise<void> | undefined;

	constructor(options: RelayOptions, pcap: PcapFile | undefined, shared: SharedParts) {
		this.#options = options;
		this.#pcap = pcap;
		this.#shared = shared;
		this.#audit = shared.audit;
		this.#forwards = new KeptForwards(options.log);
		this.#sharedNetwork = options.shared === true ? new SharedNetwork(options.log) : undefined;
	}

	/** The port. */
	async listen(): Promise<number> {
		const { listen, origins, maxMachines, log } = this.#options;
		this.#server = await listenForMachines({
			listen: listen ?? DEFAULT_LISTEN_ADDRESS,
			access: this.#access,
			origins: origins ?? [],
			maxMachines: maxMachines ?? MAX_MACHINES,
			log,
			connect: (link, machine) => this.#connect(link, machine),
		});
		return this.#server.port;
	}

	get url(): string {
		return this.#origin + this.#access.path();
	}

	get machines(): readonly string[] {
		return [...this.#connected.keys()];
	}

	machineUrl(machine: string): string {
		return this.#origin + this.#access.path(machine);
	}

	network(machine: string): Network | undefined {
		return this.#connected.get(machine)?.network;
	}

	forward(machine: string, hostPort: number, guestPort: number, protocol: ForwardProtocol): Promise<Forward> {
		return this.#forwards.open(machine, this.network(machine), { hostPort, guestPort, protocol });
	}

	forwards(machine: string): readonly Forward[] {
		return this.#forwards.of(machine);
	}

	close(): Promise<void> {
		this.#closing ??= this.#close();
		return this.#closing;
	}

	async #close(): Promise<void> {
		await this.#server?.close();
		await Promise.all([this.#audit.close(), this.#pcap?.close()]);
	}

	#quota(name: string | undefined): ByteQuota {
		const known = name === undefined ? undefined : this.#quotas.get(name);
		const quota = known ?? new ByteQuota(this.#options.maxTotalBytes ?? Number.POSITIVE_INFINITY);
		if (name !== undefined) this.#quotas.set(name, quota);
		return quota;
	}

	get #origin(): string {
		return this.#server?.origin ?? "";
	}

	#connect(socket: FrameLink, name: string | undefined): FrameSink {
		const machine = name ?? `unnamed-${++this.#unnamed}`;
		const pcap = this.#pcap;
		const { events } = this.#options;
		const link = pcap === undefined ? socket : capturedLink(socket, pcap);
		const port = this.#sharedNetwork?.join(machine, link);
		const opened = openMachineNetwork(this.#shared, {
			machine,
			quota: this.#quota(name),
			link: port ?? link,
			...(port === undefined ? {} : { guestAddress: () => port.address }),
			...(events?.inbound === undefined
				? {}
				: { onInbound: (guestPort: number) => events.inbound?.(machine, guestPort) ?? Promise.resolve() }),
			onInboundIdle: () => events?.inboundIdle?.(machine),
		});
		const { network } = opened;
		this.#connected.set(machine, opened);
		if (name !== undefined) this.#forwards.attach(machine, network);
		events?.connected?.(machine, network);
		return {
			receive(frame) {
				pcap?.write(frame);
				if (port === undefined || port.receive(frame)) network.receive(frame);
			},
			endBatch: () => network.endBatch(),
			drained() {
				port?.drained();
				network.drained();
			},
			closed: () => {
				port?.leave();
				this.#connected.delete(machine);
				opened.close();
				events?.disconnected?.(machine);
			},
		};
	}
}

function capturedLink(link: FrameLink, pcap: PcapFile): FrameLink {
	return {
		send(frame) {
			pcap.write(frame);
			return link.send(frame);
		},
		close: (reason) => link.close(reason),
	};
}

import type { Log } from "../log.js";
import type { Ipv4 } from "./addresses.js";
import type { AuditLog } from "./audit-log.js";
import type { BandwidthLimits } from "./bandwidth.js";
import type { Clock } from "./clock.js";
import { EgressGate } from "./egress/gate.js";
import { nodeHostSockets } from "./egress/host-sockets.js";
import { NameTable } from "./egress/name-table.js";
import { createPolicy, type PolicyOptions } from "./egress/policy.js";
import type { ByteQuota } from "./flows/byte-quota.js";
import type { InboundEvents } from "./flows/inbound.js";
import type { FrameLink } from "./link.js";
import { createNetwork, type Network } from "./network.js";
import { DnsProxy } from "./services/dns-proxy.js";
import type { DnsTransport } from "./services/dns-transport.js";
import type { Resolver } from "./services/resolver.js";

/** What all machines' networks have in common. */
export interface SharedParts {
	readonly policy: Omit<PolicyOptions, "names">;
	readonly resolvers: () => readonly Resolver[];
	readonly dnsTransport: DnsTransport;
	readonly mtu: number;
	readonly audit: AuditLog;
	readonly clock: Clock;
	readonly log: Log;
	readonly bandwidth?: BandwidthLimits;
	readonly maxFlowBytes?: number;
}

export interface MachineOptions extends InboundEvents {
	readonly machine: string;
	readonly link: FrameLink;
	/** Default: 10.0.2.15. */
	readonly guestAddress?: () => Ipv4;
	/** What is left of the bytes that the machine may carry. */
	readonly quota: ByteQuota;
}

export interface MachineNetwork {
	readonly network: Network;
	/** Ends the network and what it asked the resolver. */
	close(): void;
}

/** Makes one machine's network, with a policy, a resolver and a memory of names of its own. */
export function openMachineNetwork(shared: SharedParts, options: MachineOptions): MachineNetwork {
	const { audit, clock, log, bandwidth, maxFlowBytes, mtu } = shared;
	const { machine } = options;
	const names = new NameTable(clock);
	const policy = createPolicy({ ...shared.policy, names });
	const dns = new DnsProxy({
		policy,
		names,
		resolvers: shared.resolvers,
		transport: shared.dnsTransport,
		clock,
		decided: ({ name, address, verdict, bytesOut, bytesIn }) =>
			audit.write({
				machine,
				protocol: "dns",
				name,
				address,
				port: undefined,
				verdict: verdict.allowed ? "allowed" : "refused",
				rule: verdict.rule,
				bytesOut,
				bytesIn,
			}),
	});
	const network = createNetwork({
		...options,
		mtu,
		gate: new EgressGate(policy, nodeHostSockets),
		dns,
		audit,
		log,
		clock,
		...(bandwidth === undefined ? {} : { bandwidth }),
		...(maxFlowBytes === undefined ? {} : { maxFlowBytes }),
	});
	return {
		network,
		close() {
			network.close();
			dns.close();
		},
	};
}

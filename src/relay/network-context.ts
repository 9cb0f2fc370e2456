import { DNS_ADDRESS, GATEWAY_ADDRESS, type Ipv4 } from "./addresses.js";
import type { AuditEntry } from "./audit-log.js";
import type { Bandwidth } from "./bandwidth.js";
import type { Counters } from "./counters.js";
import type { EgressGate } from "./egress/gate.js";
import type { Refused } from "./egress/policy.js";
import type { ByteQuota } from "./flows/byte-quota.js";
import type { Deadlines } from "./flows/deadlines.js";
import type { InboundFlows } from "./flows/inbound.js";
import type { GuestWire } from "./guest-wire.js";
import type { PausableClock } from "./pausable-clock.js";

/** A line of the audit log, but for the machine, which its writer knows. */
export type FlowRecord = Omit<AuditEntry, "machine">;

/** What the parts of one machine's network share. */
export interface NetworkContext {
	/** Stands still while the guest is paused. */
	readonly clock: PausableClock;
	readonly wire: GuestWire;
	readonly deadlines: Deadlines;
	readonly counters: Counters;
	readonly gate: EgressGate;
	readonly mtu: number;
	readonly toGuest: Bandwidth | undefined;
	readonly fromGuest: Bandwidth | undefined;
	readonly quota: ByteQuota;
	/** Both directions; Infinity: no limit. */
	readonly maxFlowBytes: number;
	readonly inbound: InboundFlows;
	/** A decision, once the flow that it is about has ended. */
	record(record: FlowRecord): void;
	/** A refusal, at once; the same one again within a second is not repeated. */
	recordRefused(protocol: FlowRecord["protocol"], address: Ipv4, port: number, verdict: Refused): void;
	/** A limit was hit: tells the log, at most once per second. */
	warn(message: string): void;
}

/** Whether the relay itself answers at the address: the gateway and the DNS server. */
export function isOwnAddress(address: Ipv4): boolean {
	return address === GATEWAY_ADDRESS || address === DNS_ADDRESS;
}

import type { Log } from "../log.js";
import { GUEST_ADDRESS, type Ipv4 } from "./addresses.js";
import type { AuditLog } from "./audit-log.js";
import { Bandwidth, type BandwidthLimits } from "./bandwidth.js";
import { type Clock, systemClock } from "./clock.js";
import type { Counters } from "./counters.js";
import type { EgressGate } from "./egress/gate.js";
import { ByteQuota } from "./flows/byte-quota.js";
import { Deadlines } from "./flows/deadlines.js";
import { type InboundEvents, InboundFlows } from "./flows/inbound.js";
import { RateLimit } from "./flows/rate-limit.js";
import { RecentRefusals } from "./flows/recent-refusals.js";
import { GuestWire } from "./guest-wire.js";
import type { FrameLink } from "./link.js";
import type { NetworkContext } from "./network-context.js";
import { PausableClock } from "./pausable-clock.js";
import type { DnsProxy } from "./services/dns-proxy.js";

export interface NetworkOptions extends InboundEvents {
	/** The machine's name, for the audit log and the log. */
	readonly machine: string;
	readonly link: FrameLink;
	/** Of the link, bytes: an IPv4 packet at most, either way. 576 to 65,535 (what the guest may send can be larger). */
	readonly mtu: number;
	/** Of the machine. Default: 10.0.2.15. */
	readonly guestAddress?: () => Ipv4;
	/** In front of every host socket. */
	readonly gate: EgressGate;
	/** The machine's resolver; whoever made it closes it. */
	readonly dns: Pick<DnsProxy, "handle">;
	readonly audit: Pick<AuditLog, "write">;
	readonly log: Log;
	readonly clock?: Clock;
	readonly bandwidth?: BandwidthLimits;
	/** Bytes that one flow may carry, both directions together; undefined: any number. */
	readonly maxFlowBytes?: number;
	/** What all flows together may carry; undefined: any number. */
	readonly quota?: ByteQuota;
}

export function createNetworkContext(options: NetworkOptions, counters: Counters): NetworkContext {
	const { machine, link, mtu, gate, audit, log, bandwidth } = options;
	const clock = new PausableClock(options.clock ?? systemClock);
	const deadlines = new Deadlines(clock);
	const refusals = new RecentRefusals();
	const warnings = new RateLimit(1, 1000);
	const bucket = (bytesPerSecond: number | undefined) =>
		bytesPerSecond === undefined ? undefined : new Bandwidth(bytesPerSecond, clock, deadlines);
	return {
		clock,
		deadlines,
		counters,
		gate,
		mtu,
		wire: new GuestWire(link, mtu, counters, clock, options.guestAddress ?? (() => GUEST_ADDRESS)),
		toGuest: bucket(bandwidth?.toGuestBytesPerSecond),
		fromGuest: bucket(bandwidth?.fromGuestBytesPerSecond),
		quota: options.quota ?? new ByteQuota(Number.POSITIVE_INFINITY),
		maxFlowBytes: options.maxFlowBytes ?? Number.POSITIVE_INFINITY,
		inbound: new InboundFlows(options),
		record: (record) => audit.write({ machine, ...record }),
		recordRefused(protocol, address, port, { name, rule }) {
			if (refusals.isRepeated(`${protocol} ${address} ${port}`, clock.nowMs())) return;
			audit.write({
				machine,
				protocol,
				name,
				address,
				port: protocol === "icmp" ? undefined : port,
				verdict: "refused",
				rule,
				bytesOut: 0,
				bytesIn: 0,
			});
		},
		warn(message) {
			if (warnings.allows(clock.nowMs())) log.warn(`machine ${machine}: ${message}`);
		},
	};
}

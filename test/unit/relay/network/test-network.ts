import { silentLog } from "../../../../src/log.js";
import type { AuditEntry } from "../../../../src/relay/audit-log.js";
import { EgressGate } from "../../../../src/relay/egress/gate.js";
import type { HostSockets } from "../../../../src/relay/egress/host-sockets.js";
import { NameTable } from "../../../../src/relay/egress/name-table.js";
import { createPolicy, type Policy } from "../../../../src/relay/egress/policy.js";
import { parseRule } from "../../../../src/relay/egress/rule.js";
import { ByteQuota } from "../../../../src/relay/flows/byte-quota.js";
import { createNetwork, type Network, type NetworkOptions } from "../../../../src/relay/network.js";
import { parseIpv4Address } from "../../../../src/relay/wire/address.js";
import { VirtualClock } from "../virtual-clock.js";
import { FakeGuest } from "./fake-guest.js";
import { FakeHost } from "./fake-host.js";

export interface TestNetworkOptions
	extends Partial<Pick<NetworkOptions, "bandwidth" | "maxFlowBytes" | "onInbound" | "onInboundIdle">> {
	readonly maxTotalBytes?: number;
	readonly allow?: readonly string[];
	readonly deny?: readonly string[];
	readonly hostPorts?: readonly number[];
	readonly mtu?: number;
	/** One that has lived before another network. */
	readonly guest?: FakeGuest;
	readonly clock?: VirtualClock;
	readonly sockets?: HostSockets;
	readonly answerDns?: (query: Uint8Array, via: "udp" | "tcp") => Promise<Uint8Array | undefined>;
}

export interface TestNetwork {
	readonly network: Network;
	readonly guest: FakeGuest;
	readonly host: FakeHost;
	readonly clock: VirtualClock;
	readonly names: NameTable;
	readonly policy: Policy;
	readonly audit: AuditEntry[];
	readonly warnings: string[];
	/** Delivers frames and lets sockets speak until nothing moves any more. */
	settle(): Promise<void>;
	/** Moves the clock on in small steps, so that both sides' timers fire. */
	advance(ms: number, stepMs?: number): Promise<void>;
}

/** A network with a fake guest before it and a fake host behind, under a clock that stands still. */
export function createTestNetwork(options: TestNetworkOptions = {}): TestNetwork {
	const clock = options.clock ?? new VirtualClock();
	const names = new NameTable(clock);
	const host = new FakeHost();
	const audit: AuditEntry[] = [];
	const warnings: string[] = [];
	const mtu = options.mtu ?? 1500;
	const policy = createPolicy({
		allow: (options.allow ?? []).map(parseRule),
		deny: (options.deny ?? []).map(parseRule),
		hostPorts: new Set(options.hostPorts ?? []),
		hostAddresses: () => new Set(),
		names,
	});
	const guest = options.guest ?? new FakeGuest(mtu, () => clock.nowMs());
	const network = createNetwork({
		machine: "m1",
		link: guest,
		mtu,
		gate: new EgressGate(policy, options.sockets ?? host),
		dns: { handle: options.answerDns ?? (async (query) => query) },
		audit: { write: (entry) => void audit.push(entry) },
		log: { ...silentLog, warn: (message) => void warnings.push(message) },
		clock,
		...(options.bandwidth && { bandwidth: options.bandwidth }),
		...(options.maxFlowBytes !== undefined && { maxFlowBytes: options.maxFlowBytes }),
		...(options.maxTotalBytes !== undefined && { quota: new ByteQuota(options.maxTotalBytes) }),
		...(options.onInbound && { onInbound: options.onInbound }),
		...(options.onInboundIdle && { onInboundIdle: options.onInboundIdle }),
	});
	guest.network = network;

	/** Streams pass their news on over a few ticks; two quiet rounds in a row mean that there is none. */
	async function settle(): Promise<void> {
		for (let quiet = 0; quiet < 2; quiet++) {
			if (guest.hasFramesInFlight) quiet = 0;
			guest.deliver();
			await new Promise<void>((resolve) => setImmediate(resolve));
			if (guest.hasFramesInFlight) quiet = 0;
		}
	}

	async function advance(ms: number, stepMs = 50): Promise<void> {
		const endMs = clock.nowMs() + ms;
		while (clock.nowMs() < endMs) {
			clock.advance(Math.min(stepMs, endMs - clock.nowMs()));
			guest.tick();
			await settle();
		}
	}

	return { network, guest, host, clock, names, policy, audit, warnings, settle, advance };
}

export function address(text: string): number {
	const parsed = parseIpv4Address(text);
	if (parsed === undefined) throw new Error(`${text} is no address`);
	return parsed;
}

export function bytes(text: string): Uint8Array {
	return new TextEncoder().encode(text);
}

/** Bytes that differ from their neighbours, so that a shift shows. */
export function pattern(length: number, seed = 1): Uint8Array {
	const made = new Uint8Array(length);
	for (let at = 0; at < length; at++) made[at] = (at * 31 + (at >>> 8) * 17 + seed) & 0xff;
	return made;
}

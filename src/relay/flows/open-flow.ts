import { MAX_OPEN_FLOWS } from "../limits.js";
import { formatIpv4Address, parseIpv4Address } from "../wire/address.js";

/** A TCP connection of the guest, as a snapshot remembers it. */
export interface OpenFlow {
	readonly protocol: "tcp";
	readonly guestPort: number;
	/** Dotted quad, as the guest sees it. */
	readonly remoteAddress: string;
	readonly remotePort: number;
}

/** Whether `value`, read from a snapshot, is an OpenFlow. */
export function isOpenFlow(value: unknown): value is OpenFlow {
	if (typeof value !== "object" || value === null) return false;
	const { protocol, guestPort, remoteAddress, remotePort } = value as Record<string, unknown>;
	if (protocol !== "tcp" || !isPort(guestPort) || !isPort(remotePort)) return false;
	return typeof remoteAddress === "string" && parseIpv4Address(remoteAddress) !== undefined;
}

/** The flows as a snapshot keeps them, at most MAX_OPEN_FLOWS. */
export function listOpenFlows(
	flows: Iterable<{ readonly guestPort: number; readonly remoteAddress: number; readonly remotePort: number }>,
): OpenFlow[] {
	const list: OpenFlow[] = [];
	for (const { guestPort, remoteAddress, remotePort } of flows) {
		if (list.length === MAX_OPEN_FLOWS) break;
		list.push({ protocol: "tcp", guestPort, remoteAddress: formatIpv4Address(remoteAddress), remotePort });
	}
	return list;
}

function isPort(value: unknown): value is number {
	return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 65_535;
}

import { MAX_OPEN_FLOWS } from "../limits.js";
import { formatIpv4Address } from "../wire/address.js";

/** A TCP connection of the guest, as a snapshot remembers it. */
export interface OpenFlow {
	readonly protocol: "tcp";
	readonly guestPort: number;
	/** Dotted quad, as the guest sees it. */
	readonly remoteAddress: string;
	readonly remotePort: number;
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

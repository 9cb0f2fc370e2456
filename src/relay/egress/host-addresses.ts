import { networkInterfaces } from "node:os";
import type { Ipv4 } from "../addresses.js";
import { type Clock, systemClock } from "../clock.js";
import { HOST_ADDRESSES_MS } from "../limits.js";
import { parseIpv4Address } from "../wire/address.js";

type Interfaces = () => ReturnType<typeof networkInterfaces>;

/** The IPv4 addresses of the host's own interfaces, looked up anew when they are older than a few seconds. */
export function createHostAddresses(
	clock: Pick<Clock, "nowMs"> = systemClock,
	interfaces: Interfaces = networkInterfaces,
): () => ReadonlySet<Ipv4> {
	let addresses: ReadonlySet<Ipv4> = new Set();
	let staleAtMs = Number.NEGATIVE_INFINITY;
	return () => {
		const nowMs = clock.nowMs();
		if (nowMs >= staleAtMs) {
			staleAtMs = nowMs + HOST_ADDRESSES_MS;
			addresses = readAddresses(interfaces) ?? addresses;
		}
		return addresses;
	};
}

/** Undefined: the system does not tell. */
function readAddresses(interfaces: Interfaces): Set<Ipv4> | undefined {
	try {
		const entries = Object.values(interfaces()).flatMap((list) => list ?? []);
		const addresses = entries.map(({ address }) => parseIpv4Address(address));
		return new Set(addresses.filter((address) => address !== undefined));
	} catch {
		return undefined;
	}
}

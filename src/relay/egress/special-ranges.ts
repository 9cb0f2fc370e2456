import type { Ipv4 } from "../addresses.js";
import { type AddressRange, isInRange, rangeOf } from "./address-range.js";

/** Addresses that are not simply "the internet". */
export interface SpecialRange extends AddressRange {
	/** CIDR, purpose and source. */
	readonly text: string;
	/** No rule opens it. */
	readonly isFixed: boolean;
}

/** "192.168.0.0/16" in numbers; the tables below are well-formed. */
function special(cidr: string, purpose: string, isFixed = false): SpecialRange {
	const [a = 0, b = 0, c = 0, d = 0, bits = 0] = cidr.split(/[./]/).map(Number);
	const range = rangeOf(((a << 24) | (b << 16) | (c << 8) | d) >>> 0, bits);
	return { ...range, text: `${cidr} (${purpose})`, isFixed };
}

const FIXED = true;

/**
 * The IANA IPv4 Special-Purpose Address Registry (RFC 6890, as of 2024), with multicast, 192.88.99.0/24 that it has
 * dropped, and the machines' own network. All are closed, the few that the registry calls globally reachable too (AS112,
 * AMT, the PCP and TURN anycast addresses in 192.0.0.0/24): they are infrastructure that a guest has no business with.
 * The first range that holds an address is the one that counts.
 */
export const SPECIAL_RANGES: readonly SpecialRange[] = [
	special("10.0.2.0/24", "the machine's own network", FIXED),
	special("0.0.0.0/8", "this network, RFC 791", FIXED),
	special("10.0.0.0/8", "private, RFC 1918"),
	special("100.64.0.0/10", "shared address space, RFC 6598"),
	special("127.0.0.0/8", "loopback, RFC 1122", FIXED),
	special("169.254.0.0/16", "link-local and cloud metadata, RFC 3927", FIXED),
	special("172.16.0.0/12", "private, RFC 1918"),
	special("192.0.0.0/24", "IETF protocol assignments, RFC 6890"),
	special("192.0.2.0/24", "documentation, RFC 5737"),
	special("192.31.196.0/24", "AS112, RFC 7535"),
	special("192.52.193.0/24", "AMT, RFC 7450"),
	special("192.88.99.0/24", "6to4 relay anycast, RFC 7526"),
	special("192.168.0.0/16", "private, RFC 1918"),
	special("192.175.48.0/24", "AS112, RFC 7534"),
	special("198.18.0.0/15", "benchmarking, RFC 2544"),
	special("198.51.100.0/24", "documentation, RFC 5737"),
	special("203.0.113.0/24", "documentation, RFC 5737"),
	special("224.0.0.0/4", "multicast, RFC 5771", FIXED),
	special("255.255.255.255/32", "broadcast, RFC 919", FIXED),
	special("240.0.0.0/4", "reserved, RFC 1112"),
];

/** The special range that holds `address`; undefined: a public address. */
export function specialRangeOf(address: Ipv4): SpecialRange | undefined {
	for (const range of SPECIAL_RANGES) {
		if (isInRange(address, range)) return range;
	}
	return undefined;
}

import type { Ipv4 } from "../addresses.js";

/** An IPv4 prefix (RFC 4632): the addresses whose bits under `mask` are those of `base`. */
export interface AddressRange {
	readonly base: Ipv4;
	readonly mask: Ipv4;
}

export function rangeOf(base: Ipv4, prefixBits: number): AddressRange {
	const mask = prefixBits === 0 ? 0 : (0xffffffff << (32 - prefixBits)) >>> 0;
	return { base: (base & mask) >>> 0, mask };
}

export function isInRange(address: Ipv4, range: AddressRange): boolean {
	return (address & range.mask) >>> 0 === range.base;
}

/** Whether every address of `inner` is one of `outer`. */
export function isRangeWithin(inner: AddressRange, outer: AddressRange): boolean {
	return inner.mask >= outer.mask && isInRange(inner.base, outer);
}

export function isSingleAddress(range: AddressRange): boolean {
	return range.mask === 0xffffffff;
}

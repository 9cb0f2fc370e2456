import { FRAGMENT_UNIT_BYTES, IPV4_HEADER_BYTES } from "./ipv4.js";

export interface Ipv4Fragment {
	/** A view of the whole payload. */
	readonly payload: Uint8Array;
	/** Bytes, a multiple of 8. */
	readonly fragmentOffset: number;
	readonly moreFragments: boolean;
}

/** The pieces of an IPv4 payload for links that take packets of `mtu` bytes (RFC 791 3.2); one piece if it fits. */
export function fragmentIpv4(payload: Uint8Array, mtu: number): Ipv4Fragment[] {
	const room = mtu - IPV4_HEADER_BYTES;
	if (payload.length <= room) return [{ payload, fragmentOffset: 0, moreFragments: false }];
	const step = Math.max(FRAGMENT_UNIT_BYTES, room - (room % FRAGMENT_UNIT_BYTES));
	const pieces: Ipv4Fragment[] = [];
	for (let offset = 0; offset < payload.length; offset += step) {
		pieces.push({
			payload: payload.subarray(offset, offset + step),
			fragmentOffset: offset,
			moreFragments: offset + step < payload.length,
		});
	}
	return pieces;
}

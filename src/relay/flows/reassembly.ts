import { REASSEMBLY_MAX_BYTES, REASSEMBLY_MAX_DATAGRAMS, REASSEMBLY_MAX_FRAGMENTS, REASSEMBLY_MS } from "../limits.js";
import type { Ipv4Packet } from "../wire/ipv4.js";

const MAX_PAYLOAD_BYTES = 65_515;

interface PartialPacket {
	readonly startedMs: number;
	/** The fragment with offset 0, or any other until that one comes: its header is that of the whole. */
	first: Ipv4Packet;
	/** By offset; a set of pieces that don't overlap. */
	readonly pieces: Map<number, Uint8Array>;
	bytes: number;
	/** Payload length of the whole, once the last fragment was here. */
	total: number | undefined;
}

/**
 * Puts fragmented IPv4 packets together (RFC 791 3.2). Fragments that overlap end their datagram (RFC 5722 4), so do 30 s
 * without the rest (RFC 1122 3.3.2); over the bounds the oldest goes.
 */
export class Reassembly {
	readonly #partials = new Map<string, PartialPacket>();
	#bytes = 0;

	/** Bytes that wait for their rest. */
	get waitingBytes(): number {
		return this.#bytes;
	}

	/**
	 * Takes a fragment; gives the whole packet when it is the last one missing. Copies what it keeps. A packet that is no
	 * fragment comes back as it is.
	 */
	add(packet: Ipv4Packet, nowMs: number): Ipv4Packet | undefined {
		this.#expire(nowMs);
		const { payload, fragmentOffset, moreFragments } = packet;
		if (fragmentOffset === 0 && !moreFragments) return packet;
		const end = fragmentOffset + payload.length;
		if (payload.length === 0 || end > MAX_PAYLOAD_BYTES || (moreFragments && payload.length % 8 !== 0))
			return undefined;
		const key = `${packet.source} ${packet.destination} ${packet.protocol} ${packet.identification}`;
		const partial = this.#partials.get(key) ?? this.#begin(key, packet, nowMs);
		if (partial.pieces.get(fragmentOffset)?.length === payload.length) return undefined;
		if (!fits(partial, fragmentOffset, end, moreFragments)) {
			this.#drop(key);
			return undefined;
		}
		partial.pieces.set(fragmentOffset, new Uint8Array(payload));
		if (fragmentOffset === 0) partial.first = headOf(packet);
		partial.bytes += payload.length;
		this.#bytes += payload.length;
		if (!moreFragments) partial.total = end;
		if (partial.bytes === partial.total) {
			this.#drop(key);
			return whole(partial, partial.total);
		}
		this.#makeRoom();
		return undefined;
	}

	#begin(key: string, packet: Ipv4Packet, nowMs: number): PartialPacket {
		const partial: PartialPacket = {
			startedMs: nowMs,
			first: headOf(packet),
			pieces: new Map(),
			bytes: 0,
			total: undefined,
		};
		this.#partials.set(key, partial);
		return partial;
	}

	#drop(key: string): void {
		this.#bytes -= this.#partials.get(key)?.bytes ?? 0;
		this.#partials.delete(key);
	}

	/** The map is in order of age. */
	#expire(nowMs: number): void {
		for (const [key, { startedMs }] of this.#partials) {
			if (nowMs - startedMs < REASSEMBLY_MS) return;
			this.#drop(key);
		}
	}

	#makeRoom(): void {
		for (const key of this.#partials.keys()) {
			if (this.#partials.size <= REASSEMBLY_MAX_DATAGRAMS && this.#bytes <= REASSEMBLY_MAX_BYTES) return;
			this.#drop(key);
		}
	}
}

/** A copy without the payload. (A Buffer's `slice` would be a view.) */
function headOf(packet: Ipv4Packet): Ipv4Packet {
	return { ...packet, header: new Uint8Array(packet.header), payload: new Uint8Array(0) };
}

function fits({ pieces, total }: PartialPacket, start: number, end: number, moreFragments: boolean): boolean {
	if (pieces.size >= REASSEMBLY_MAX_FRAGMENTS) return false;
	if (total !== undefined && (end > total || !moreFragments)) return false;
	for (const [offset, piece] of pieces) {
		if (offset < end && start < offset + piece.length) return false;
		if (!moreFragments && offset >= end) return false;
	}
	return true;
}

function whole({ first, pieces }: PartialPacket, bytes: number): Ipv4Packet {
	const payload = new Uint8Array(bytes);
	for (const [offset, piece] of pieces) payload.set(piece, offset);
	return { ...first, payload, fragmentOffset: 0, moreFragments: false };
}

import { describe, expect, it } from "vitest";
import { Reassembly } from "../../../src/relay/flows/reassembly.js";
import {
	REASSEMBLY_MAX_BYTES,
	REASSEMBLY_MAX_DATAGRAMS,
	REASSEMBLY_MAX_FRAGMENTS,
	REASSEMBLY_MS,
} from "../../../src/relay/limits.js";
import { fragmentIpv4 } from "../../../src/relay/wire/fragment.js";
import { type Ipv4Packet, parseIpv4Packet, writeIpv4Header } from "../../../src/relay/wire/ipv4.js";
import { accepted } from "./wire/frames.js";

const PAYLOAD = Uint8Array.from({ length: 4000 }, (_, at) => at * 7);

/** A packet of its own memory. */
function fragment(offset: number, payload: Uint8Array, moreFragments: boolean, identification = 1): Ipv4Packet {
	const bytes = new Uint8Array(20 + payload.length);
	writeIpv4Header(bytes, 0, {
		source: 0x0a00020f,
		destination: 0x08080808,
		protocol: 17,
		payloadBytes: payload.length,
		identification,
		moreFragments,
		fragmentOffset: offset,
	});
	bytes.set(payload, 20);
	return accepted(parseIpv4Packet(bytes));
}

function fragmentsOf(payload: Uint8Array, mtu: number, identification = 1): Ipv4Packet[] {
	return fragmentIpv4(payload, mtu).map((piece) =>
		fragment(piece.fragmentOffset, piece.payload, piece.moreFragments, identification),
	);
}

describe("the reassembly of fragments", () => {
	it.each([
		[0, 1, 2],
		[0, 2, 1],
		[1, 0, 2],
		[1, 2, 0],
		[2, 0, 1],
		[2, 1, 0],
	])("gives the whole in the order %d %d %d, once", (...order) => {
		const reassembly = new Reassembly();
		const pieces = fragmentsOf(PAYLOAD, 1500);
		const results = order.map((index) => reassembly.add(pieces[index] as Ipv4Packet, 0));
		expect(results.slice(0, 2)).toEqual([undefined, undefined]);
		expect(results[2]).toMatchObject({ payload: PAYLOAD, fragmentOffset: 0, moreFragments: false, protocol: 17 });
		expect(results[2]?.header).toEqual(pieces[0]?.header);
		expect(reassembly.waitingBytes).toBe(0);
	});

	it("keeps copies: the frame of a fragment may be written over", () => {
		const reassembly = new Reassembly();
		const results = fragmentsOf(PAYLOAD, 1500).map((piece) => {
			const frame = Buffer.from([...piece.header, ...piece.payload]);
			const result = reassembly.add(accepted(parseIpv4Packet(frame)), 0);
			frame.fill(0);
			return result;
		});
		expect(Buffer.from(results.at(-1)?.payload ?? []).equals(PAYLOAD)).toBe(true);
		expect(results.at(-1)?.header[0]).toBe(0x45);
	});

	it("gives back what is no fragment", () => {
		const packet = fragment(0, new Uint8Array(0), false);
		expect(new Reassembly().add(packet, 0)).toBe(packet);
	});

	it("ignores a fragment that comes twice", () => {
		const reassembly = new Reassembly();
		const [first, second, third] = fragmentsOf(PAYLOAD, 1500) as [Ipv4Packet, Ipv4Packet, Ipv4Packet];
		for (const piece of [first, first, third, third]) expect(reassembly.add(piece, 0)).toBeUndefined();
		expect(reassembly.add(second, 0)?.payload).toEqual(PAYLOAD);
	});

	it.each([
		["over the end of another", 8, 16],
		["over the start of another", 24, 16],
		["inside another", 24, 8],
		["around another", 8, 40],
	])("drops a datagram with a fragment %s (RFC 5722)", (_, offset, length) => {
		const reassembly = new Reassembly();
		reassembly.add(fragment(16, new Uint8Array(24), true), 0);
		reassembly.add(fragment(offset, new Uint8Array(length), true), 0);
		expect(reassembly.waitingBytes).toBe(0);
	});

	it("drops a datagram with two ends, or with bytes behind its end", () => {
		for (const [offset, more] of [
			[24, false],
			[24, true],
			[8, false],
		] as const) {
			const reassembly = new Reassembly();
			reassembly.add(fragment(16, new Uint8Array(8), false), 0);
			reassembly.add(fragment(offset, new Uint8Array(8), more), 0);
			expect(reassembly.waitingBytes).toBe(0);
		}
		const reassembly = new Reassembly();
		reassembly.add(fragment(24, new Uint8Array(8), true), 0);
		reassembly.add(fragment(8, new Uint8Array(8), false), 0);
		expect(reassembly.waitingBytes).toBe(0);
	});

	it("takes no fragment that is empty, of an odd length, or beyond the longest packet", () => {
		const reassembly = new Reassembly();
		reassembly.add(fragment(8, new Uint8Array(0), true), 0);
		reassembly.add(fragment(0, new Uint8Array(9), true), 0);
		reassembly.add(fragment(65_528, new Uint8Array(8), false), 0);
		expect(reassembly.waitingBytes).toBe(0);
	});

	it("keeps the fragments of different packets apart", () => {
		const reassembly = new Reassembly();
		const one = fragmentsOf(PAYLOAD.subarray(0, 2000), 1500, 1);
		const two = fragmentsOf(PAYLOAD.subarray(2000), 1500, 2);
		const results = [one[0], two[1], two[0], one[1]].map((piece) => reassembly.add(piece as Ipv4Packet, 0));
		expect(results[2]?.payload).toEqual(PAYLOAD.subarray(2000));
		expect(results[3]?.payload).toEqual(PAYLOAD.subarray(0, 2000));
	});

	it("forgets a datagram whose rest does not come in time", () => {
		const reassembly = new Reassembly();
		const [first, second] = fragmentsOf(PAYLOAD.subarray(0, 2000), 1500) as [Ipv4Packet, Ipv4Packet];
		reassembly.add(first, 1000);
		expect(reassembly.add(second, 1000 + REASSEMBLY_MS)).toBeUndefined();
		expect(reassembly.waitingBytes).toBe(second.payload.length);
	});

	it("still takes the rest just in time", () => {
		const reassembly = new Reassembly();
		const [first, second] = fragmentsOf(PAYLOAD.subarray(0, 2000), 1500) as [Ipv4Packet, Ipv4Packet];
		reassembly.add(first, 1000);
		expect(reassembly.add(second, 999 + REASSEMBLY_MS)?.payload).toHaveLength(2000);
	});

	it("holds a bounded number of datagrams: the oldest goes", () => {
		const reassembly = new Reassembly();
		const firsts = Array.from({ length: REASSEMBLY_MAX_DATAGRAMS + 1 }, (_, id) => fragmentsOf(PAYLOAD, 3000, id));
		for (const [first] of firsts) reassembly.add(first as Ipv4Packet, 0);
		expect(reassembly.waitingBytes).toBe(REASSEMBLY_MAX_DATAGRAMS * 2976);
		expect(reassembly.add(firsts[1]?.[1] as Ipv4Packet, 0)?.payload).toEqual(PAYLOAD);
		expect(reassembly.add(firsts[0]?.[1] as Ipv4Packet, 0)).toBeUndefined();
	});

	it("holds a bounded number of bytes", () => {
		const reassembly = new Reassembly();
		for (let id = 0; id < REASSEMBLY_MAX_DATAGRAMS; id++) {
			reassembly.add(fragment(0, new Uint8Array(60_000), true, id), 0);
			expect(reassembly.waitingBytes).toBeLessThanOrEqual(REASSEMBLY_MAX_BYTES);
		}
		expect(reassembly.waitingBytes).toBe(240_000);
	});

	it("holds a bounded number of fragments of one datagram", () => {
		const reassembly = new Reassembly();
		for (let count = 1; count <= REASSEMBLY_MAX_FRAGMENTS; count++) {
			reassembly.add(fragment(count * 16, new Uint8Array(8), true), 0);
			expect(reassembly.waitingBytes).toBe(count * 8);
		}
		reassembly.add(fragment(0, new Uint8Array(8), true), 0);
		expect(reassembly.waitingBytes).toBe(0);
	});
});

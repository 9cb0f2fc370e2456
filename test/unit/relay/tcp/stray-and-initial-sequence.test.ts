import { describe, expect, it } from "vitest";
import { InitialSequence } from "../../../../src/relay/flows/initial-sequence.js";
import { rstForStray } from "../../../../src/relay/flows/stray-segment.js";
import { NO_TCP_OPTIONS, type TcpSegment } from "../../../../src/relay/wire/tcp.js";
import { flagsOf } from "./tcp-guest.js";

const stray = (flags: string, payloadBytes = 0): TcpSegment => ({
	sourcePort: 1000,
	destinationPort: 80,
	sequence: 0xffff_fffe,
	acknowledgment: 700,
	flags: flagsOf(flags),
	window: 100,
	options: NO_TCP_OPTIONS,
	payload: new Uint8Array(payloadBytes),
});

describe("the answer to a segment of no connection (RFC 9293 3.10.7.1)", () => {
	it("takes the number that an acknowledgment names", () => {
		expect(rstForStray(stray("A", 10))).toMatchObject({
			sourcePort: 80,
			destinationPort: 1000,
			sequence: 700,
			acknowledgment: 0,
			flags: flagsOf("R"),
		});
	});

	it("acknowledges the whole of a segment that names none", () => {
		expect(rstForStray(stray("S"))).toMatchObject({ sequence: 0, acknowledgment: 0xffff_ffff, flags: flagsOf("RA") });
		expect(rstForStray(stray("SF", 10))).toMatchObject({ sequence: 0, acknowledgment: 10, flags: flagsOf("RA") });
	});

	it("is none to a RST", () => {
		expect(rstForStray(stray("R"))).toBeUndefined();
		expect(rstForStray(stray("RA"))).toBeUndefined();
	});
});

describe("initial sequence numbers (RFC 6528)", () => {
	const at = (nowMs: number, secret = 1): InitialSequence =>
		new InitialSequence({ nowMs: () => nowMs }, new Uint8Array(32).fill(secret));

	it("advance by one every 4 µs for one pair of addresses and ports", () => {
		const first = at(1000).next(1, 80, 2, 5000);
		expect((at(1001).next(1, 80, 2, 5000) - first) >>> 0).toBe(250);
		// The clock wraps every 4.77 hours.
		expect(at(1000 + 2 ** 32 / 250).next(1, 80, 2, 5000)).toBe(first);
	});

	it("differ between pairs and between secrets", () => {
		const numbers = [
			at(0).next(1, 80, 2, 5000),
			at(0).next(1, 80, 2, 5001),
			at(0).next(1, 81, 2, 5000),
			at(0).next(3, 80, 2, 5000),
			at(0).next(1, 80, 4, 5000),
			at(0, 2).next(1, 80, 2, 5000),
		];
		expect(new Set(numbers).size).toBe(numbers.length);
		for (const number of numbers) expect(number).toBe(number >>> 0);
	});

	it("have a secret of their own by default", () => {
		const clock = { nowMs: () => 0 };
		expect(new InitialSequence(clock).next(1, 2, 3, 4)).not.toBe(new InitialSequence(clock).next(1, 2, 3, 4));
	});
});

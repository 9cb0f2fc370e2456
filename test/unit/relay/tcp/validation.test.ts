import { describe, expect, it } from "vitest";
import { TCP_CHALLENGES_PER_SECOND } from "../../../../src/relay/limits.js";
import { bytes, TcpGuest } from "./tcp-guest.js";

describe("RST (RFC 5961 3)", () => {
	it("resets with exactly the next number", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "R" });
		expect(guest.events).toEqual(["closed: reset-by-guest"]);
		expect(guest.take()).toEqual([]);
	});

	it("is challenged elsewhere in the window, and dropped outside", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "R", position: 2 });
		guest.say({ flags: "R", position: 65_536 });
		expect(guest.take()).toEqual(["A 1+0 ack=1", "A 1+0 ack=1"]);
		guest.say({ flags: "R", position: 65_537 });
		guest.say({ flags: "R", position: 0 });
		expect(guest.take()).toEqual([]);
		expect(guest.connection.state).toBe("established");
	});
});

describe("SYN in a connection (RFC 5961 4)", () => {
	it("is challenged, wherever it is", () => {
		const guest = TcpGuest.established();
		for (const position of [0, 1, 500, 10_000_000]) guest.say({ flags: "S", position });
		expect(guest.take()).toEqual(Array(4).fill("A 1+0 ack=1"));
		expect(guest.connection.state).toBe("established");
	});
});

describe("challenges", () => {
	it("are limited in number per second", () => {
		const guest = TcpGuest.established();
		for (let count = 0; count < 100; count++) guest.say({ flags: "R", position: 2 });
		expect(guest.take()).toHaveLength(TCP_CHALLENGES_PER_SECOND);
		guest.wait(1000);
		guest.say({ flags: "R", position: 2 });
		expect(guest.take()).toHaveLength(1);
	});
});

describe("acknowledgments (RFC 5961 5)", () => {
	it("of what was never sent are answered and dropped with their data", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "PA", acknowledge: 2, position: 1, payload: "no" });
		expect(guest.take()).toEqual(["A 1+0 ack=1"]);
		expect(guest.received).toBe("");
	});

	it("that are far too old are answered and dropped with their data", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "PA", acknowledge: -70_000, position: 1, payload: "no" });
		expect(guest.take()).toEqual(["A 1+0 ack=1"]);
		expect(guest.received).toBe("");
	});

	it("that are a little old bring their data all the same", () => {
		const guest = TcpGuest.established();
		guest.connection.send(bytes(10));
		guest.say({});
		guest.say({ flags: "PA", acknowledge: 1, payload: "yes" });
		expect(guest.received).toBe("yes");
	});

	it("are needed: a segment without is dropped", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "P", position: 1, payload: "no" });
		expect(guest.received).toBe("");
		expect(guest.take()).toEqual([]);
	});
});

describe("a segment outside the window", () => {
	it("is answered with where we are", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "PA", position: -3, payload: "old" });
		guest.say({ flags: "PA", position: 70_000, payload: "far" });
		guest.say({ position: 0 });
		expect(guest.take()).toEqual(Array(3).fill("A 1+0 ack=1"));
		expect(guest.received).toBe("");
	});
});

describe("sequence numbers", () => {
	it.each([0xffff_fff0, 0x7fff_fff0, 0xffff_ffff])("wrap in both streams from %i on", (initialSequence) => {
		const guest = new TcpGuest({ initialSequence, opens: "us" });
		guest.guestSequence = initialSequence;
		guest.say({ flags: "SA", position: 0, options: { maximumSegmentSize: 10_000 } });
		for (let round = 0; round < 40; round++) {
			guest.say({ flags: "PA", payload: "0123456789" });
			guest.connection.send(Buffer.from("abcdefghij"));
		}
		expect(guest.received).toBe("0123456789".repeat(40));
		expect(guest.connection.queuedBytes).toBe(10);
		guest.say({});
		expect(guest.connection.queuedBytes).toBe(0);
		guest.say({ flags: "PA", position: guest.next - 5, payload: "56789new" });
		expect(guest.received.endsWith("56789new")).toBe(true);
	});
});

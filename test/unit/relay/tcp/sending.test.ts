import { describe, expect, it } from "vitest";
import { TCP_GIVE_UP_MS } from "../../../../src/relay/limits.js";
import { bytes, TcpGuest } from "./tcp-guest.js";

const MSS = { maximumSegmentSize: 1000 };

/** Twenty segments of 1000 in flight, taken. */
function inFlight(options: ConstructorParameters<typeof TcpGuest>[0] = {}): TcpGuest {
	const guest = TcpGuest.established({ syn: MSS, ...options });
	guest.connection.send(bytes(20_000));
	expect(guest.take()).toHaveLength(20);
	return guest;
}

describe("the guest's window", () => {
	it("is never exceeded, and scaled if that was agreed", () => {
		const plain = TcpGuest.established({ syn: MSS, window: 2500 });
		plain.connection.send(bytes(10_000));
		expect(plain.take()).toEqual(["A 1+1000 ack=1", "A 1001+1000 ack=1"]);
		const scaled = TcpGuest.established({ syn: { ...MSS, windowScale: 3 }, window: 500 });
		scaled.connection.send(bytes(10_000));
		expect(scaled.take()).toHaveLength(4);
	});

	it("gets no silly segments: what is left of it waits", () => {
		const guest = TcpGuest.established({ syn: MSS, window: 4000 });
		guest.connection.send(bytes(10_000));
		expect(guest.take()).toHaveLength(4);
		guest.say({ acknowledge: 4001, window: 900 });
		expect(guest.take()).toEqual([]);
		guest.say({ acknowledge: 4001, window: 2000 });
		expect(guest.take()).toEqual(["A 4001+1000 ack=1", "A 5001+1000 ack=1"]);
	});

	it("gets a small segment if nothing else moves", () => {
		const guest = TcpGuest.established({ syn: MSS, window: 4000 });
		guest.connection.send(bytes(10_000));
		guest.say({ window: 900 });
		guest.take();
		guest.wait(1000);
		expect(guest.take()[0]).toBe("A 4001+900 ack=1");
		guest.say({ window: 900 });
		expect(guest.connection.queuedBytes).toBe(10_000 - 4900);
	});

	it("is probed with one byte when it is closed, ever more seldom, and for as long as the guest answers", () => {
		const guest = TcpGuest.established({ syn: MSS, window: 1000 });
		guest.connection.send(bytes(3000));
		guest.say({ window: 0 });
		guest.take();
		const times: number[] = [];
		guest.hooks.segment = () => times.push(guest.clock.nowMs());
		for (let count = 0; count < 20; count++) {
			guest.wait((guest.connection.nextTimerMs ?? 0) - guest.clock.nowMs());
			expect(guest.take()).toEqual(["A 1001+1 ack=1"]);
			guest.say({ acknowledge: 1001, window: 0 });
		}
		expect(times.slice(0, 4)).toEqual([200, 600, 1400, 3000]);
		expect(guest.clock.nowMs()).toBeGreaterThan(TCP_GIVE_UP_MS);
		expect(guest.events).toEqual([]);
		guest.say({ acknowledge: 1001, window: 1000 });
		expect(guest.take()).toEqual(["A 1001+1000 ack=1"]);
		expect((guest.connection.nextTimerMs ?? 0) - guest.clock.nowMs()).toBe(200);
	});

	it("may take the probe's byte", () => {
		const guest = TcpGuest.established({ syn: MSS, window: 1000 });
		guest.connection.send(bytes(3000));
		guest.say({ window: 0 });
		guest.wait(200);
		guest.take();
		guest.say({ acknowledge: 1002, window: 1000 });
		expect(guest.take()).toEqual(["A 1002+1000 ack=1"]);
	});

	it("gives up on a guest that answers no probe", () => {
		const guest = TcpGuest.established({ syn: MSS, window: 1000 });
		guest.connection.send(bytes(3000));
		guest.say({ window: 0 });
		guest.wait(2 * TCP_GIVE_UP_MS);
		expect(guest.events).toEqual(["closed: timed-out"]);
	});

	it("may be taken back: nothing is sent beyond it again", () => {
		const guest = inFlight();
		guest.say({ acknowledge: 1001, window: 2000 });
		guest.wait(250);
		expect(guest.take()).toEqual(["A 1001+1000 ack=1", "A 2001+1000 ack=1"]);
	});

	it("is not set by a segment older than the last", () => {
		const guest = TcpGuest.established({ syn: MSS, window: 1000 });
		guest.connection.send(bytes(10_000));
		guest.say({ window: 1000 });
		expect(guest.take()).toHaveLength(2);
		guest.say({ acknowledge: 1, window: 60_000 });
		expect(guest.take()).toEqual([]);
	});
});

describe("retransmission", () => {
	it("comes after the timeout, backs off, and gives up in the end", () => {
		const guest = TcpGuest.established({ syn: MSS });
		guest.connection.send(bytes(100));
		guest.take();
		const times: number[] = [];
		guest.hooks.segment = () => times.push(guest.clock.nowMs());
		guest.wait(2 * TCP_GIVE_UP_MS);
		expect(times.slice(0, 4)).toEqual([200, 600, 1400, 3000]);
		expect(guest.take().slice(-2)).toEqual(["PA 1+100 ack=1", "RA 101+0 ack=1"]);
		expect(guest.events).toEqual(["closed: timed-out"]);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});

	it("of the FIN", () => {
		const guest = TcpGuest.established();
		guest.connection.end();
		guest.wait(200);
		expect(guest.take()).toEqual(["FA 1+0 ack=1", "FA 1+0 ack=1"]);
	});

	it("measures the time that an answer takes, not of what was sent twice", () => {
		const guest = TcpGuest.established();
		guest.connection.send(bytes(100));
		guest.clock.advance(800);
		guest.say({});
		guest.connection.send(bytes(100));
		// Smoothed 100, variation 200: 7/8 · 0 + 1/8 · 800, 3/4 · 0 + 1/4 · 800 (RFC 6298 2.3).
		expect((guest.connection.nextTimerMs ?? 0) - guest.clock.nowMs()).toBe(900);
		guest.wait(900);
		guest.clock.advance(5000);
		guest.say({});
		guest.connection.send(bytes(100));
		expect((guest.connection.nextTimerMs ?? 0) - guest.clock.nowMs()).toBe(900);
	});

	it("is fast after three duplicate acknowledgments, and goes on hole by hole (RFC 6582)", () => {
		const guest = inFlight();
		guest.say({ acknowledge: 1001 });
		for (let count = 0; count < 2; count++) guest.say({ acknowledge: 1001 });
		expect(guest.take()).toEqual([]);
		guest.say({ acknowledge: 1001 });
		expect(guest.take()).toEqual(["A 1001+1000 ack=1"]);
		guest.say({ acknowledge: 1001 });
		expect(guest.take()).toEqual([]);
		guest.say({ acknowledge: 5001 });
		expect(guest.take()).toEqual(["A 5001+1000 ack=1"]);
		guest.say({ acknowledge: 20_001 });
		expect(guest.take()).toEqual([]);
		expect(guest.connection.queuedBytes).toBe(0);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});

	it("does not take acknowledgments with data or another window for duplicates", () => {
		const guest = inFlight();
		for (let count = 0; count < 6; count++) guest.say({ acknowledge: 1001, payload: "x" });
		for (let count = 0; count < 6; count++) guest.say({ acknowledge: 1001, window: 60_000 + count });
		guest.connection.flush();
		expect(guest.connection.retransmissions).toBe(0);
	});

	it("fills exactly the holes that SACK shows", () => {
		const guest = inFlight({ syn: { ...MSS, sackPermitted: true } });
		const sack = (...ranges: [number, number][]): void =>
			guest.say({
				acknowledge: 1,
				options: { sack: ranges.map(([left, right]) => [5000 + left, 5000 + right] as const) },
			});
		sack([1001, 2001]);
		sack([1001, 2001], [3001, 4001]);
		expect(guest.take()).toEqual([]);
		sack([1001, 2001], [3001, 4001], [6001, 7001]);
		expect(guest.take()).toEqual(["A 1+1000 ack=1"]);
		sack([1001, 2001], [3001, 4001], [6001, 15_001]);
		expect(guest.take()).toEqual(["A 2001+1000 ack=1", "A 4001+1000 ack=1", "A 5001+1000 ack=1"]);
		guest.say({ acknowledge: 20_001 });
		expect(guest.take()).toEqual([]);
		expect(guest.connection.retransmissions).toBe(4);
	});

	it("survives SACK of what was never sent, or is turned round", () => {
		const guest = inFlight({ syn: { ...MSS, sackPermitted: true } });
		for (const [left, right] of [
			[0, 500],
			[30_000, 31_000],
			[9000, 8000],
			[19_000, 30_000],
			[5000, 5000],
		] as const) {
			for (let count = 0; count < 5; count++) {
				guest.say({ acknowledge: 1, options: { sack: [[5000 + left, 5000 + right]] } });
			}
		}
		expect(guest.connection.retransmissions).toBe(0);
		guest.wait(200);
		expect(guest.take()[0]).toBe("A 1+1000 ack=1");
	});

	it("sends everything again after a timeout, even what was selectively acknowledged (RFC 2018 8)", () => {
		const guest = inFlight({ syn: { ...MSS, sackPermitted: true } });
		guest.say({ acknowledge: 1, options: { sack: [[6001, 7001]] } });
		guest.wait(200);
		expect(guest.take()).toEqual(["A 1+1000 ack=1", "A 1001+1000 ack=1", "A 2001+1000 ack=1", "A 3001+1000 ack=1"]);
		guest.say({ acknowledge: 4001 });
		expect(guest.take()).toHaveLength(8);
		guest.say({});
		guest.say({});
		expect(guest.connection.queuedBytes).toBe(0);
	});
});

describe("segments", () => {
	it("are full while chunks keep coming and much is in flight, and the rest follows the acknowledgments", () => {
		const guest = TcpGuest.established({
			mtu: 65_521,
			syn: { maximumSegmentSize: 65_481, windowScale: 7 },
			window: 10_000,
		});
		for (let chunk = 0; chunk < 4; chunk++) guest.connection.send(bytes(65_536));
		expect(guest.segments.map(({ payload }) => payload.length)).toEqual([65_481, 55, 65_481, 55, 65_481, 65_481]);
		guest.take();
		guest.say({ acknowledge: 1 + 2 * 65_536, window: 10_000 });
		expect(guest.segments.map(({ payload }) => payload.length)).toEqual([110]);
	});

	it("are short at once if little is in flight, or the host has ended", () => {
		const guest = TcpGuest.established({ syn: MSS, window: 65_535 });
		guest.connection.send(bytes(30_001));
		expect(guest.take()).toHaveLength(31);
		const ended = TcpGuest.established({
			mtu: 65_521,
			syn: { maximumSegmentSize: 65_481, windowScale: 7 },
			window: 10_000,
		});
		ended.connection.send(bytes(3 * 65_481));
		ended.connection.send(bytes(1));
		ended.connection.end();
		expect(ended.take().slice(-1)).toEqual(["FPA 196444+1 ack=1"]);
	});
});

describe("back-pressure towards the host", () => {
	it("says stop at the budget, drops nothing, and go at half of it", () => {
		const guest = TcpGuest.established({ sendBudgetBytes: 3000, syn: MSS, window: 1000 });
		expect(guest.connection.send(bytes(2000))).toBe(true);
		expect(guest.connection.send(bytes(2000))).toBe(false);
		expect(guest.connection.send(bytes(1000))).toBe(false);
		expect(guest.connection.queuedBytes).toBe(5000);
		for (const acknowledge of [1001, 2001, 3001]) guest.say({ acknowledge, window: 1000 });
		expect(guest.events).toEqual([]);
		guest.say({ acknowledge: 4001, window: 1000 });
		expect(guest.events).toEqual(["writable"]);
	});

	it("may be answered from inside writable()", () => {
		const guest = TcpGuest.established({ sendBudgetBytes: 1000, syn: MSS });
		guest.hooks.writable = () => {
			guest.connection.send(bytes(500, 98));
			guest.connection.end();
		};
		expect(guest.connection.send(bytes(1000))).toBe(false);
		guest.take();
		guest.say({});
		expect(guest.take()).toEqual(["FPA 1001+500 ack=1"]);
	});

	it("keeps the order of answers given from inside data() and established()", () => {
		const guest = new TcpGuest({ syn: MSS });
		guest.hooks.established = () => guest.connection.send(Buffer.from("hello "));
		guest.hooks.data = () => {
			guest.connection.send(Buffer.from("world"));
			guest.connection.setReceiveBudget(60_000);
		};
		guest.connection.hostConnected();
		guest.say({ flags: "PA", payload: "x" });
		expect(guest.take()).toEqual(["SA 0+0 ack=1", "PA 1+11 ack=2"]);
	});
});

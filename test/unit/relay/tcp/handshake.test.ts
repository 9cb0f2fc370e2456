import { describe, expect, it } from "vitest";
import { TCP_HANDSHAKE_MS } from "../../../../src/relay/limits.js";
import { bytes, TcpGuest } from "./tcp-guest.js";

describe("a guest that opens", () => {
	it("gets its SYN-ACK only after the host has connected", () => {
		const guest = new TcpGuest();
		guest.wait(5000);
		expect(guest.take()).toEqual([]);
		expect(guest.connection.state).toBe("connecting");
		guest.connection.hostConnected();
		expect(guest.take()).toEqual(["SA 0+0 ack=1"]);
		expect(guest.connection.state).toBe("syn-received");
		expect(guest.events).toEqual([]);
		guest.say({});
		expect(guest.events).toEqual(["established"]);
		expect(guest.connection.state).toBe("established");
	});

	it("may send its SYN again while the host is asked: it is ignored", () => {
		const guest = new TcpGuest();
		guest.say({ flags: "S", position: 0 });
		guest.say({ flags: "S", position: 0 });
		expect(guest.take()).toEqual([]);
		guest.connection.hostConnected();
		expect(guest.take()).toEqual(["SA 0+0 ack=1"]);
	});

	it("may start over with another SYN while the host is asked", () => {
		const guest = new TcpGuest();
		guest.say({ flags: "S", position: 7777 });
		guest.connection.hostConnected();
		expect(guest.take()).toEqual(["SA 0+0 ack=7778"]);
	});

	it("may give up while the host is asked", () => {
		const guest = new TcpGuest();
		guest.say({ flags: "R", position: 2 });
		expect(guest.events).toEqual([]);
		guest.say({ flags: "R", position: 1 });
		expect(guest.events).toEqual(["closed: reset-by-guest"]);
		guest.connection.hostConnected();
		expect(guest.take()).toEqual([]);
	});

	it("gets RST with the right numbers when the host refuses, and nothing after", () => {
		const guest = new TcpGuest();
		guest.connection.hostRefused();
		expect(guest.segments).toMatchObject([{ sequence: 0, window: 0, sourcePort: 80, destinationPort: 40_000 }]);
		expect(guest.take()).toEqual(["RA -5000+0 ack=1"]);
		expect(guest.events).toEqual(["closed: aborted"]);
		guest.say({ flags: "PA", payload: "late" });
		guest.connection.hostConnected();
		guest.connection.abort();
		guest.connection.send(bytes(10));
		guest.connection.flush();
		expect(guest.take()).toEqual([]);
		expect(guest.events).toEqual(["closed: aborted"]);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});

	it("gets the SYN-ACK again when it is lost, then is given up", () => {
		const guest = new TcpGuest();
		guest.connection.hostConnected();
		guest.wait(1000);
		expect(guest.take()).toEqual(["SA 0+0 ack=1", "SA 0+0 ack=1"]);
		guest.say({ flags: "S", position: 0 });
		expect(guest.take()).toEqual(["SA 0+0 ack=1"]);
		guest.wait(2 * TCP_HANDSHAKE_MS);
		expect(guest.events).toEqual(["closed: timed-out"]);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});

	it("resets with a wrong acknowledgment before it is established", () => {
		const guest = new TcpGuest();
		guest.connection.hostConnected();
		guest.take();
		guest.say({ acknowledge: 77 });
		expect(guest.take()).toEqual(["R 77+0"]);
		expect(guest.connection.state).toBe("syn-received");
	});

	it("may send data with the acknowledgment that establishes", () => {
		const guest = new TcpGuest();
		guest.connection.hostConnected();
		guest.say({ flags: "PA", payload: "hello" });
		expect(guest.received).toBe("hello");
	});

	it("gets what the host said before the handshake was done", () => {
		const guest = new TcpGuest();
		guest.connection.send(Buffer.from("banner"));
		guest.connection.hostConnected();
		guest.connection.end();
		expect(guest.take()).toEqual(["SA 0+0 ack=1"]);
		guest.say({});
		expect(guest.take()).toEqual(["FPA 1+6 ack=1"]);
		expect(guest.connection.state).toBe("fin-wait-1");
	});
});

describe("options", () => {
	it("announce the MSS of the MTU", () => {
		const guest = new TcpGuest({ mtu: 9000 });
		guest.connection.hostConnected();
		expect(guest.segments[0]?.options).toEqual({ maximumSegmentSize: 8960 });
	});

	it("offer scaling and SACK only if the guest did", () => {
		const guest = new TcpGuest({ syn: { windowScale: 7, sackPermitted: true }, receiveBudgetBytes: 2 ** 20 });
		guest.connection.hostConnected();
		expect(guest.segments[0]?.options).toEqual({ maximumSegmentSize: 1460, windowScale: 5, sackPermitted: true });
	});

	it("leave the window of a SYN unscaled, and scale it afterwards", () => {
		const guest = new TcpGuest({ syn: { windowScale: 7 }, receiveBudgetBytes: 2 ** 20 });
		guest.connection.hostConnected();
		expect(guest.segments[0]?.window).toBe(65_535);
		guest.say({ flags: "PA", payload: "x" });
		guest.wait(40);
		expect(guest.segments[1]?.window).toBe((2 ** 20 - 1) >> 5);
	});

	it("never say more than 65,535 without scaling", () => {
		const guest = new TcpGuest({ receiveBudgetBytes: 2 ** 20 });
		guest.connection.hostConnected();
		guest.say({ flags: "PA", payload: "x" });
		guest.wait(40);
		expect(guest.segments.map((segment) => segment.window)).toEqual([65_535, 65_534]);
	});

	it("make segments no larger than the guest's MSS, and 536 where it names none", () => {
		const small = TcpGuest.established({ syn: { maximumSegmentSize: 1000 } });
		small.connection.send(bytes(2000));
		expect(small.take()).toEqual(["A 1+1000 ack=1", "PA 1001+1000 ack=1"]);
		const none = TcpGuest.established();
		none.connection.send(bytes(1000));
		expect(none.take()).toEqual(["A 1+536 ack=1", "PA 537+464 ack=1"]);
		const zero = TcpGuest.established({ syn: { maximumSegmentSize: 0 } });
		zero.connection.send(bytes(100));
		expect(zero.take()).toEqual(["A 1+88 ack=1", "PA 89+12 ack=1"]);
	});
});

describe("a connection that we open", () => {
	it("sends a SYN with everything on offer and acknowledges the answer", () => {
		const guest = new TcpGuest({ opens: "us", receiveBudgetBytes: 2 ** 20 });
		expect(guest.segments[0]?.options).toEqual({ maximumSegmentSize: 1460, windowScale: 5, sackPermitted: true });
		expect(guest.take()).toEqual(["S 0+0"]);
		guest.say({ flags: "SA", position: 0, options: { maximumSegmentSize: 1460 } });
		expect(guest.take()).toEqual(["A 1+0 ack=1"]);
		expect(guest.events).toEqual(["established"]);
	});

	it("takes the window of the answer unscaled, and later ones scaled", () => {
		const guest = new TcpGuest({ opens: "us" });
		guest.connection.send(bytes(10_000));
		const options = { maximumSegmentSize: 1000, windowScale: 1 };
		guest.say({ flags: "SA", position: 0, window: 2000, options });
		expect(guest.take()).toEqual(["S 0+0", "A 1+1000 ack=1", "A 1001+1000 ack=1"]);
		guest.say({ window: 2000 });
		expect(guest.take()).toHaveLength(4);
	});

	it("is closed by the guest's refusal, if it names our SYN", () => {
		const guest = new TcpGuest({ opens: "us" });
		guest.say({ flags: "RA", position: 0, acknowledge: 9 });
		guest.say({ flags: "R", position: 0 });
		expect(guest.events).toEqual([]);
		guest.say({ flags: "RA", position: 0, acknowledge: 1 });
		expect(guest.events).toEqual(["closed: reset-by-guest"]);
	});

	it("answers an acknowledgment of another connection with RST", () => {
		const guest = new TcpGuest({ opens: "us" });
		guest.take();
		guest.say({ acknowledge: 99 });
		expect(guest.take()).toEqual(["R 99+0"]);
	});

	it("meets a guest that opens at the same time", () => {
		const guest = new TcpGuest({ opens: "us" });
		guest.say({ flags: "S", position: 0 });
		expect(guest.take()).toEqual(["S 0+0", "SA 0+0 ack=1"]);
		guest.say({ flags: "SA", position: 0 });
		expect(guest.take()).toEqual(["A 1+0 ack=1"]);
		expect(guest.events).toEqual(["established"]);
	});

	it("acknowledges the SYN-ACK again when its acknowledgment was lost", () => {
		const guest = new TcpGuest({ opens: "us" });
		guest.say({ flags: "SA", position: 0 });
		guest.take();
		guest.say({ flags: "SA", position: 0 });
		expect(guest.take()).toEqual(["A 1+0 ack=1"]);
	});
});

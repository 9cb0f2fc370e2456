import { describe, expect, it } from "vitest";
import { TCP_TIME_WAIT_MS } from "../../../../src/relay/limits.js";
import { bytes, TcpGuest } from "./tcp-guest.js";

describe("half-close", () => {
	it("by the guest leaves the host's data flowing", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "FPA", payload: "request" });
		expect(guest.events).toEqual(["end"]);
		expect(guest.take()).toEqual(["A 1+0 ack=9"]);
		expect(guest.connection.state).toBe("close-wait");
		guest.connection.send(Buffer.from("answer"));
		guest.say({});
		guest.connection.send(Buffer.from("more"));
		expect(guest.take()).toEqual(["PA 1+6 ack=9", "PA 7+4 ack=9"]);
		guest.connection.end();
		expect(guest.take()).toEqual(["FA 11+0 ack=9"]);
		expect(guest.connection.state).toBe("last-ack");
		guest.say({});
		expect(guest.events).toEqual(["end", "closed: finished"]);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});

	it("by the host leaves the guest's data flowing", () => {
		const guest = TcpGuest.established();
		guest.connection.send(Buffer.from("banner"));
		guest.connection.end();
		expect(guest.take()).toEqual(["PA 1+6 ack=1", "FA 7+0 ack=1"]);
		guest.say({ acknowledge: 7 });
		expect(guest.connection.state).toBe("fin-wait-1");
		guest.say({});
		expect(guest.connection.state).toBe("fin-wait-2");
		expect(guest.connection.nextTimerMs).toBeUndefined();
		guest.wait(1_000_000);
		guest.say({ flags: "PA", payload: "still " });
		guest.say({ flags: "PA", payload: "here" });
		guest.connection.flush();
		expect(guest.received).toBe("still here");
		expect(guest.take()).toEqual(["A 8+0 ack=11"]);
		guest.say({ flags: "FA" });
		expect(guest.take()).toEqual(["A 8+0 ack=12"]);
		expect(guest.connection.state).toBe("time-wait");
	});

	it("sends the FIN after all that is queued", () => {
		const guest = TcpGuest.established({ window: 1000, syn: { maximumSegmentSize: 500 } });
		guest.connection.send(bytes(1500));
		guest.connection.end();
		expect(guest.take()).toEqual(["A 1+500 ack=1", "A 501+500 ack=1"]);
		guest.say({ window: 1000 });
		expect(guest.take()).toEqual(["FPA 1001+500 ack=1"]);
	});
});

describe("simultaneous close", () => {
	it("goes through CLOSING", () => {
		const guest = TcpGuest.established();
		guest.connection.end();
		guest.say({ flags: "FA", acknowledge: 1 });
		expect(guest.connection.state).toBe("closing");
		expect(guest.take()).toEqual(["FA 1+0 ack=1", "A 2+0 ack=2"]);
		guest.say({});
		expect(guest.connection.state).toBe("time-wait");
	});
});

describe("TIME-WAIT", () => {
	const inTimeWait = (): TcpGuest => {
		const guest = TcpGuest.established();
		guest.connection.end();
		guest.say({ flags: "FA" });
		guest.take();
		expect(guest.connection.state).toBe("time-wait");
		return guest;
	};

	it("acknowledges the FIN again, and begins anew", () => {
		const guest = inTimeWait();
		guest.wait(TCP_TIME_WAIT_MS - 1);
		guest.say({ flags: "FA", position: 1 });
		expect(guest.take()).toEqual(["A 2+0 ack=2"]);
		guest.wait(TCP_TIME_WAIT_MS - 1);
		expect(guest.events).toEqual(["end"]);
		guest.wait(1);
		expect(guest.events).toEqual(["end", "closed: finished"]);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});

	it("may be replaced by a SYN with a higher number only", () => {
		const guest = inTimeWait();
		expect(guest.connection.canBeReplacedBy(guest.segment({ flags: "S", position: 1 }))).toBe(false);
		expect(guest.connection.canBeReplacedBy(guest.segment({ flags: "S", position: 2 }))).toBe(true);
		expect(guest.connection.canBeReplacedBy(guest.segment({ flags: "SA", position: 2 }))).toBe(false);
		expect(guest.connection.lastSequence).toBe(5001);
		expect(TcpGuest.established().connection.canBeReplacedBy(guest.segment({ flags: "S", position: 9 }))).toBe(false);
	});

	it("ends quietly when it is aborted", () => {
		const guest = inTimeWait();
		guest.connection.abort();
		expect(guest.take()).toEqual([]);
		expect(guest.events).toEqual(["end", "closed: finished"]);
	});
});

describe("abort", () => {
	it("sends RST with our next number and forgets everything", () => {
		const guest = TcpGuest.established();
		guest.connection.send(bytes(10));
		guest.connection.abort();
		expect(guest.take()).toEqual(["PA 1+10 ack=1", "RA 11+0 ack=1"]);
		expect(guest.events).toEqual(["closed: aborted"]);
		expect(guest.connection.queuedBytes).toBe(0);
		expect(guest.connection.nextTimerMs).toBeUndefined();
		guest.connection.abort();
		guest.say({ flags: "PA", payload: "late" });
		expect(guest.take()).toEqual([]);
		expect(guest.received).toBe("");
	});

	it("of a SYN of ours sends RST behind it", () => {
		const guest = new TcpGuest({ opens: "us" });
		guest.connection.abort();
		expect(guest.take()).toEqual(["S 0+0", "R 1+0"]);
	});

	it.each(["data", "end", "established"] as const)("may be called from inside %s", (event) => {
		const guest = new TcpGuest();
		guest.connection.hostConnected();
		guest.hooks = { [event]: () => guest.connection.abort() };
		guest.say({ flags: "FPA", payload: "x" });
		expect(guest.events.at(-1)).toBe("closed: aborted");
		expect(guest.take().at(-1)).toMatch(/^RA/);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});
});

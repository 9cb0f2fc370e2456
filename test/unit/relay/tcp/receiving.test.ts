import { describe, expect, it } from "vitest";
import { TCP_DELAYED_ACK_MS, TCP_MAX_REORDERED_SEGMENTS } from "../../../../src/relay/limits.js";
import { bytes, TcpGuest } from "./tcp-guest.js";

const windows = (guest: TcpGuest): number[] => guest.segments.map((segment) => segment.window);

describe("acknowledgments", () => {
	it("of a batch are one", () => {
		const guest = TcpGuest.established();
		for (let count = 0; count < 10; count++) guest.say({ payload: "0123456789" });
		expect(guest.take()).toEqual([]);
		guest.connection.flush();
		expect(guest.take()).toEqual(["A 1+0 ack=101"]);
		guest.connection.flush();
		expect(guest.take()).toEqual([]);
		expect(guest.connection.nextTimerMs).toBeUndefined();
	});

	it("of a lone segment wait a little", () => {
		const guest = TcpGuest.established();
		guest.say({ payload: "x" });
		guest.connection.flush();
		guest.wait(TCP_DELAYED_ACK_MS - 1);
		expect(guest.take()).toEqual([]);
		guest.wait(1);
		expect(guest.take()).toEqual(["A 1+0 ack=2"]);
	});

	it("of the second segment come at the end of its batch", () => {
		const guest = TcpGuest.established();
		guest.say({ payload: "x" });
		guest.connection.flush();
		guest.say({ payload: "y" });
		guest.connection.flush();
		expect(guest.take()).toEqual(["A 1+0 ack=3"]);
	});

	it("ride on data", () => {
		const guest = TcpGuest.established();
		guest.say({ payload: "x" });
		guest.connection.send(bytes(5));
		guest.connection.flush();
		guest.wait(TCP_DELAYED_ACK_MS);
		expect(guest.take()).toEqual(["PA 1+5 ack=2"]);
	});

	it("are immediate for a segment out of order, each time, and for the one that fills the hole", () => {
		const guest = TcpGuest.established();
		guest.say({ position: 4, payload: "def" });
		guest.say({ position: 7, payload: "ghi" });
		expect(guest.take()).toEqual(["A 1+0 ack=1", "A 1+0 ack=1"]);
		guest.say({ position: 1, payload: "abc" });
		expect(guest.take()).toEqual(["A 1+0 ack=10"]);
		expect(guest.received).toBe("abcdefghi");
	});

	it("name what lies behind holes, the newest first, if SACK was agreed", () => {
		const guest = TcpGuest.established({ syn: { sackPermitted: true } });
		guest.say({ position: 11, payload: bytes(10) });
		guest.say({ position: 41, payload: bytes(10) });
		guest.say({ position: 21, payload: bytes(5) });
		expect(guest.segments.map(({ options }) => options.sack)).toEqual([
			[[100_011, 100_021]],
			[
				[100_041, 100_051],
				[100_011, 100_021],
			],
			[
				[100_011, 100_026],
				[100_041, 100_051],
			],
		]);
		guest.take();
		guest.say({ position: 1, payload: bytes(10) });
		expect(guest.segments[0]?.options.sack).toEqual([[100_041, 100_051]]);
	});
});

describe("reassembly", () => {
	it("trims overlaps and duplicates, the first version of a byte counts", () => {
		const guest = TcpGuest.established();
		guest.say({ position: 5, payload: "EFG" });
		guest.say({ position: 3, payload: "cdefghij" });
		guest.say({ position: 12, payload: "l" });
		guest.say({ position: 1, payload: "ab" });
		expect(guest.received).toBe("abcdEFGhij");
		guest.say({ position: 1, payload: "ABCDEFGHIJk" });
		expect(guest.received).toBe("abcdEFGhijkl");
	});

	it("keeps its own copy of what waits", () => {
		const guest = TcpGuest.established();
		const frame = Buffer.from("world");
		guest.say({ position: 7, payload: frame });
		frame.fill(0);
		guest.say({ position: 1, payload: "hello " });
		expect(guest.received).toBe("hello world");
	});

	it("holds a FIN until its turn", () => {
		const guest = TcpGuest.established();
		guest.say({ flags: "FA", position: 4, payload: "def" });
		expect(guest.events).toEqual([]);
		guest.say({ position: 1, payload: "abc" });
		expect(guest.received).toBe("abcdef");
		expect(guest.events).toEqual(["end"]);
		guest.say({ position: 8, payload: "beyond" });
		expect(guest.received).toBe("abcdef");
	});

	it("holds a bounded number of pieces", () => {
		const guest = TcpGuest.established();
		for (let piece = 0; piece < TCP_MAX_REORDERED_SEGMENTS + 100; piece++) {
			guest.say({ position: 3 + 2 * piece, payload: "b" });
		}
		guest.say({ position: 1, payload: "b" });
		for (let piece = 0; piece < TCP_MAX_REORDERED_SEGMENTS + 100; piece++) {
			guest.say({ position: 2 + 2 * piece, payload: "a" });
		}
		const pairs = TCP_MAX_REORDERED_SEGMENTS;
		expect(guest.received).toBe(`b${"ab".repeat(pairs)}a`);
	});

	it("treats urgent data as any other", () => {
		const guest = TcpGuest.established();
		guest.connection.receive({ ...guest.segment({ payload: "urgent" }), flags: 0x38 });
		expect(guest.received).toBe("urgent");
	});
});

describe("our window", () => {
	it("shrinks with what the host does not take, and never moves its edge back", () => {
		const guest = TcpGuest.established({ receiveBudgetBytes: 10_000 });
		guest.say({ payload: bytes(4000) });
		guest.connection.setReceiveBudget(0);
		guest.wait(40);
		expect(windows(guest)).toEqual([6000]);
		guest.say({ payload: bytes(6000) });
		guest.wait(40);
		expect(windows(guest)).toEqual([6000, 0]);
		expect(guest.received).toHaveLength(10_000);
	});

	it("takes no byte of a probe while it is closed, but answers", () => {
		const guest = TcpGuest.established({ receiveBudgetBytes: 1000 });
		guest.say({ payload: bytes(1000) });
		guest.wait(40);
		guest.take();
		guest.say({ position: 1001, payload: "p" });
		guest.say({ position: 1000 });
		expect(windows(guest)).toEqual([0, 0]);
		expect(guest.take()).toEqual(["A 1+0 ack=1001", "A 1+0 ack=1001"]);
		expect(guest.received).toHaveLength(1000);
	});

	it("takes acknowledgments while it is closed", () => {
		const guest = TcpGuest.established({ receiveBudgetBytes: 1000 });
		guest.say({ payload: bytes(1000) });
		guest.connection.send(bytes(100));
		guest.say({ position: 1001, payload: "p" });
		expect(guest.connection.queuedBytes).toBe(0);
	});

	it("opens with an update when it is worth a segment, not before", () => {
		const guest = TcpGuest.established({ receiveBudgetBytes: 20_000 });
		guest.connection.setReceiveBudget(20_000);
		guest.say({ payload: bytes(20_000) });
		guest.wait(40);
		expect(windows(guest)).toEqual([0]);
		guest.take();
		guest.connection.setReceiveBudget(100);
		guest.connection.setReceiveBudget(1459);
		expect(guest.take()).toEqual([]);
		guest.connection.setReceiveBudget(1460);
		expect(windows(guest)).toEqual([1460]);
		guest.connection.setReceiveBudget(20_000);
		expect(windows(guest)).toEqual([1460, 20_000]);
		guest.connection.setReceiveBudget(20_000);
		expect(windows(guest)).toHaveLength(2);
	});

	it("opens by half of a budget that is smaller than a segment", () => {
		const guest = TcpGuest.established({ receiveBudgetBytes: 1000 });
		guest.say({ payload: bytes(1000) });
		guest.wait(40);
		guest.take();
		guest.connection.setReceiveBudget(499);
		expect(guest.take()).toEqual([]);
		guest.connection.setReceiveBudget(500);
		expect(windows(guest)).toEqual([500]);
	});
});

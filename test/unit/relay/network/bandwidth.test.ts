import { describe, expect, it } from "vitest";
import { Bandwidth } from "../../../../src/relay/bandwidth.js";
import { Deadlines } from "../../../../src/relay/flows/deadlines.js";
import { VirtualClock } from "../virtual-clock.js";

function setUp(bytesPerSecond: number) {
	const clock = new VirtualClock();
	return { clock, bandwidth: new Bandwidth(bytesPerSecond, clock, new Deadlines(clock)) };
}

describe("bandwidth", () => {
	it("lets a burst of a tenth of a second through, then nothing more until the debt is paid", () => {
		const { clock, bandwidth } = setUp(1_000_000);
		expect(bandwidth.take(99_999)).toBe(true);
		expect(bandwidth.take(50_001)).toBe(false);
		let resumedMs: number | undefined;
		bandwidth.wait(() => {
			resumedMs = clock.nowMs();
		});
		clock.advance(1000);
		expect(resumedMs).toBe(51);
		expect(clock.pendingTimers).toBe(0);
	});

	it("a producer that always waits gets the rate, whatever the size of its pieces", () => {
		for (const piece of [100, 1460, 65_536]) {
			const { clock, bandwidth } = setUp(1_000_000);
			let sent = 0;
			const produce = () => {
				do sent += piece;
				while (bandwidth.take(piece));
				bandwidth.wait(produce);
			};
			produce();
			clock.advance(10_000);
			expect(sent).toBeGreaterThan(10_000_000 - 65_536);
			expect(sent).toBeLessThan(10_100_000 + 2 * 65_536);
		}
	});

	it("what can't wait is refused over the bucket, and a datagram larger than the bucket passes when it is full", () => {
		const { clock, bandwidth } = setUp(10_000);
		expect(bandwidth.tryTake(1400)).toBe(true);
		expect(bandwidth.tryTake(1400)).toBe(false);
		clock.advance(10_000);
		expect(bandwidth.tryTake(60_000)).toBe(true);
	});

	it("sets no timer while nobody waits", () => {
		const { clock, bandwidth } = setUp(1000);
		bandwidth.take(100_000);
		expect(clock.pendingTimers).toBe(0);
	});
});

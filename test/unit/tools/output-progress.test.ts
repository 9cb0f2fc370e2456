import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { OutputProgress } from "../../../src/tools/output-progress.js";

beforeEach(() => {
	vi.useFakeTimers();
});
afterEach(() => {
	vi.useRealTimers();
});

function listen() {
	const heard: string[] = [];
	const progress = new OutputProgress(async (message) => void heard.push(message));
	return { heard, progress };
}

describe("OutputProgress", () => {
	it("sends ten messages a second at most, in order", async () => {
		const { heard, progress } = listen();
		for (let i = 0; i < 1000; i++) {
			progress.push("stdout", Buffer.from(`${i}\n`));
			await vi.advanceTimersByTimeAsync(1);
		}
		await progress.end();
		expect(heard.length).toBeLessThanOrEqual(11);
		expect(heard.join("")).toBe(Array.from({ length: 1000 }, (_, i) => `${i}\n`).join(""));
	});

	it("shows the start of a flood and how much is not shown", async () => {
		const { heard, progress } = listen();
		for (let i = 0; i < 1000; i++) progress.push("stdout", Buffer.alloc(10_000, "y"));
		await vi.advanceTimersByTimeAsync(100);
		await progress.end();
		expect(heard).toHaveLength(1);
		expect(heard[0]?.length).toBeLessThan(4200);
		expect(heard[0]).toMatch(/9995904 bytes not shown here/);
	});

	it("keeps a character whole that arrives in two pieces", async () => {
		const { heard, progress } = listen();
		const euro = Buffer.from("€");
		progress.push("stdout", euro.subarray(0, 1));
		await vi.advanceTimersByTimeAsync(150);
		progress.push("stderr", Buffer.from("!"));
		progress.push("stdout", euro.subarray(1));
		await progress.end();
		expect(heard.join("")).not.toContain("\ufffd");
		expect(heard.join("")).toContain("€");
	});

	it("says now and then that a silent command still runs, and nothing after its end", async () => {
		const { heard, progress } = listen();
		await vi.advanceTimersByTimeAsync(10_100);
		expect(heard).toEqual(["still running after 5 s", "still running after 10 s"]);
		await progress.end();
		await vi.advanceTimersByTimeAsync(60_000);
		expect(heard).toHaveLength(2);
	});

	it("waits for a slow client", async () => {
		let release: (() => void) | undefined;
		let sent = 0;
		const progress = new OutputProgress(() => {
			sent++;
			return new Promise((resolve) => {
				release = resolve;
			});
		});
		progress.push("stdout", Buffer.from("a"));
		await vi.advanceTimersByTimeAsync(100);
		for (let i = 0; i < 50; i++) {
			progress.push("stdout", Buffer.from("b"));
			await vi.advanceTimersByTimeAsync(100);
		}
		expect(sent).toBe(1);
		release?.();
		await vi.advanceTimersByTimeAsync(100);
		expect(sent).toBe(2);
		await progress.end();
	});
});

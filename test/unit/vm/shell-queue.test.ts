import { describe, expect, it } from "vitest";
import { ShellQueue } from "../../../src/vm/shell-queue.js";

describe("the shell's queue", () => {
	it("lets commands in one at a time, in the order in which they came", async () => {
		const queue = new ShellQueue();
		const order: string[] = [];
		const work = async (name: string) => {
			const leave = await queue.enter();
			order.push(`${name} in`);
			await new Promise((resolve) => setImmediate(resolve));
			order.push(`${name} out`);
			leave();
		};
		await Promise.all([work("a"), work("b"), work("c")]);
		expect(order).toEqual(["a in", "a out", "b in", "b out", "c in", "c out"]);
	});

	it("passes over a caller that gave up while it waited", async () => {
		const queue = new ShellQueue();
		const leave = await queue.enter();
		const abort = new AbortController();
		const waiting = queue.enter(abort.signal);
		const next = queue.enter();
		abort.abort();
		leave();
		await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
		await expect(next).resolves.toBeTypeOf("function");
	});

	it("refuses the 65th waiting command", async () => {
		const queue = new ShellQueue();
		await queue.enter();
		for (let i = 0; i < 64; i++) void queue.enter();
		await expect(queue.enter()).rejects.toMatchObject({ code: "busy", message: expect.stringContaining("64") });
	});
});

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ConsoleLog } from "../../../src/vm/console-log.js";

let folder = "";
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-console-"));
});
afterEach(() => {
	rmSync(folder, { recursive: true });
});

describe("the console log", () => {
	it("finds a kernel panic even when it arrives in two pieces", () => {
		const log = new ConsoleLog(join(folder, "console.log"));
		expect(log.write(Buffer.from("[ 1.0] Kernel panic - not"))).toBeUndefined();
		expect(log.write(Buffer.from(" syncing: sysrq triggered crash\r\n"))).toBe(
			"Kernel panic - not syncing: sysrq triggered crash",
		);
		void log.close();
	});

	it("gives the last lines without terminal escapes", () => {
		const log = new ConsoleLog(join(folder, "console.log"));
		log.write(Buffer.from(`${"line\r\n".repeat(20)}\u001b[31mred\u0007\r\n\r\n`));
		expect(log.lastLines()).toHaveLength(8);
		expect(log.lastLines().at(-1)).toBe("[31mred");
		void log.close();
	});

	it("stops the file at 4 MiB and says so", async () => {
		const path = join(folder, "deep", "console.log");
		const log = new ConsoleLog(path);
		for (let i = 0; i < 100; i++) log.write(Buffer.alloc(64 * 1024, "x"));
		await log.close();
		const text = readFileSync(path, "utf8");
		expect(text.length).toBeLessThan(4.1 * 1024 * 1024);
		expect(text).toContain("the console log is full");
	});
});

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { platform, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makeDataFolder } from "../../src/data-folder.js";

let folder = "";
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-home-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("the data folder", () => {
	it("is made with its parents, and may be there already", async () => {
		const path = join(folder, "a", "b", "c");
		await Promise.all([makeDataFolder(path), makeDataFolder(path)]);
		await makeDataFolder(path);
		expect(existsSync(path)).toBe(true);
	});

	it("is refused where a file is in the way", async () => {
		writeFileSync(join(folder, "file"), "");
		await expect(makeDataFolder(join(folder, "file"))).rejects.toMatchObject({ code: "invalid-argument" });
		await expect(makeDataFolder(join(folder, "file", "below"))).rejects.toMatchObject({
			message: expect.stringContaining("ENOTDIR"),
		});
	});

	it.runIf(platform() === "linux")("is refused in /proc instead of trying for ever", async () => {
		await expect(makeDataFolder("/proc/nothing/here")).rejects.toMatchObject({
			code: "invalid-argument",
			message: expect.stringContaining("/proc/nothing/here"),
		});
	});
});

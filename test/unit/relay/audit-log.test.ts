import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createLog, silentLog } from "../../../src/log.js";
import { type AuditEntry, openAuditLog } from "../../../src/relay/audit-log.js";

let folder: string;
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-audit-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const entry = (more: Partial<AuditEntry> = {}): AuditEntry => ({
	machine: "one",
	protocol: "tcp",
	name: "example.org",
	address: 0x5db8d822,
	port: 443,
	verdict: "allowed",
	rule: "allow example.org:443",
	bytesOut: 517,
	bytesIn: 4096,
	...more,
});
const now = () => new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 678));
const linesOf = (path: string): string[] => readFileSync(path, "utf8").split("\n").slice(0, -1);

describe("the audit log", () => {
	it("has one line of JSON for each decision, in order, in a file of the user's own", async () => {
		const path = join(folder, "deep/audit.jsonl");
		const audit = openAuditLog(path, silentLog, { now });
		audit.write(entry());
		audit.write(entry({ protocol: "icmp", name: undefined, port: undefined, verdict: "refused", rule: "not allowed" }));
		await audit.close();
		expect(linesOf(path)[0]).toBe(
			'{"time":"2026-01-02T03:04:05.678Z","machine":"one","protocol":"tcp","name":"example.org","address":"93.184.216.34",' +
				'"port":443,"verdict":"allowed","rule":"allow example.org:443","bytesOut":517,"bytesIn":4096}',
		);
		expect(JSON.parse(linesOf(path)[1] ?? "")).toMatchObject({ name: null, port: null, verdict: "refused" });
		if (process.platform !== "win32") expect(statSync(path).mode & 0o777).toBe(0o600);
	});

	it("keeps a guest's names from ending a line", async () => {
		const path = join(folder, "audit.jsonl");
		const audit = openAuditLog(path, silentLog);
		audit.write(entry({ name: 'a"\n{"verdict":"allowed"}\u001b[2J' }));
		await audit.close();
		expect(linesOf(path)).toHaveLength(1);
		expect(JSON.parse(linesOf(path)[0] ?? "")).toMatchObject({ name: 'a"\n{"verdict":"allowed"}\u001b[2J' });
		expect(linesOf(path)[0]).not.toContain("\u001b");
	});

	it("goes on in the file that is there", async () => {
		const path = join(folder, "audit.jsonl");
		for (let count = 0; count < 2; count++) {
			const audit = openAuditLog(path, silentLog);
			audit.write(entry());
			await audit.close();
		}
		expect(linesOf(path)).toHaveLength(2);
	});

	it("begins a new file when one is full, and keeps three old ones", async () => {
		const path = join(folder, "audit.jsonl");
		const audit = openAuditLog(path, silentLog, { maxFileBytes: 500 });
		for (let port = 1; port <= 20; port++) {
			audit.write(entry({ port }));
			await new Promise((resolve) => setTimeout(resolve, 5));
		}
		await audit.close();
		const kept = [`${path}.3`, `${path}.2`, `${path}.1`, path].flatMap(linesOf);
		const ports = kept.map((line) => JSON.parse(line).port as number);
		expect(ports).toEqual(Array.from({ length: ports.length }, (_, index) => 21 - ports.length + index));
		expect(ports.length).toBeGreaterThanOrEqual(7);
		expect(existsSync(`${path}.4`)).toBe(false);
		for (const file of [path, `${path}.1`]) expect(statSync(file).size).toBeLessThanOrEqual(500);
	});

	it("loses entries rather than memory when the disk is slow, and says so once", async () => {
		const warnings: string[] = [];
		const path = join(folder, "audit.jsonl");
		const audit = openAuditLog(
			path,
			createLog("warn", (line) => warnings.push(line)),
			{ maxWaitingLines: 10 },
		);
		for (let port = 1; port <= 25; port++) audit.write(entry({ port }));
		expect(audit.lost).toBe(15);
		await audit.close();
		expect(linesOf(path)).toHaveLength(10);
		expect(warnings).toHaveLength(1);
		expect(warnings[0]).toContain("loses entries: the disk is too slow");
	});

	it("that can't be written says why, once", async () => {
		const warnings: string[] = [];
		writeFileSync(join(folder, "file"), "");
		const audit = openAuditLog(
			join(folder, "file/audit.jsonl"),
			createLog("warn", (line) => warnings.push(line)),
		);
		for (let count = 0; count < 3; count++) {
			audit.write(entry());
			await new Promise((resolve) => setTimeout(resolve, 20));
		}
		await audit.close();
		expect(audit.lost).toBe(3);
		expect(warnings).toHaveLength(1);
		expect(warnings[0]).toMatch(/ENOTDIR|EEXIST/);
	});
});

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { createLog, silentLog } from "../../../src/log.js";
import { PcapFile } from "../../../src/relay/pcap.js";

const folder = mkdtempSync(join(tmpdir(), "sandbox86-pcap-"));
afterAll(() => rmSync(folder, { recursive: true }));

const hasTcpdump = spawnSync("tcpdump", ["--version"]).error === undefined;

interface Captured {
	readonly timeMs: number;
	readonly frame: Buffer;
}

function parsePcap(file: Buffer): Captured[] {
	expect(file.subarray(0, 24)).toEqual(
		Buffer.from([0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0d, 0, 1, 0, 1, 0, 0, 0]),
	);
	const records: Captured[] = [];
	for (let at = 24; at < file.length; ) {
		const captured = file.readUInt32LE(at + 8);
		expect(file.readUInt32LE(at + 12)).toBe(captured);
		expect(file.readUInt32LE(at + 4)).toBeLessThan(1_000_000);
		records.push({
			timeMs: file.readUInt32LE(at) * 1000 + file.readUInt32LE(at + 4) / 1000,
			frame: file.subarray(at + 16, at + 16 + captured),
		});
		at += 16 + captured;
	}
	return records;
}

async function capture(name: string, maxBytes: number) {
	const lines: string[] = [];
	const clock = { nowMs: 1_700_000_000_123.5 };
	const path = join(folder, name);
	const log = createLog("debug", (line) => lines.push(line));
	const pcap = await PcapFile.open({ path, maxBytes, nowMs: () => clock.nowMs, log });
	return { pcap, path, lines, clock, parsed: () => parsePcap(readFileSync(path)) };
}

const frameOf = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, at) => at));

describe("a capture", () => {
	test("holds every frame with its time, in order, and is the user's alone", async () => {
		const { pcap, path, clock, parsed } = await capture("whole.pcap", 1 << 30);
		const sizes = [60, 0, 1514, 65_549, 42];
		for (const size of sizes) {
			pcap.write(frameOf(size));
			clock.nowMs += 1000.25;
		}
		await pcap.close();
		const records = parsed();
		expect(records.map(({ frame }) => frame)).toEqual(sizes.map(frameOf));
		expect(records.map(({ timeMs }) => timeMs)).toEqual(sizes.map((_, at) => 1_700_000_000_123.5 + at * 1000.25));
		expect(statSync(path).mode & 0o777).toBe(0o600);
	});

	test("copies what it is given: the memory may be used again", async () => {
		const { pcap, parsed } = await capture("copy.pcap", 1 << 30);
		const frame = frameOf(60);
		pcap.write(frame);
		frame.fill(0xff);
		await pcap.close();
		expect(parsed()[0]?.frame).toEqual(frameOf(60));
	});

	test("larger than many pieces is whole", async () => {
		const { pcap, parsed } = await capture("large.pcap", 1 << 30);
		for (let frame = 0; frame < 2000; frame++) {
			pcap.write(frameOf(frame));
			if (frame % 100 === 0) await new Promise(setImmediate);
		}
		await pcap.close();
		expect(parsed().map(({ frame }) => frame.length)).toEqual(Array.from({ length: 2000 }, (_, frame) => frame));
	});

	test("ends before it is too large, and says so once", async () => {
		const { pcap, path, lines, parsed } = await capture("full.pcap", 24 + 3 * (16 + 100) + 50);
		for (let frame = 0; frame < 10; frame++) pcap.write(frameOf(100));
		pcap.write(frameOf(1));
		await pcap.close();
		expect(parsed()).toHaveLength(3);
		expect(lines).toEqual([
			`sandbox86 warn: the capture file ${path} has its full size, 422 bytes: what follows is not captured\n`,
		]);
	});

	test.skipIf(process.platform !== "linux")("on a full disk says so once and harms nobody", async () => {
		const lines: string[] = [];
		const log = createLog("debug", (line) => lines.push(line));
		const pcap = await PcapFile.open({ path: "/dev/full", maxBytes: 1 << 30, nowMs: () => 0, log });
		for (let frame = 0; frame < 500; frame++) pcap.write(frameOf(1500));
		await pcap.close();
		pcap.write(frameOf(60));
		expect(lines).toEqual(["sandbox86 warn: the capture file /dev/full can't be written any more: ENOSPC\n"]);
	});

	test("that can't be made is refused at once", async () => {
		const path = join(folder, "missing", "x.pcap");
		await expect(PcapFile.open({ path, maxBytes: 1000, nowMs: () => 0, log: silentLog })).rejects.toMatchObject({
			code: "invalid-argument",
			message: `the capture file ${path} can't be written: ENOENT`,
		});
	});

	test.skipIf(!hasTcpdump)("is what tcpdump reads", async () => {
		const { pcap, path } = await capture("tcpdump.pcap", 1 << 30);
		// An ARP request: who has 10.0.2.2, tell 10.0.2.15
		const arp = Buffer.from(
			"ffffffffffff52540012345608060001080006040001525400123456" + "0a00020f0000000000000a000202",
			"hex",
		);
		pcap.write(arp);
		await pcap.close();
		const text = execFileSync("tcpdump", ["-n", "-r", path], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
		expect(text).toMatch(/ARP, Request who-has 10\.0\.2\.2 tell 10\.0\.2\.15/);
	});
});

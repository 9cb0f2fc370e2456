import { createSocket } from "node:dgram";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { parseCommandLine } from "../../src/config.js";
import { silentLog } from "../../src/log.js";
import { type NetworkSettings, openNetwork, parsePortForward, type ServerNetwork } from "../../src/network.js";
import { TestClient } from "./relay/websocket-client.js";

const folder = mkdtempSync(join(tmpdir(), "sandbox86-network-"));
const auditLog = join(folder, "network.jsonl");
let taken: Server;
let takenPort: number;
let network: ServerNetwork | undefined;

beforeAll(async () => {
	taken = createServer().listen(0, "127.0.0.1");
	await new Promise((resolve) => taken.once("listening", resolve));
	takenPort = (taken.address() as AddressInfo).port;
});
afterEach(async () => {
	await network?.close();
	network = undefined;
});
afterAll(() => {
	taken.close();
	rmSync(folder, { recursive: true, force: true });
});

function settings(args: readonly string[]): NetworkSettings {
	const commandLine = parseCommandLine(args, {});
	if (commandLine.kind !== "run") throw new Error(`not a run: ${commandLine.kind}`);
	return commandLine.config;
}

async function open(...args: string[]): Promise<ServerNetwork> {
	network = await openNetwork(settings(args), auditLog, silentLog);
	return network;
}

/** A machine on the wire that says nothing. */
async function attach(of: ServerNetwork): Promise<TestClient> {
	const attachment = await of.attach();
	if (attachment.kind !== "relay") throw new Error(`not a relay: ${attachment.kind}`);
	return TestClient.connect(attachment.url);
}

async function freePort(): Promise<number> {
	const probe = createServer().listen(0, "127.0.0.1");
	await new Promise((resolve) => probe.once("listening", resolve));
	const { port } = probe.address() as AddressInfo;
	await new Promise((resolve) => probe.close(resolve));
	return port;
}

async function isTaken(port: number): Promise<boolean> {
	const probe = createServer();
	const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
		probe.once("error", resolve);
		probe.listen({ host: "127.0.0.1", port }, () => probe.close(() => resolve(undefined)));
	});
	return failure?.code === "EADDRINUSE";
}

async function isUdpTaken(port: number): Promise<boolean> {
	const probe = createSocket("udp4");
	const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
		probe.once("error", resolve);
		probe.bind({ address: "127.0.0.1", port }, () => probe.close(() => resolve(undefined)));
	});
	return failure?.code === "EADDRINUSE";
}

const invalid = (message: string) =>
	expect.objectContaining({ code: "invalid-argument", message: expect.stringContaining(message) });

describe("a port forward", () => {
	it.each([
		["8080:80", { protocol: "tcp", hostPort: 8080, guestPort: 80 }],
		["8080:80/tcp", { protocol: "tcp", hostPort: 8080, guestPort: 80 }],
		["5353:53/udp", { protocol: "udp", hostPort: 5353, guestPort: 53 }],
		["65535:1", { protocol: "tcp", hostPort: 65_535, guestPort: 1 }],
	])("is written as %s", (text, expected) => {
		expect(parsePortForward(text)).toEqual(expected);
	});

	it.each([
		"",
		"8080",
		"8080:",
		":80",
		"0:80",
		"8080:0",
		"65536:80",
		"8080:65536",
		"8080:80:1",
		"127.0.0.1:8080:80",
		"8080:80/sctp",
		"8080:80/UDP",
		"-1:80",
		"8e3:80",
		" 8080:80",
		"8080:80\n",
		"999999:80",
	])("is not %j", (text) => {
		expect(() => parsePortForward(text)).toThrowError(
			invalid(`--forward is ${JSON.stringify(text)}, but HOST:GUEST is needed, two ports from 1 to 65535`),
		);
	});

	it("is shown in part where it is long", () => {
		expect(() => parsePortForward("9".repeat(10_000))).toThrowError(/^--forward is "9{100}", but/);
	});
});

describe("a network without the relay", () => {
	it.each([
		["none", { kind: "none" }],
		["fetch", { kind: "v86", relayUrl: "fetch" }],
	])("is attached as it is: %s", async (kind, expected) => {
		const plain = await open("--network", kind);
		expect(await plain.attach()).toEqual(expected);
		expect(plain.openFlows()).toEqual([]);
		expect(existsSync(auditLog)).toBe(false);
	});

	it.each(["none", "fetch"])("takes no option of the relay: %s", async (kind) => {
		const options = [
			["--allow", "example.org"],
			["--deny", "example.org"],
			["--host-port", "80"],
			["--forward", "8080:80"],
			["--dns", "192.0.2.53"],
			["--audit-log", "/tmp/audit"],
			["--pcap", "/tmp/pcap"],
		];
		for (const [flag = "", value = ""] of options) {
			await expect(open("--network", kind, flag, value)).rejects.toThrowError(
				expect.objectContaining({
					code: "invalid-argument",
					message: `${flag} is of no effect with --network ${kind}`,
					hint: "use --network relay, or leave the option out",
				}),
			);
		}
	});

	it.each(["none", "fetch"])("forwards no port: %s", async (kind) => {
		const plain = await open("--network", kind);
		await expect(plain.forwardPort(80)).rejects.toThrowError(
			invalid(`no port can be forwarded with --network ${kind}`),
		);
	});
});

describe("the relay's settings", () => {
	it.each([
		[["--allow", "two words"], 'the rule "two words" can\'t be read: "two words" is not a host name'],
		[["--allow", "exa$mple.org"], 'the rule "exa$mple.org" can\'t be read'],
		[["--allow", "1.2.3"], '"1.2.3" is not an IPv4 address'],
		[["--allow", "10.0.0.1/8"], "its network of 8 bits begins at 10.0.0.0"],
		[["--allow", "2001:db8::1"], "the machines' network is IPv4"],
		[["--allow", "example.org:0"], '":0" is not a port of 1 to 65535'],
		[["--allow", "*.*.example.org"], 'a wildcard stands alone or as "*." at the front'],
		[["--deny", "example.org:90-80"], '":90-80" ends before it begins'],
		[["--host-port", "0"], '"0" is not a port'],
		[["--host-port", "http"], '"http" is not a port'],
		[["--host-port", "65536"], '"65536" is not a port'],
		[["--dns", "dns.example.org"], '"dns.example.org" is not the address of a DNS server'],
		[["--forward", "80"], '--forward is "80", but HOST:GUEST is needed'],
	])("are read before anything starts: %j", async (args, message) => {
		await expect(open(...args)).rejects.toThrowError(invalid(message));
	});

	it("name a forward whose port is taken", async () => {
		await expect(open("--forward", `${takenPort}:80`)).rejects.toThrowError(
			expect.objectContaining({
				code: "already-exists",
				message: `--forward can't have TCP port ${takenPort} of 127.0.0.1 (EADDRINUSE)`,
			}),
		);
	});

	it("name a UDP forward whose port is taken", async () => {
		const socket = createSocket("udp4");
		await new Promise<void>((resolve) => socket.bind({ address: "127.0.0.1", port: 0 }, resolve));
		const { port } = socket.address();
		try {
			await expect(open("--forward", `${port}:80/udp`)).rejects.toThrowError(
				expect.objectContaining({
					code: "already-exists",
					message: `--forward can't have UDP port ${port} of 127.0.0.1 (EADDRINUSE)`,
				}),
			);
		} finally {
			socket.close();
		}
	});

	const expectUnwritable = async (flag: string, what: string, path: string, errno: string) =>
		await expect(open(flag, path)).rejects.toThrowError(
			expect.objectContaining({
				code: "invalid-argument",
				message: `the ${what} ${path} can't be written: ${errno}`,
				hint: `choose another one with ${flag}, or make its folder`,
			}),
		);

	it.each([
		["--pcap", "capture file", "missing/x", "ENOENT"],
		["--pcap", "capture file", ".", "EISDIR"],
		["--pcap", "capture file", "plain-file/x", "ENOTDIR"],
		["--audit-log", "audit log", ".", "EISDIR"],
		["--audit-log", "audit log", "plain-file/x", "EEXIST"],
	])("name a file that can't be written: %s %s %s", async (flag, what, path, errno) => {
		writeFileSync(join(folder, "plain-file"), "");
		await expectUnwritable(flag, what, join(folder, path), errno);
	});

	it("name a file that the user may not write", async (context) => {
		context.skip(process.geteuid?.() === 0, "root may write everywhere");
		mkdirSync(join(folder, "closed"), { mode: 0o500 });
		await expectUnwritable("--pcap", "capture file", join(folder, "closed", "x"), "EACCES");
		await expectUnwritable("--audit-log", "audit log", join(folder, "closed", "x"), "EACCES");
	});

	it("start nothing by themselves", async () => {
		const port = await freePort();
		const relay = await open("--forward", `${port}:80`, "--allow", "*.example.org", "--host-port", "8080");
		expect(await isTaken(port)).toBe(false);
		await expect(relay.forwardPort(80)).rejects.toThrowError(/the relay is not running/);
	});
});

describe("the relay of a server", () => {
	it("gives its one machine the same URL each time", async () => {
		const relay = await open();
		const [first, second] = await Promise.all([relay.attach(), relay.attach()]);
		expect(first).toEqual({
			kind: "relay",
			url: expect.stringMatching(/^ws:\/\/127\.0\.0\.1:\d+\/[\w-]{43}\/machine-\d+$/),
		});
		expect(second).toEqual(first);
	});

	it("opens each --forward once the machine is there", async () => {
		const [port, udpPort] = [await freePort(), await freePort()];
		const relay = await open("--forward", `${port}:80`, "--forward", `${udpPort}:53/udp`);
		await attach(relay);
		await expect.poll(() => isTaken(port)).toBe(true);
		await expect.poll(() => isUdpTaken(udpPort)).toBe(true);
		expect(await relay.forwardPort(80)).toBe(`http://127.0.0.1:${port}`);
	});

	it("forwards a port once, however often it is asked", async () => {
		const relay = await open();
		await attach(relay);
		const url = await relay.forwardPort(8000);
		expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
		expect(await relay.forwardPort(8000)).toBe(url);
		expect(await relay.forwardPort(8001)).not.toBe(url);
	});

	it("ends its machine's connection and its forwards with itself", async () => {
		const relay = await open();
		const client = await attach(relay);
		const { port } = new URL(await relay.forwardPort(8000));
		await relay.close();
		expect((await client.ended).code).toBe(1001);
		expect(await isTaken(Number(port))).toBe(false);
	});
});

describe("what no network can hold", () => {
	it.each([
		["an address of the host's own", ["--allow", "127.0.0.1"], "invalid-argument"],
		["the port of the name server", ["--host-port", "53"], "invalid-argument"],
		["one port that leads to two places", ["--forward", "18080:80", "--forward", "18080:81"], "invalid-argument"],
	])("is told when the server starts: %s", async (_what, args, code) => {
		await expect(open(...args)).rejects.toMatchObject({ code });
	});
});

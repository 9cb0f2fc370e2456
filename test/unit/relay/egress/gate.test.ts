import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import type { Ipv4 } from "../../../../src/relay/addresses.js";
import { createHostAddresses } from "../../../../src/relay/egress/host-addresses.js";
import { formatIpv4Address } from "../../../../src/relay/wire/address.js";
import { createGate, ipv4, tryEverything } from "./support.js";

const PEER = ipv4("1.1.1.1");

function udpOf(parts: ReturnType<typeof createGate>, localPort?: number) {
	const heard: [string, Ipv4, number][] = [];
	const failures: string[] = [];
	const udp = parts.gate.openUdp(
		{
			message: (bytes, address, port) => heard.push([Buffer.from(bytes).toString(), address, port]),
			refused: () => failures.push("refused"),
			failed: (reason) => failures.push(reason),
		},
		localPort,
	);
	return { udp, heard, failures };
}

describe("the gate", () => {
	it("connects the very address that it decided on", () => {
		const parts = createGate();
		const opening = parts.gate.connectTcp(PEER, 80);
		expect(opening.verdict).toMatchObject({ allowed: true, rule: "default" });
		expect("socket" in opening && opening.nameCheck).toBeUndefined();
		expect(parts.sockets.asked).toEqual(["tcp 1.1.1.1:80"]);
	});

	it("gives no socket with a refusal", () => {
		const parts = createGate();
		const opening = parts.gate.connectTcp(ipv4("192.168.1.1"), 80);
		expect("socket" in opening).toBe(false);
		expect(opening.verdict).toMatchObject({
			allowed: false,
			rule: "special 192.168.0.0/16 (private, RFC 1918)",
			reason: "special 192.168.0.0/16 (private, RFC 1918) is closed",
		});
	});

	it("hands over a name check when the rule is by name", () => {
		const parts = createGate({ allow: ["one.test"] });
		parts.names.record("one.test", PEER, 60);
		const opening = parts.gate.connectTcp(PEER, 443);
		expect("socket" in opening && opening.nameCheck).toBeDefined();
	});

	it("keeps the relay's own port, and every other of the host, from being reached by any address of the host", () => {
		const hostAddresses = [...createHostAddresses()()].map(formatIpv4Address);
		expect(hostAddresses).toContain("127.0.0.1");
		const parts = createGate({ allow: ["0.0.0.0/0", "10.0.0.0/8", "*"], hostPorts: [3000], hostAddresses });
		for (const address of [...hostAddresses, "127.1.2.3", "0.0.0.0", "10.0.2.2", "10.0.2.3"]) {
			expect(tryEverything(parts, ipv4(address), 4000)).toEqual([]);
		}
	});

	it("is alone with the host's sockets: nothing else in the relay calls them, or makes any that reach out", () => {
		const folder = resolve(import.meta.dirname, "../../../../src/relay");
		const modules = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
		const having = (pattern: RegExp) =>
			modules
				.filter((name) => pattern.test(readFileSync(join(folder, name), "utf8")))
				.map((name) => name.replaceAll("\\", "/"));
		expect(having(/\b(?:connectLocalhost|connectLocalUdp|bindUdp)\(|sockets\.(?:connectTcp|ping)\(/).sort()).toEqual([
			"egress/gate.ts",
			"egress/host-sockets.ts",
		]);
		// The resolver's own messages to the host's resolvers are the one exception.
		expect(having(/import \{[^}]*\bconnect\b[^}]*\} from "node:(?:net|tls)"/).sort()).toEqual([
			"egress/host-sockets.ts",
			"services/dns-transport.ts",
		]);
		expect(having(/from "node:child_process"/)).toEqual(["egress/ping.ts"]);
		expect(having(/from "node:https?"/)).toEqual(having(/import \{ createServer,[^}]*\} from "node:http"/));
	});

	it("tells a ping's outcome", async () => {
		const opening = createGate().gate.ping(PEER);
		expect("outcome" in opening && (await opening.outcome)).toEqual({ kind: "reply" });
	});
});

describe("a UDP socket behind the gate", () => {
	it("binds no host socket before a peer was admitted", () => {
		const parts = createGate();
		const { udp } = udpOf(parts);
		udp.admit(ipv4("10.1.1.1"), 53);
		expect(udp.send(new Uint8Array(1), ipv4("10.1.1.1"), 53)).toBe(false);
		expect(parts.sockets.udp).toEqual([]);
		udp.admit(PEER, 3478);
		udp.admit(PEER, 3479);
		expect(parts.sockets.udp).toHaveLength(1);
		udp.close();
		expect(parts.sockets.udp[0]?.isClosed).toBe(true);
	});

	it("sends to admitted peers only, until they are released", () => {
		const parts = createGate();
		const { udp } = udpOf(parts);
		udp.admit(PEER, 3478);
		expect(udp.send(new Uint8Array(1), PEER, 3478)).toBe(true);
		expect(udp.send(new Uint8Array(1), PEER, 3479)).toBe(false);
		expect(udp.send(new Uint8Array(1), PEER + 1, 3478)).toBe(false);
		udp.release(PEER, 3478);
		expect(udp.send(new Uint8Array(1), PEER, 3478)).toBe(false);
		expect(parts.sockets.asked).toEqual(["udp 1.1.1.1:3478"]);
	});

	it("hears admitted peers only", () => {
		const parts = createGate();
		const { udp, heard } = udpOf(parts);
		udp.admit(PEER, 3478);
		const host = parts.sockets.udp[0];
		host?.emit("message", Buffer.from("yes"), { address: "1.1.1.1", port: 3478 });
		host?.emit("message", Buffer.from("other port"), { address: "1.1.1.1", port: 3479 });
		host?.emit("message", Buffer.from("other host"), { address: "1.1.1.2", port: 3478 });
		host?.emit("message", Buffer.from("local"), { address: "127.0.0.1", port: 3478 });
		expect(heard).toEqual([["yes", PEER, 3478]]);
		udp.close();
		host?.emit("message", Buffer.from("late"), { address: "1.1.1.1", port: 3478 });
		expect(heard).toHaveLength(1);
	});

	it("for the host's localhost is connected to one port, speaks as 10.0.2.2, and outlives a refusal", () => {
		const parts = createGate({ hostPorts: [5000, 5001] });
		const { udp, heard, failures } = udpOf(parts, 5000);
		expect(udp.admit(ipv4("10.0.2.2"), 5001).allowed).toBe(false);
		expect(udp.admit(PEER, 5000).allowed).toBe(false);
		expect(parts.sockets.udp).toEqual([]);
		expect(udp.admit(ipv4("10.0.2.2"), 5000).allowed).toBe(true);
		udp.send(new Uint8Array(1), ipv4("10.0.2.2"), 5000);
		const host = parts.sockets.udp[0];
		expect(host?.localPort).toBe(5000);
		host?.emit("error", Object.assign(new Error("nobody"), { code: "ECONNREFUSED" }));
		host?.emit("message", Buffer.from("local"), { address: "127.0.0.1", port: 5000 });
		expect(failures).toEqual(["refused"]);
		expect(heard).toEqual([["local", ipv4("10.0.2.2"), 5000]]);
		expect(parts.sockets.asked).toEqual(["udp 127.0.0.1:5000"]);
	});

	it("does not take the host's localhost for a peer called 10.0.2.2 that was not admitted", () => {
		const parts = createGate({ hostPorts: [5000] });
		const { udp } = udpOf(parts);
		expect(udp.admit(ipv4("127.0.0.1"), 5000).allowed).toBe(false);
		expect(udp.send(new Uint8Array(1), ipv4("127.0.0.1"), 5000)).toBe(false);
	});

	it("reports a failed socket once, and is closed then", () => {
		const parts = createGate();
		const { udp, failures } = udpOf(parts);
		udp.admit(PEER, 3478);
		parts.sockets.udp[0]?.emit("error", Object.assign(new Error("no ports"), { code: "EMFILE" }));
		parts.sockets.udp[0]?.emit("error", new Error("again"));
		expect(failures).toEqual(["EMFILE"]);
		expect(udp.send(new Uint8Array(1), PEER, 3478)).toBe(false);
		expect(udp.admit(PEER, 3478).allowed).toBe(false);
	});
});

import { describe, expect, it } from "vitest";
import { SandboxError } from "../../../../src/errors.js";
import { checkHostPorts } from "../../../../src/relay/egress/policy.js";
import { SPECIAL_RANGES } from "../../../../src/relay/egress/special-ranges.js";
import { formatIpv4Address } from "../../../../src/relay/wire/address.js";
import { createGate, ipv4, tryEverything } from "./support.js";

/** First and last address of each special range, and some that are famous. */
const closed = [
	...SPECIAL_RANGES.flatMap(({ base, mask }) => [base, (base | ~mask) >>> 0]).map(formatIpv4Address),
	"127.0.0.1",
	"127.0.0.53",
	"169.254.169.254",
	"169.254.170.2",
	"100.100.100.200",
	"192.168.0.1",
	"172.17.0.1",
	"10.0.2.4",
	"10.0.2.15",
	"239.255.255.250",
	"255.255.255.255",
];
const open = ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"];
open.push("169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255");
open.push("198.20.0.0", "203.0.114.0", "223.255.255.255");

describe("by default", () => {
	it.each(closed)("%s is closed by TCP, UDP and ping, and nothing reaches the host's sockets", (text) => {
		const parts = createGate();
		expect(tryEverything(parts, ipv4(text), 443)).toEqual([]);
		const verdict = parts.policy.decide({ protocol: "tcp", address: ipv4(text), port: 443 });
		expect(verdict.allowed).toBe(false);
		expect(verdict.rule).toMatch(/^(special|host-port)/);
	});

	it.each(open)("%s is open", (text) => {
		expect(tryEverything(createGate(), ipv4(text), 443)).toEqual([
			`tcp ${text}:443`,
			`udp ${text}:443`,
			`ping ${text}`,
		]);
	});

	it("the host's own addresses are closed, public ones too", () => {
		const parts = createGate({ hostAddresses: ["203.0.114.7", "192.168.1.5"] });
		expect(tryEverything(parts, ipv4("203.0.114.7"), 22)).toEqual([]);
		expect(parts.policy.decide({ protocol: "tcp", address: ipv4("203.0.114.7"), port: 22 }).rule).toBe("host address");
		expect(tryEverything(parts, ipv4("203.0.114.8"), 22)).toHaveLength(3);
	});

	it("port 0 is closed", () => {
		expect(createGate().policy.decide({ protocol: "udp", address: ipv4("1.1.1.1"), port: 0 }).allowed).toBe(false);
	});
});

describe("the alias of the host's localhost", () => {
	it("is open for its ports, by TCP and UDP, and for no other", () => {
		const parts = createGate({ hostPorts: [3000] });
		expect(tryEverything(parts, ipv4("10.0.2.2"), 3000)).toEqual(["localhost:3000", "udp 127.0.0.1:3000"]);
		expect(tryEverything(parts, ipv4("10.0.2.2"), 3001)).toEqual([]);
		expect(tryEverything(parts, ipv4("10.0.2.3"), 3000)).toEqual([]);
		expect(tryEverything(parts, ipv4("127.0.0.1"), 3000)).toEqual([]);
	});

	it("stays open beside a list of what is allowed, and when the rest of the world is closed", () => {
		for (const rules of [{ allow: ["example.org"] }, { deny: ["*"] }]) {
			const parts = createGate({ ...rules, hostPorts: [3000] });
			expect(tryEverything(parts, ipv4("10.0.2.2"), 3000)).toHaveLength(2);
			expect(tryEverything(parts, ipv4("1.1.1.1"), 3000)).toEqual([]);
		}
	});

	it("is closed again by a --deny that is about the machine's own network, not by one about the world", () => {
		const wide = createGate({ deny: ["0.0.0.0/0", "10.0.0.0/8"], hostPorts: [3000] });
		expect(tryEverything(wide, ipv4("10.0.2.2"), 3000)).toHaveLength(2);
		for (const rule of ["10.0.2.2", "10.0.2.0/24:3000"]) {
			const parts = createGate({ deny: [rule], hostPorts: [3000] });
			expect(tryEverything(parts, ipv4("10.0.2.2"), 3000)).toEqual([]);
		}
	});

	it("is never the relay's own port, nor the resolver's", () => {
		checkHostPorts([3000, 8080], 4000);
		expect(() => checkHostPorts([3000, 4000], 4000)).toThrow(SandboxError);
		expect(() => checkHostPorts([3000, 4000], 4000)).toThrow("--host-port 4000 is the relay's own port");
		expect(() => checkHostPorts([53], 4000)).toThrow("resolver");
	});
});

describe("--allow of addresses", () => {
	it("opens what it names in a private range, and closes the rest", () => {
		const parts = createGate({ allow: ["192.168.1.0/24", "10.9.8.7:5432"] });
		expect(tryEverything(parts, ipv4("192.168.1.20"), 80)).toHaveLength(3);
		expect(tryEverything(parts, ipv4("10.9.8.7"), 5432)).toEqual(["tcp 10.9.8.7:5432", "udp 10.9.8.7:5432"]);
		for (const other of ["192.168.2.20", "10.9.8.7", "1.1.1.1"]) {
			expect(tryEverything(parts, ipv4(other), 80)).toEqual([]);
		}
	});

	it("that is wider than a special range opens public addresses only", () => {
		const parts = createGate({ allow: ["0.0.0.0/0", "192.0.0.0/8"] });
		for (const text of closed) expect(tryEverything(parts, ipv4(text), 80)).toEqual([]);
		for (const text of open) expect(tryEverything(parts, ipv4(text), 80)).toHaveLength(3);
	});

	it.each([
		"127.0.0.1",
		"127.0.0.0/8",
		"127.0.0.0/30:8080",
		"0.0.0.0",
		"169.254.169.254",
		"169.254.0.0/16",
		"224.0.0.251",
		"255.255.255.255",
		"10.0.2.2:3000",
		"10.0.2.0/24",
		"localhost",
		"api.localhost",
	])("of %s is an error that says so", (text) => {
		expect(() => createGate({ allow: [text] })).toThrow(`as "${text}" asks`);
	});

	it("does not open what is fixed by a range around it", () => {
		const parts = createGate({ allow: ["10.0.0.0/8", "240.0.0.0/4"] });
		expect(tryEverything(parts, ipv4("10.1.2.3"), 80)).toHaveLength(3);
		expect(tryEverything(parts, ipv4("10.0.2.4"), 80)).toEqual([]);
		expect(tryEverything(parts, ipv4("10.0.2.2"), 80)).toEqual([]);
		expect(tryEverything(parts, ipv4("255.255.255.255"), 80)).toEqual([]);
	});

	it("opens one of the host's own only if it stands alone", () => {
		const hostAddresses = ["192.168.1.5"];
		const wide = createGate({ allow: ["192.168.0.0/16"], hostAddresses });
		expect(tryEverything(wide, ipv4("192.168.1.5"), 80)).toEqual([]);
		expect(tryEverything(wide, ipv4("192.168.1.6"), 80)).toHaveLength(3);
		const alone = createGate({ allow: ["192.168.1.5:80"], hostAddresses });
		expect(tryEverything(alone, ipv4("192.168.1.5"), 80)).toHaveLength(2);
		expect(tryEverything(alone, ipv4("192.168.1.5"), 22)).toEqual([]);
	});

	it("of * is the default spelled out", () => {
		const parts = createGate({ allow: ["*"] });
		for (const text of closed) expect(tryEverything(parts, ipv4(text), 80)).toEqual([]);
		for (const text of open) expect(tryEverything(parts, ipv4(text), 80)).toHaveLength(3);
		expect(parts.policy.decideName("anything.test").allowed).toBe(true);
	});
});

describe("--allow of a name", () => {
	const address = ipv4("93.184.216.34");

	it("opens the addresses that the name was answered with, and nothing else", () => {
		const parts = createGate({ allow: ["example.org"] });
		expect(tryEverything(parts, address, 80)).toEqual([]);
		parts.names.record("example.org", address, 60);
		expect(tryEverything(parts, address, 80)).toEqual([
			"tcp 93.184.216.34:80",
			"udp 93.184.216.34:80",
			"ping 93.184.216.34",
		]);
		expect(tryEverything(parts, address + 1, 80)).toEqual([]);
	});

	it("with a port limits the connection, not the look-up", () => {
		const parts = createGate({ allow: ["example.org:443"] });
		parts.names.record("example.org", address, 60);
		expect(parts.policy.decideName("example.org").allowed).toBe(true);
		expect(tryEverything(parts, address, 80)).toEqual([]);
		expect(tryEverything(parts, address, 443)).toEqual(["tcp 93.184.216.34:443"]);
	});

	it("does not open a private address that the name was answered with", () => {
		const parts = createGate({ allow: ["*.example.org"] });
		for (const text of closed) {
			parts.names.record("a.example.org", ipv4(text), 60);
			expect(tryEverything(parts, ipv4(text), 80)).toEqual([]);
		}
	});

	it("lets no other name be resolved", () => {
		const { policy } = createGate({ allow: ["example.org", "*.example.net", "1.1.1.1"] });
		const verdicts = ["example.org", "a.example.net", "secret.evil.test", "www.example.org", "example.net", "."].map(
			(name) => policy.decideName(name).allowed,
		);
		expect(verdicts).toEqual([true, true, false, false, false, false]);
	});

	it("makes all DNS go to the relay's resolver, and none past it", () => {
		const parts = createGate({ allow: ["ns.example.org", "8.8.8.8"] });
		parts.names.record("ns.example.org", address, 60);
		expect(parts.gate.isDnsRedirected(53)).toBe(true);
		expect(parts.gate.isDnsRedirected(853)).toBe(false);
		for (const server of [address, ipv4("8.8.8.8")]) {
			expect(tryEverything(parts, server, 53).filter((asked) => !asked.startsWith("ping"))).toEqual([]);
		}
		expect(createGate({ allow: ["8.8.8.8"] }).gate.isDnsRedirected(53)).toBe(false);
		expect(createGate({ deny: ["evil.test"] }).gate.isDnsRedirected(53)).toBe(true);
		expect(createGate().gate.isDnsRedirected(53)).toBe(false);
	});

	it("closes QUIC, whose name can't be read; an address that is open by itself keeps it", () => {
		const parts = createGate({ allow: ["example.org", "1.1.1.1"] });
		parts.names.record("example.org", address, 60);
		expect(parts.policy.decide({ protocol: "udp", address, port: 443 })).toMatchObject({ rule: "quic by name" });
		expect(parts.policy.decide({ protocol: "udp", address, port: 3478 }).allowed).toBe(true);
		expect(parts.policy.decide({ protocol: "udp", address: ipv4("1.1.1.1"), port: 443 }).allowed).toBe(true);
	});

	it("is forgotten with the answer, after an hour at the earliest", () => {
		const parts = createGate({ allow: ["example.org"] });
		parts.names.record("example.org", address, 5);
		parts.clock.advance(3_599_999);
		expect(tryEverything(parts, address, 80)).toHaveLength(3);
		parts.clock.advance(1);
		expect(tryEverything(parts, address, 80)).toEqual([]);
	});

	it("asks for the name that a flow says it is for", () => {
		const parts = createGate({ allow: ["example.org", "*.example.net:443"] });
		parts.names.record("example.org", address, 60);
		const request = { protocol: "tcp", address, port: 80 } as const;
		expect(parts.policy.decide(request)).toMatchObject({ allowed: true, checkNames: true, name: "example.org" });
		expect(parts.policy.decideNamed(request, "example.org")).toMatchObject({ allowed: true });
		expect(parts.policy.decideNamed(request, "evil.test")).toMatchObject({ allowed: false, name: "evil.test" });
		expect(parts.policy.decideNamed(request, "a.example.net")).toMatchObject({ allowed: false });
		expect(parts.policy.decideNamed({ ...request, port: 443 }, "a.example.net")).toMatchObject({ allowed: true });
	});
});

describe("--deny", () => {
	const address = ipv4("93.184.216.34");

	it("beats --allow, by address and by name", () => {
		const byAddress = createGate({ allow: ["93.184.216.0/24", "example.org"], deny: ["93.184.216.34:80"] });
		expect(tryEverything(byAddress, address, 80)).toEqual(["ping 93.184.216.34"]);
		expect(tryEverything(byAddress, address, 81)).toHaveLength(3);
		const byName = createGate({ allow: ["*.example.org"], deny: ["ads.example.org"] });
		expect(byName.policy.decideName("ads.example.org")).toMatchObject({ rule: "deny ads.example.org" });
		expect(byName.policy.decideName("www.example.org").allowed).toBe(true);
	});

	it("alone leaves the rest of the public net open", () => {
		const parts = createGate({ deny: ["evil.test", "1.1.1.0/24"] });
		expect(tryEverything(parts, ipv4("1.1.1.1"), 80)).toEqual([]);
		expect(tryEverything(parts, address, 80)).toHaveLength(3);
		expect(parts.policy.decideName("evil.test").allowed).toBe(false);
		expect(parts.policy.decideName("www.evil.test").allowed).toBe(true);
		expect(tryEverything(parts, ipv4("10.1.1.1"), 80)).toEqual([]);
	});

	it("of a name closes an address that is known by it only, and asks flows to one that others share", () => {
		const parts = createGate({ deny: ["evil.test:80"] });
		parts.names.record("evil.test", address, 60);
		expect(tryEverything(parts, address, 80)).toEqual(["ping 93.184.216.34"]);
		expect(tryEverything(parts, address, 81)).toHaveLength(3);
		parts.names.record("good.test", address, 60);
		const request = { protocol: "tcp", address, port: 80 } as const;
		expect(parts.policy.decide(request)).toMatchObject({ allowed: true, checkNames: true });
		expect(parts.policy.decideNamed(request, "good.test").allowed).toBe(true);
		expect(parts.policy.decideNamed(request, "evil.test").allowed).toBe(false);
	});

	it("of a name is asked of flows to addresses that nobody resolved", () => {
		const parts = createGate({ deny: ["*.evil.test"] });
		const request = { protocol: "tcp", address, port: 443 } as const;
		expect(parts.policy.decide(request)).toMatchObject({ allowed: true, checkNames: true, rule: "default" });
		expect(parts.policy.decideNamed(request, "a.evil.test")).toMatchObject({ rule: "deny *.evil.test" });
		expect(parts.policy.decideNamed(request, "good.test").allowed).toBe(true);
		expect(parts.policy.decide({ protocol: "udp", address, port: 443 }).allowed).toBe(false);
	});

	it("with a port leaves the name's look-up alone", () => {
		expect(createGate({ deny: ["evil.test:25"] }).policy.decideName("evil.test").allowed).toBe(true);
		expect(createGate({ deny: ["*:25"] }).policy.decideName("evil.test").allowed).toBe(true);
	});

	it("of * closes everything, names included", () => {
		const parts = createGate({ allow: ["192.168.1.1"], deny: ["*"] });
		expect(tryEverything(parts, address, 80)).toEqual([]);
		expect(tryEverything(parts, ipv4("192.168.1.1"), 80)).toEqual([]);
		expect(parts.policy.decideName("example.org").allowed).toBe(false);
	});
});

describe("an address in a DNS answer", () => {
	it("is taken out if it is closed by nature, unless a rule opens it", () => {
		const { policy } = createGate({ allow: ["*", "192.168.1.5:80"], hostAddresses: ["203.0.114.7"] });
		expect(policy.unspeakable(ipv4("192.168.1.5"))).toBeUndefined();
		expect(policy.unspeakable(ipv4("192.168.1.6"))).toContain("RFC 1918");
		expect(policy.unspeakable(ipv4("169.254.169.254"))).toContain("metadata");
		expect(policy.unspeakable(ipv4("203.0.114.7"))).toBe("host address");
		expect(policy.unspeakable(ipv4("1.1.1.1"))).toBeUndefined();
	});
});

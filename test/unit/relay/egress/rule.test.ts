import { describe, expect, it } from "vitest";
import { SandboxError } from "../../../../src/errors.js";
import {
	parseHostPort,
	parseRule,
	ruleMatchesAddress,
	ruleMatchesName,
	ruleMatchesPort,
} from "../../../../src/relay/egress/rule.js";
import { ipv4 } from "./support.js";

function failureOf(read: () => unknown): SandboxError {
	try {
		read();
	} catch (error) {
		if (error instanceof SandboxError) return error;
	}
	throw new Error("nothing was wrong with it");
}

describe("a rule", () => {
	it("by name is about that name only, whatever the case", () => {
		const rule = parseRule("Example.ORG");
		expect(ruleMatchesName(rule, "example.org")).toBe(true);
		for (const other of ["www.example.org", "xexample.org", "example.org.evil.test", "example", "."]) {
			expect(ruleMatchesName(rule, other)).toBe(false);
		}
	});

	it("by wildcard is about what is below, at any depth, and not about the name itself", () => {
		const rule = parseRule("*.example.org");
		expect(ruleMatchesName(rule, "a.example.org")).toBe(true);
		expect(ruleMatchesName(rule, "a.b.example.org")).toBe(true);
		// A label with a dot inside it is not a label below example.org.
		expect(ruleMatchesName(rule, "a\\046example.org")).toBe(false);
		for (const other of ["example.org", "xexample.org", "a.example.org.evil.test"]) {
			expect(ruleMatchesName(rule, other)).toBe(false);
		}
	});

	it("by address or network is about its addresses", () => {
		const network = parseRule("192.168.4.0/22");
		expect(ruleMatchesAddress(network, ipv4("192.168.4.0"))).toBe(true);
		expect(ruleMatchesAddress(network, ipv4("192.168.7.255"))).toBe(true);
		expect(ruleMatchesAddress(network, ipv4("192.168.8.0"))).toBe(false);
		expect(ruleMatchesAddress(parseRule("0.0.0.0/0"), ipv4("255.255.255.255"))).toBe(true);
		expect(ruleMatchesAddress(parseRule("8.8.8.8"), ipv4("8.8.8.9"))).toBe(false);
	});

	it("may be about a port or ports; what has no ports it then is not about", () => {
		expect([442, 443, 444, undefined].map((port) => ruleMatchesPort(parseRule("a.test:443"), port))).toEqual([
			false,
			true,
			false,
			false,
		]);
		const range = parseRule("10.0.0.0/8:8000-8010");
		expect([7999, 8000, 8010, 8011].map((port) => ruleMatchesPort(range, port))).toEqual([false, true, true, false]);
		expect(ruleMatchesPort(parseRule("*"), undefined)).toBe(true);
	});

	it("by a name of another script is about its form in the DNS", () => {
		expect(ruleMatchesName(parseRule("*.bücher.example"), "www.xn--bcher-kva.example")).toBe(true);
	});

	it("may end with the root's dot", () => {
		expect(ruleMatchesName(parseRule("example.org.:443"), "example.org")).toBe(true);
	});

	it.each([
		["", "empty"],
		["  ", "empty"],
		["exa mple.org", "not a host name"],
		["ex*.org", "wildcard"],
		["**.org", "wildcard"],
		["*.*.org", "wildcard"],
		["*.", "not a host name"],
		["a..b", "not a host name"],
		["-a.test", "not a host name"],
		[`${"a".repeat(64)}.test`, "not a host name"],
		["http://example.org", "not a"],
		["example.org/path", "not an IPv4 address"],
		["ex%61mple.org", "not a host name"],
		["a@b.test", "not a host name"],
		["1.2.3", "not an IPv4 address"],
		["1.2.3.256", "not an IPv4 address"],
		["0x7f.1", "not an IPv4 address"],
		["2130706433", "not an IPv4 address"],
		["①.②.③.④", "not an IPv4 address"],
		["10.0.0.0/33", "prefix"],
		["10.0.0.0/", "prefix"],
		["10.0.0.0/8/8", "not an IPv4 address"],
		["10.1.0.0/8", "begins at 10.0.0.0"],
		["example.org:", "port"],
		["example.org:0", "port"],
		["example.org:65536", "port"],
		["example.org:https", "port"],
		["example.org:1-2-3", "port"],
		["example.org:9-8", "ends before it begins"],
		["::1", "IPv4"],
		["[2001:db8::1]:443", "IPv4"],
		["fe80::/10", "IPv4"],
	])("that is malformed (%j) is refused with its text, the reason and what is right", (text, reason) => {
		const error = failureOf(() => parseRule(text));
		expect(error.code).toBe("invalid-argument");
		expect(error.message).toContain(`the rule "${text}" can't be read`);
		expect(error.message).toContain(reason);
		expect(error.hint).toContain("*.example.org:443");
	});
});

describe("a host port", () => {
	it("is a number from 1 to 65535", () => {
		expect(parseHostPort("8080")).toBe(8080);
		expect(parseHostPort("65535")).toBe(65_535);
		for (const text of ["", "0", "65536", "-1", "80x", "0x50", "8080-8090", "localhost:80", "1e3"]) {
			expect(failureOf(() => parseHostPort(text)).message).toContain(`"${text}" is not a port`);
		}
	});
});

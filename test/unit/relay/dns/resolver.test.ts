import { describe, expect, it } from "vitest";
import { hostResolvers, parseResolver } from "../../../../src/relay/services/resolver.js";

describe("a resolver's address", () => {
	it.each([
		["192.0.2.53", "192.0.2.53", 53],
		["192.0.2.53:5353", "192.0.2.53", 5353],
		["2001:db8::53", "2001:db8::53", 53],
		["[2001:db8::53]", "2001:db8::53", 53],
		["[2001:db8::53]:5353", "2001:db8::53", 5353],
		["fe80::1%eth0", "fe80::1%eth0", 53],
		["[fe80::1%eth0]:54", "fe80::1%eth0", 54],
	])("%s is read", (text, address, port) => {
		expect(parseResolver(text)).toEqual({ address, port });
	});

	it.each([
		"",
		"dns.example",
		"192.0.2.53:",
		"192.0.2.53:0",
		"192.0.2.53:65536",
		"192.0.2",
		"[192.0.2.53]:53",
		"[::1]53",
	])("%j is an error that says what is right", (text) => {
		expect(() => parseResolver(text)).toThrow(`"${text}" is not the address of a DNS server`);
	});

	it("of the host comes in all the forms that Node has; what can't be read is left out", () => {
		const servers = ["127.0.0.53", "10.0.0.1:1053", "[2001:db8::1]:1053", "fe80::1%en0", "what?"];
		expect(hostResolvers(() => servers)).toEqual([
			{ address: "127.0.0.53", port: 53 },
			{ address: "10.0.0.1", port: 1053 },
			{ address: "2001:db8::1", port: 1053 },
			{ address: "fe80::1%en0", port: 53 },
		]);
		expect(hostResolvers().every(({ port }) => port > 0)).toBe(true);
	});
});

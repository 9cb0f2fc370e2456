import { domainToASCII } from "node:url";
import { SandboxError } from "../../errors.js";
import type { Ipv4 } from "../addresses.js";
import { formatIpv4Address, parseIpv4Address } from "../wire/address.js";
import { type AddressRange, isInRange, isSingleAddress, rangeOf } from "./address-range.js";

/** What a rule of `--allow` or `--deny` is about. */
export type RuleTarget =
	/** `*`: every name, every public address. */
	| { readonly kind: "any" }
	/** `example.org` */
	| { readonly kind: "name"; readonly name: string }
	/** `*.example.org`: every name below, at any depth, and not the name itself. */
	| { readonly kind: "subdomains"; readonly parent: string }
	/** `192.0.2.7` or `192.0.2.0/24` */
	| { readonly kind: "addresses"; readonly range: AddressRange };

export interface EgressRule {
	/** As it was given, in lower case. */
	readonly text: string;
	readonly target: RuleTarget;
	/** Undefined: every port, and protocols without ports. Both inclusive. */
	readonly ports: { readonly first: number; readonly last: number } | undefined;
}

const FORMS =
	"NAME, *.NAME, ADDRESS, ADDRESS/BITS or *, each with :PORT or :FIRST-LAST if wanted, such as *.example.org:443";
/** A host name after IDNA: RFC 1123 2.1, and the underscore that service names have (RFC 8552). */
const NAME = /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
/** A last label that URL parsers take for a number. */
const NUMERIC_END = /(?:^|\.)(?:\d+|0x[0-9a-f]*)$/;

/** Reads one rule; throws SandboxError "invalid-argument". */
export function parseRule(given: string): EgressRule {
	const text = given.trim().toLowerCase();
	if (text === "") throw malformed(given, "it is empty");
	if (text.startsWith("[") || text.split(":").length > 2) {
		throw malformed(given, "the machines' network is IPv4, so a rule can't be about an IPv6 address");
	}
	const [host = "", port] = text.split(":");
	return { text, target: parseTarget(given, host), ports: port === undefined ? undefined : parsePorts(given, port) };
}

/** Reads one PORT (1 to 65535) of `--host-port`. */
export function parseHostPort(given: string): number {
	const port = parsePort(given.trim());
	if (port !== undefined) return port;
	throw new SandboxError(
		"invalid-argument",
		`"${given}" is not a port`,
		"Give a number from 1 to 65535, such as 8080.",
	);
}

/** Whether the rule is about `name` (lower case, no dot at its end). */
export function ruleMatchesName(rule: EgressRule, name: string): boolean {
	const { target } = rule;
	switch (target.kind) {
		case "any":
			return true;
		case "name":
			return name === target.name;
		case "subdomains":
			return name.endsWith(`.${target.parent}`);
		case "addresses":
			return isSingleAddress(target.range) && name === formatIpv4Address(target.range.base);
	}
}

export function ruleMatchesAddress(rule: EgressRule, address: Ipv4): boolean {
	return rule.target.kind === "addresses" && isInRange(address, rule.target.range);
}

/** `port`: undefined for protocols without ports, which only a rule without ports is about. */
export function ruleMatchesPort(rule: EgressRule, port: number | undefined): boolean {
	if (rule.ports === undefined) return true;
	return port !== undefined && port >= rule.ports.first && port <= rule.ports.last;
}

export function isNameRule(rule: EgressRule): boolean {
	return rule.target.kind === "name" || rule.target.kind === "subdomains";
}

function parseTarget(given: string, host: string): RuleTarget {
	if (host === "*") return { kind: "any" };
	if (host.includes("/")) return { kind: "addresses", range: parseRange(given, host) };
	const address = parseIpv4Address(host);
	if (address !== undefined) return { kind: "addresses", range: rangeOf(address, 32) };
	if (host.startsWith("*.")) return { kind: "subdomains", parent: parseName(given, host.slice(2)) };
	return { kind: "name", name: parseName(given, host) };
}

function parseRange(given: string, host: string): AddressRange {
	const [base = "", bits = "", ...rest] = host.split("/");
	const address = parseIpv4Address(base);
	if (address === undefined || rest.length > 0) throw malformed(given, `"${base}" is not an IPv4 address`);
	if (!/^\d{1,2}$/.test(bits) || Number(bits) > 32)
		throw malformed(given, `"/${bits}" is not a prefix of 0 to 32 bits`);
	const range = rangeOf(address, Number(bits));
	if (range.base !== address) {
		throw malformed(given, `its network of ${bits} bits begins at ${formatIpv4Address(range.base)}`);
	}
	return range;
}

function parseName(given: string, host: string): string {
	const text = host.endsWith(".") ? host.slice(0, -1) : host;
	if (text.includes("*")) throw malformed(given, 'a wildcard stands alone or as "*." at the front');
	// domainToASCII reads URL hosts: it would decode "%41" and cut at "?".
	const name = /[\s%/?#@\\[\]<>|^]/.test(text) ? "" : domainToASCII(text);
	if (NUMERIC_END.test(text) || NUMERIC_END.test(name)) throw malformed(given, `"${host}" is not an IPv4 address`);
	if (!NAME.test(name)) throw malformed(given, `"${host}" is not a host name`);
	return name;
}

function parsePorts(given: string, text: string): { first: number; last: number } {
	const [start = "", end, ...rest] = text.split("-");
	const first = parsePort(start);
	const last = end === undefined ? first : parsePort(end);
	if (first === undefined || last === undefined || rest.length > 0) {
		throw malformed(given, `":${text}" is not a port of 1 to 65535`);
	}
	if (first > last) throw malformed(given, `":${text}" ends before it begins`);
	return { first, last };
}

function parsePort(text: string): number | undefined {
	const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
	return port >= 1 && port <= 65_535 ? port : undefined;
}

function malformed(given: string, reason: string): SandboxError {
	return new SandboxError("invalid-argument", `the rule "${given}" can't be read: ${reason}`, `Give ${FORMS}.`);
}

import { SandboxError } from "../../errors.js";
import { DNS_ADDRESS, GATEWAY_ADDRESS, type Ipv4, NETWORK_ADDRESS, NETWORK_MASK } from "../addresses.js";
import { isRangeWithin, isSingleAddress } from "./address-range.js";
import type { NameTable } from "./name-table.js";
import { type EgressRule, isNameRule, ruleMatchesAddress, ruleMatchesName, ruleMatchesPort } from "./rule.js";
import { SPECIAL_RANGES, specialRangeOf } from "./special-ranges.js";

export interface EgressRequest {
	readonly protocol: "tcp" | "udp" | "icmp";
	/** The very address that would be connected. */
	readonly address: Ipv4;
	/** 0 for icmp. */
	readonly port: number;
}

export interface Allowed {
	readonly allowed: true;
	/** What decided: "default", "allow example.org", "host-port 8080". */
	readonly rule: string;
	/** The flow's first bytes must be held back until the name in them was asked about (`decideNamed`). */
	readonly checkNames: boolean;
	/** The name by which the machine learnt the address, if it did. */
	readonly name: string | undefined;
}

export interface Refused {
	readonly allowed: false;
	/** What decided: "deny example.org", "special 10.0.0.0/8 (private, RFC 1918)", "host address", "not allowed". */
	readonly rule: string;
	/** A sentence's end for people: "10.1.2.3 is closed: …". */
	readonly reason: string;
	readonly name: string | undefined;
}

export type Verdict = Allowed | Refused;

export interface PolicyOptions {
	readonly allow: readonly EgressRule[];
	readonly deny: readonly EgressRule[];
	/** 10.0.2.2:PORT is the host's localhost:PORT for these. */
	readonly hostPorts: ReadonlySet<number>;
	readonly hostAddresses: () => ReadonlySet<Ipv4>;
	/** Of one machine. */
	readonly names: NameTable;
}

/** What one machine may reach. Deciding changes nothing and asks nobody: no look-up comes between verdict and connect. */
export interface Policy {
	decide(request: EgressRequest): Verdict;
	/** About a flow to `address` that says it is for `name` (TLS SNI, HTTP Host), beyond what `decide` said. */
	decideNamed(request: EgressRequest, name: string): Verdict;
	/** Whether `name` may be resolved. */
	decideName(name: string): Verdict;
	/** About an alias that the answer to an allowed name leads through: only --deny speaks of those. */
	decideAlias(name: string): Verdict;
	/** Undefined: the address may stand in a DNS answer. Otherwise the range that closes it. */
	unspeakable(address: Ipv4): string | undefined;
	/** Whether traffic to this port of any address goes to the relay's own resolver, as a rule is by name. */
	isDnsRedirected(port: number): boolean;
}

export const DNS_PORT = 53;
/** QUIC hides its names from us; programs fall back to TCP. */
const QUIC_PORT = 443;
const NETWORK = { base: NETWORK_ADDRESS, mask: NETWORK_MASK };

/** Throws SandboxError "invalid-argument" if an allow rule is about what no rule opens. */
export function createPolicy(options: PolicyOptions): Policy {
	for (const rule of options.allow) refuseFixed(rule);
	return new RulePolicy(options);
}

/** Throws SandboxError "invalid-argument" if a machine would reach the relay itself. */
export function checkHostPorts(hostPorts: Iterable<number>, relayPort: number): void {
	for (const port of hostPorts) {
		if (port === DNS_PORT) {
			throw new SandboxError(
				"invalid-argument",
				"--host-port 53 can't be opened: the machines' resolver answers there",
			);
		}
		if (port !== relayPort) continue;
		throw new SandboxError(
			"invalid-argument",
			`--host-port ${port} is the relay's own port: a machine could join the networks of others`,
			"Open another port, or let the relay listen on another one.",
		);
	}
}

function refuseFixed(rule: EgressRule): void {
	const { target } = rule;
	if (target.kind === "name" && (target.name === "localhost" || target.name.endsWith(".localhost"))) {
		throw neverOpens(rule, "the host's localhost");
	}
	if (target.kind !== "addresses") return;
	const range = SPECIAL_RANGES.find((special) => special.isFixed && isRangeWithin(target.range, special));
	if (range !== undefined) throw neverOpens(rule, range.text);
}

function neverOpens(rule: EgressRule, what: string): SandboxError {
	return new SandboxError(
		"invalid-argument",
		`no --allow opens ${what}, as "${rule.text}" asks`,
		"Use --host-port PORT to let machines reach localhost:PORT of the host as 10.0.2.2:PORT.",
	);
}

class RulePolicy implements Policy {
	readonly #allow: readonly EgressRule[];
	readonly #deny: readonly EgressRule[];
	readonly #hostPorts: ReadonlySet<number>;
	readonly #hostAddresses: () => ReadonlySet<Ipv4>;
	readonly #names: NameTable;
	readonly #isByName: boolean;

	constructor({ allow, deny, hostPorts, hostAddresses, names }: PolicyOptions) {
		this.#allow = allow;
		this.#deny = deny;
		this.#hostPorts = hostPorts;
		this.#hostAddresses = hostAddresses;
		this.#names = names;
		this.#isByName = allow.some(isNameRule) || deny.some(isNameRule);
	}

	decide(request: EgressRequest): Verdict {
		const { address, protocol } = request;
		const port = protocol === "icmp" ? undefined : request.port;
		const names = this.#names.namesOf(address);
		const base = this.#decideAddress(address, port, names);
		if (!base.allowed || !base.checkNames || protocol === "tcp") return base;
		if (protocol === "icmp") return { ...base, checkNames: false };
		if (request.port !== QUIC_PORT) return { ...base, checkNames: false };
		return refuse("quic by name", "QUIC hides the name that a rule is about", base.name);
	}

	decideNamed(request: EgressRequest, name: string): Verdict {
		const verdict = this.decide(request);
		if (!verdict.allowed || !verdict.checkNames) return verdict;
		const { address, port } = request;
		const denied = this.#denyingName(name, port);
		if (denied !== undefined) return refuseDenied(denied, name);
		if (this.#openedWithoutName(address, port) !== undefined) return { ...verdict, name };
		const rule = this.#allow.find((allow) => ruleMatchesName(allow, name) && ruleMatchesPort(allow, port));
		if (rule !== undefined) return { allowed: true, rule: `allow ${rule.text}`, checkNames: true, name };
		return refuse("not allowed", `${name} is on no --allow`, name);
	}

	decideName(name: string): Verdict {
		const denied = this.#denyingName(name, undefined);
		if (denied !== undefined) return refuseDenied(denied, name);
		if (this.#allow.length === 0) return { allowed: true, rule: "default", checkNames: false, name };
		const rule = this.#allow.find((allow) => ruleMatchesName(allow, name));
		if (rule !== undefined) return { allowed: true, rule: `allow ${rule.text}`, checkNames: false, name };
		return refuse("not allowed", `${name} is on no --allow`, name);
	}

	decideAlias(name: string): Verdict {
		const denied = this.#denyingName(name, undefined);
		if (denied !== undefined) return refuseDenied(denied, name);
		return { allowed: true, rule: "default", checkNames: false, name };
	}

	unspeakable(address: Ipv4): string | undefined {
		const closed = this.#closedByNature(address);
		if (closed === undefined || this.#allow.some((rule) => this.#opens(rule, address))) return undefined;
		return closed;
	}

	isDnsRedirected(port: number): boolean {
		return this.#isByName && port === DNS_PORT;
	}

	#decideAddress(address: Ipv4, port: number | undefined, names: readonly string[]): Verdict {
		const name = names[0];
		if (address === GATEWAY_ADDRESS || address === DNS_ADDRESS) return this.#decideGateway(address, port);
		if (port === 0) return refuse("port 0", "there is no port 0", name);
		if (port !== undefined && this.isDnsRedirected(port)) {
			return refuse("dns by name", "DNS goes to the relay's own resolver, as a rule is by name", name);
		}
		const denied = this.#denyingAddress(address, port) ?? this.#denyingAllNames(names, port);
		if (denied !== undefined) return refuseDenied(denied, name);
		const deniesNames = this.#deny.some((rule) => isNameRule(rule) && ruleMatchesPort(rule, port));
		const closed = this.#closedByNature(address);
		if (closed !== undefined) {
			const rule = this.#allow.find((allow) => this.#opens(allow, address) && ruleMatchesPort(allow, port));
			if (rule === undefined) return refuse(closed, `${closed} is closed`, name);
			return { allowed: true, rule: `allow ${rule.text}`, checkNames: deniesNames, name };
		}
		const opened = this.#openedWithoutName(address, port);
		if (opened !== undefined) return { allowed: true, rule: opened, checkNames: deniesNames, name: names[0] };
		for (const name of names) {
			if (this.#denyingName(name, port) !== undefined) continue;
			const rule = this.#allow.find((allow) => ruleMatchesName(allow, name) && ruleMatchesPort(allow, port));
			if (rule !== undefined) return { allowed: true, rule: `allow ${rule.text}`, checkNames: true, name };
		}
		return refuse("not allowed", "it is on no --allow", names[0]);
	}

	/** The rule by which `address` is open whatever it is called. */
	#openedWithoutName(address: Ipv4, port: number | undefined): string | undefined {
		if (this.#allow.length === 0) return "default";
		const rule = this.#allow.find(
			(allow) => (allow.target.kind === "any" || ruleMatchesAddress(allow, address)) && ruleMatchesPort(allow, port),
		);
		return rule === undefined ? undefined : `allow ${rule.text}`;
	}

	/** The relay answers pings and DNS there itself; everything else is the host's localhost, or nothing. */
	#decideGateway(address: Ipv4, port: number | undefined): Verdict {
		const isAlias = address === GATEWAY_ADDRESS && port !== undefined && this.#hostPorts.has(port);
		if (!isAlias) return refuse("host-port", "no --host-port opens it", undefined);
		const denied = this.#deny.find((rule) => isAboutGateway(rule) && ruleMatchesPort(rule, port));
		if (denied !== undefined) return refuseDenied(denied, undefined);
		return { allowed: true, rule: `host-port ${port}`, checkNames: false, name: undefined };
	}

	#denyingAddress(address: Ipv4, port: number | undefined): EgressRule | undefined {
		return this.#deny.find(
			(rule) => (rule.target.kind === "any" || ruleMatchesAddress(rule, address)) && ruleMatchesPort(rule, port),
		);
	}

	/** An address that is known by denied names only is closed; one that others share is left to the flow's first bytes. */
	#denyingAllNames(names: readonly string[], port: number | undefined): EgressRule | undefined {
		let denied: EgressRule | undefined;
		for (const name of names) {
			denied = this.#denyingName(name, port);
			if (denied === undefined) return undefined;
		}
		return denied;
	}

	#denyingName(name: string, port: number | undefined): EgressRule | undefined {
		return this.#deny.find((rule) => ruleMatchesName(rule, name) && ruleMatchesPort(rule, port));
	}

	#closedByNature(address: Ipv4): string | undefined {
		const range = specialRangeOf(address);
		if (range !== undefined) return `special ${range.text}`;
		return this.#hostAddresses().has(address) ? "host address" : undefined;
	}

	/**
	 * Whether `rule` opens an address that is closed by nature: it must name a part of the special range, so that a wide
	 * rule opens public addresses only. One of the host's own must be named alone.
	 */
	#opens(rule: EgressRule, address: Ipv4): boolean {
		if (rule.target.kind !== "addresses" || !ruleMatchesAddress(rule, address)) return false;
		if (this.#hostAddresses().has(address) && !isSingleAddress(rule.target.range)) return false;
		const special = specialRangeOf(address);
		return special === undefined || (!special.isFixed && isRangeWithin(rule.target.range, special));
	}
}

/** A rule that is about more than the machine's network is about the world's addresses: it does not close a host port. */
function isAboutGateway(rule: EgressRule): boolean {
	const { target } = rule;
	return (
		ruleMatchesAddress(rule, GATEWAY_ADDRESS) && target.kind === "addresses" && isRangeWithin(target.range, NETWORK)
	);
}

function refuse(rule: string, reason: string, name: string | undefined): Refused {
	return { allowed: false, rule, reason, name };
}

function refuseDenied(rule: EgressRule, name: string | undefined): Refused {
	return refuse(`deny ${rule.text}`, `--deny ${rule.text} closes it`, name);
}

import { Resolver as NodeResolver } from "node:dns";
import { isIP } from "node:net";
import { SandboxError } from "../../errors.js";

/** A DNS server that the host uses. `address`: IPv4 or IPv6, with its zone if link-local. */
export interface Resolver {
	readonly address: string;
	readonly port: number;
}

const DEFAULT_PORT = 53;

/** Reads ADDRESS, ADDRESS:PORT, IPV6 or [IPV6]:PORT (the option --dns, and Node's own form). Throws SandboxError. */
export function parseResolver(text: string): Resolver {
	const resolver = readResolver(text.trim());
	if (resolver !== undefined) return resolver;
	throw new SandboxError(
		"invalid-argument",
		`"${text}" is not the address of a DNS server`,
		"Give an address with a port if wanted, such as 192.0.2.53, 127.0.0.1:5353 or [2001:db8::53]:53.",
	);
}

/** The resolvers of the host as they are now: a new Resolver reads the system's configuration again. */
export function hostResolvers(servers: () => string[] = () => new NodeResolver().getServers()): Resolver[] {
	return servers()
		.map(readResolver)
		.filter((resolver) => resolver !== undefined);
}

function readResolver(text: string): Resolver | undefined {
	const bracketed = /^\[(.+)\](?::(\d{1,5}))?$/.exec(text);
	if (bracketed !== null) return isIP(bracketed[1] ?? "") === 6 ? resolverOf(bracketed[1], bracketed[2]) : undefined;
	if (isIP(text) !== 0) return resolverOf(text, undefined);
	const [address = "", port, ...rest] = text.split(":");
	return isIP(address) === 4 && rest.length === 0 ? resolverOf(address, port) : undefined;
}

function resolverOf(address = "", portText: string | undefined): Resolver | undefined {
	const port = portText === undefined ? DEFAULT_PORT : Number(/^\d{1,5}$/.test(portText) ? portText : 0);
	return port >= 1 && port <= 65_535 ? { address, port } : undefined;
}

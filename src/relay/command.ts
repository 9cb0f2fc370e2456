/** `sandbox86 relay …`: the relay as a program of its own, for any v86. */

import { parseArgs } from "node:util";
import { SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { MAX_MACHINES } from "./limits.js";
import { parseListenAddress } from "./listen-address.js";
import { createRelay, type RelayOptions } from "./relay.js";
import { parseRelaySettings, type RelaySettings } from "./settings.js";

export const RELAY_USAGE = `usage: sandbox86 relay [options]

The network of any v86, a browser's included: set v86's relay_url to the URL that is printed. Each connection is a
network of its own, 10.0.2.0/24: the machine is 10.0.2.15, its gateway 10.0.2.2, its DNS server 10.0.2.3.

  --listen HOST:PORT  where to listen (default: a free port of 127.0.0.1)
  --origin ORIGIN     let web pages of ORIGIN connect, such as https://example.org; * is all (repeatable; default: none)
  --shared            all machines on one network: they see each other, and each asks for an address by DHCP
                      (10.0.2.15 and up)
  --machines N        at most so many machines at a time (default: ${MAX_MACHINES})
  --mtu BYTES         the largest IPv4 packet, 576 to 65535 (default: 1500)
  --pcap-size MIB     where the file of --pcap ends (default: 256)

and these of all commands, see sandbox86 --help:
  --allow RULE  --deny RULE  --host-port PORT  --dns ADDRESS  --audit-log FILE  --pcap FILE  --log-level LEVEL
  --bandwidth RATE  --max-bytes BYTES  --max-flow-bytes BYTES, each for every machine
`;

export interface RelayCommandContext {
	readonly settings: RelaySettings;
	readonly log: Log;
	readonly stdout: { write(text: string): unknown };
	/** Ends the relay. */
	readonly signal: AbortSignal;
}

/** Runs until the signal; returns the process's exit code. `args`: what follows the command. Throws SandboxError. */
export async function runRelay(args: readonly string[], context: RelayCommandContext): Promise<number> {
	if (args.includes("--help") || args.includes("-h")) {
		context.stdout.write(RELAY_USAGE);
		return 0;
	}
	const options = { ...parseRelayArguments(args), ...parseRelaySettings(context.settings), log: context.log };
	const relay = await createRelay(options);
	context.stdout.write(
		[
			`relay_url: ${relay.url}`,
			"",
			"Whoever has this URL has this host's network, as far as the rules let out:",
			...describeRules(options).map((line) => `  ${line}`),
			"Ctrl-C ends the relay.",
			"",
		].join("\n"),
	);
	try {
		await ended(context.signal);
	} finally {
		await relay.close();
	}
	return 0;
}

/** The options of this command alone. Throws SandboxError("invalid-argument"). */
export function parseRelayArguments(
	args: readonly string[],
): Pick<RelayOptions, "listen" | "origins" | "shared" | "maxMachines" | "mtu" | "pcapMaxBytes"> {
	const { values } = parse(args);
	const { listen, origin, shared, machines, mtu, "pcap-size": pcapMiB } = values;
	return {
		...(listen === undefined ? {} : { listen: parseListenAddress(listen) }),
		...(origin === undefined ? {} : { origins: origin.map(parseOrigin) }),
		...(shared === undefined ? {} : { shared }),
		...(machines === undefined ? {} : { maxMachines: parseNumber("--machines", machines, 1, 4096) }),
		...(mtu === undefined ? {} : { mtu: parseNumber("--mtu", mtu, 576, 65_535) }),
		...(pcapMiB === undefined ? {} : { pcapMaxBytes: parseNumber("--pcap-size", pcapMiB, 1, 1_000_000) * 2 ** 20 }),
	};
}

/** What machines may reach, line by line. */
export function describeRules({ allow = [], deny = [], hostPorts = [], resolvers, shared }: RelayOptions): string[] {
	const texts = (rules: readonly { readonly text: string }[]) => rules.map(({ text }) => text).join(", ");
	return [
		allow.length === 0
			? "open: every public address; nothing of this host, its network or any special range"
			: `open: ${texts(allow)}; nothing else`,
		...(deny.length === 0 ? [] : [`closed all the same: ${texts(deny)}`]),
		...(shared === true ? ["machines see each other, at the addresses that DHCP gives them"] : []),
		...hostPorts.map((port) => `10.0.2.2:${port} is this host's localhost:${port}`),
		`names: ${resolvers === undefined ? "as this host resolves them" : `asked of ${resolvers.map(({ address, port }) => `${address}:${port}`).join(", ")}`}`,
	];
}

function parse(args: readonly string[]) {
	try {
		return parseArgs({
			args: [...args],
			options: {
				listen: { type: "string" },
				origin: { type: "string", multiple: true },
				shared: { type: "boolean" },
				machines: { type: "string" },
				mtu: { type: "string" },
				"pcap-size": { type: "string" },
			},
			strict: true,
		});
	} catch (error) {
		throw usage(error instanceof Error ? error.message : String(error));
	}
}

/** As browsers send it: a scheme and a host, without a path. */
function parseOrigin(text: string): string {
	if (text === "*") return text;
	const url = URL.canParse(text) ? new URL(text) : undefined;
	if (url === undefined || url.origin === "null" || url.origin !== text.replace(/\/$/, "").toLowerCase()) {
		throw usage(
			`--origin is ${JSON.stringify(text.slice(0, 100))}, but an origin such as https://example.org is needed`,
		);
	}
	return url.origin;
}

function parseNumber(flag: string, text: string, least: number, most: number): number {
	const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
	if (value >= least && value <= most) return value;
	throw usage(
		`${flag} is ${JSON.stringify(text.slice(0, 100))}, but a whole number from ${least} to ${most} is needed`,
	);
}

function usage(message: string): SandboxError {
	return new SandboxError("invalid-argument", message, "see sandbox86 relay --help");
}

async function ended(signal: AbortSignal): Promise<void> {
	if (signal.aborted) return;
	await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** The machine's network as the server sets it up: who is let out, which ports lead in, and when the machine must wake. */

import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { join } from "node:path";
import { type Config, dataFolders } from "./config.js";
import { describeError, errnoOf, SandboxError } from "./errors.js";
import type { Log } from "./log.js";
import type { Relay, RelayOptions } from "./relay/relay.js";
import { type Machine, type MachineNetwork, NETWORK_MTU, type OpenFlow } from "./vm/machine.js";
import type { NetworkAttachment } from "./vm/process-messages.js";

/** What the relay calls this server's one machine; it stands in the audit log, which servers may share. */
const MACHINE_NAME = `machine-${process.pid}`;

export type NetworkSettings = Pick<
	Config,
	| "network"
	| "allow"
	| "deny"
	| "hostPort"
	| "forward"
	| "dns"
	| "auditLog"
	| "pcap"
	| "bandwidth"
	| "maxBytes"
	| "maxFlowBytes"
>;

/** A port of the host's loopback that leads into the machine. */
export interface PortForward {
	readonly protocol: "tcp" | "udp";
	readonly hostPort: number;
	readonly guestPort: number;
}

export interface ServerNetwork extends MachineNetwork {
	/** The machine that is kept awake while connections into it are open. */
	serve(machine: Machine): void;
	/** Leads a free port of the host's loopback to the machine's; the machine must run. The same port again gives the same URL. */
	forwardPort(guestPort: number): Promise<string>;
	close(): Promise<void>;
}

/** Checks all settings, so that a mistake is told when the server starts; what costs time is left for the first machine. */
export async function openNetwork(
	settings: NetworkSettings,
	defaultAuditLog: string,
	log: Log,
): Promise<ServerNetwork> {
	if (settings.network === "relay") return RelayNetwork.open(settings, defaultAuditLog, log);
	const needsRelay = [
		["--allow", settings.allow.length],
		["--deny", settings.deny.length],
		["--host-port", settings.hostPort.length],
		["--forward", settings.forward.length],
		["--dns", settings.dns.length],
		["--audit-log", settings.auditLog],
		["--pcap", settings.pcap],
		["--bandwidth", settings.bandwidth],
		["--max-bytes", settings.maxBytes],
		["--max-flow-bytes", settings.maxFlowBytes],
	] as const;
	for (const [flag, given] of needsRelay) {
		if (given !== undefined && given !== 0) {
			throw new SandboxError(
				"invalid-argument",
				`${flag} is of no effect with --network ${settings.network}`,
				"use --network relay, or leave the option out",
			);
		}
	}
	return new PlainNetwork(settings.network === "none" ? { kind: "none" } : { kind: "v86", relayUrl: "fetch" });
}

/** The network of machines that images are built in: out as the server's machine may, nothing leads in. */
export async function openBuildNetwork(config: Config, log: Log): Promise<ServerNetwork> {
	const settings = { ...config, forward: [], pcap: undefined };
	return await openNetwork(settings, defaultAuditLog(config.home), log);
}

/** Where the audit log is unless the user says otherwise. */
export function defaultAuditLog(home: string): string {
	return join(dataFolders(home).logs, "network.jsonl");
}

/** "8080:80", "5353:53/udp" */
export function parsePortForward(text: string): PortForward {
	const parts = /^(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
	const [hostPort, guestPort] = [Number(parts?.[1]), Number(parts?.[2])];
	const isPort = (port: number) => port >= 1 && port <= 65_535;
	if (parts === null || !isPort(hostPort) || !isPort(guestPort)) {
		throw new SandboxError(
			"invalid-argument",
			`--forward is ${JSON.stringify(text.slice(0, 100))}, but HOST:GUEST is needed, two ports from 1 to 65535`,
			"for example --forward 8080:80, or --forward 5353:53/udp",
		);
	}
	return { protocol: parts[3] === "udp" ? "udp" : "tcp", hostPort, guestPort };
}

/** No network, or one that needs nothing of ours. */
class PlainNetwork implements ServerNetwork {
	readonly #attachment: NetworkAttachment;

	constructor(attachment: NetworkAttachment) {
		this.#attachment = attachment;
	}

	async attach(): Promise<NetworkAttachment> {
		return this.#attachment;
	}

	serve(): void {}

	guestIsUp(): void {}

	guestPaused(): void {}

	guestResumed(): void {}

	openFlows(): readonly OpenFlow[] {
		return [];
	}

	abandonFlows(): void {}

	async forwardPort(): Promise<string> {
		throw new SandboxError(
			"invalid-argument",
			`no port can be forwarded with --network ${this.#attachment.kind === "none" ? "none" : "fetch"}`,
			"start the server with --network relay",
		);
	}

	async close(): Promise<void> {}
}

class RelayNetwork implements ServerNetwork {
	readonly #log: Log;
	readonly #options: Omit<RelayOptions, "log">;
	readonly #forwards: readonly PortForward[];
	#relay: Promise<Relay> | undefined;
	#running: Relay | undefined;
	#machine: Machine | undefined;
	/** Keeps the machine awake while connections into it are open. */
	#hold: Promise<() => void> | undefined;
	#areForwardsOpen = false;

	static async open(settings: NetworkSettings, defaultAuditLog: string, log: Log): Promise<RelayNetwork> {
		const { checkRelayOptions, parseRelaySettings } = await import("./relay/settings.js");
		const options = parseRelaySettings({ ...settings, auditLog: settings.auditLog ?? defaultAuditLog });
		await checkRelayOptions(options);
		const forwards = settings.forward.map(parsePortForward);
		checkPortsDiffer(forwards);
		for (const { protocol, hostPort } of forwards) await checkPortIsFree(hostPort, protocol);
		return new RelayNetwork(options, forwards, log);
	}

	private constructor(options: Omit<RelayOptions, "log">, forwards: readonly PortForward[], log: Log) {
		this.#options = options;
		this.#forwards = forwards;
		this.#log = log;
	}

	serve(machine: Machine): void {
		this.#machine = machine;
	}

	async attach(): Promise<NetworkAttachment> {
		this.#relay ??= this.#start();
		const relay = await this.#relay.catch((error: unknown) => {
			this.#relay = undefined;
			throw error;
		});
		return { kind: "relay", url: relay.machineUrl(MACHINE_NAME) };
	}

	guestIsUp(): void {
		this.#running?.network(MACHINE_NAME)?.guestIsUp();
	}

	guestPaused(): void {
		this.#running?.network(MACHINE_NAME)?.guestPaused();
	}

	guestResumed(): void {
		this.#running?.network(MACHINE_NAME)?.guestResumed();
	}

	openFlows(): readonly OpenFlow[] {
		return this.#running?.network(MACHINE_NAME)?.openFlows() ?? [];
	}

	abandonFlows(flows: readonly OpenFlow[]): void {
		this.#running?.network(MACHINE_NAME)?.abandonFlows(flows);
	}

	async forwardPort(guestPort: number): Promise<string> {
		const relay = this.#running;
		if (relay === undefined) throw new SandboxError("internal", "the relay is not running");
		const open = relay
			.forwards(MACHINE_NAME)
			.find((forward) => forward.protocol === "tcp" && forward.guestPort === guestPort);
		return (open ?? (await relay.forward(MACHINE_NAME, 0, guestPort, "tcp"))).url;
	}

	async close(): Promise<void> {
		const relay = await this.#relay?.catch(() => undefined);
		await relay?.close();
	}

	async #start(): Promise<Relay> {
		const { startRelay } = await import("./relay/relay.js");
		const relay = await startRelay({
			...this.#options,
			mtu: NETWORK_MTU,
			maxMachines: 1,
			log: this.#log,
			events: {
				connected: () => this.#openForwards(),
				inbound: () => this.#keepAwake(),
				inboundIdle: () => this.#letSleep(),
			},
		});
		this.#running = relay;
		return relay;
	}

	/** Once: the relay keeps them for the machine's later connections. */
	#openForwards(): void {
		if (this.#areForwardsOpen) return;
		this.#areForwardsOpen = true;
		for (const { protocol, hostPort, guestPort } of this.#forwards) {
			this.#running?.forward(MACHINE_NAME, hostPort, guestPort, protocol).catch((error: unknown) => {
				this.#log.error(`--forward ${hostPort}:${guestPort} can't be had: ${describeError(error)}`);
			});
		}
	}

	async #keepAwake(): Promise<void> {
		if (this.#machine === undefined) throw new SandboxError("internal", "there is no machine to wake");
		this.#hold ??= this.#machine.keepAwake();
		try {
			await this.#hold;
		} catch (error) {
			this.#hold = undefined;
			throw error;
		}
	}

	#letSleep(): void {
		const hold = this.#hold;
		this.#hold = undefined;
		hold?.then(
			(release) => release(),
			() => {},
		);
	}
}

function checkPortsDiffer(forwards: readonly PortForward[]): void {
	const seen = new Set<string>();
	for (const { protocol, hostPort } of forwards) {
		const port = `${hostPort}/${protocol}`;
		if (seen.has(port)) {
			throw new SandboxError(
				"invalid-argument",
				`--forward leads port ${port} of 127.0.0.1 to two places`,
				"give each forward a port of the host of its own",
			);
		}
		seen.add(port);
	}
}

async function checkPortIsFree(port: number, protocol: PortForward["protocol"]): Promise<void> {
	const probe = protocol === "tcp" ? createServer() : createSocket("udp4");
	try {
		await new Promise<void>((resolve, reject) => {
			probe.once("error", reject);
			if ("listen" in probe) probe.listen({ host: "127.0.0.1", port }, resolve);
			else probe.bind({ address: "127.0.0.1", port }, resolve);
		});
	} catch (error) {
		throw new SandboxError(
			"already-exists",
			`--forward can't have ${protocol.toUpperCase()} port ${port} of 127.0.0.1 (${errnoOf(error) ?? describeError(error)})`,
			"choose another port of the host, or end the program that has it",
		);
	} finally {
		probe.close();
	}
}

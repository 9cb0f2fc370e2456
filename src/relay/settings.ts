/** The settings that the server and `sandbox86 relay` share: from text to rules, and whether a relay can hold them. */

import { systemClock } from "./clock.js";
import { createHostAddresses } from "./egress/host-addresses.js";
import { NameTable } from "./egress/name-table.js";
import { checkHostPorts, createPolicy } from "./egress/policy.js";
import { parseHostPort, parseRule } from "./egress/rule.js";
import type { RelayOptions } from "./relay.js";
import { parseResolver } from "./services/resolver.js";
import { checkWritable } from "./writable-file.js";

/** The settings as text. */
export interface RelaySettings {
	readonly allow: readonly string[];
	readonly deny: readonly string[];
	readonly hostPort: readonly string[];
	readonly dns: readonly string[];
	readonly auditLog?: string | undefined;
	readonly pcap?: string | undefined;
}

/** Throws SandboxError("invalid-argument") for what is no rule, port or resolver. */
export function parseRelaySettings(settings: RelaySettings): Omit<RelayOptions, "log"> {
	const { allow, deny, hostPort, dns, auditLog, pcap } = settings;
	return {
		allow: allow.map(parseRule),
		deny: deny.map(parseRule),
		hostPorts: hostPort.map(parseHostPort),
		...(dns.length === 0 ? {} : { resolvers: dns.map(parseResolver) }),
		...(auditLog === undefined ? {} : { auditLogPath: auditLog }),
		...(pcap === undefined ? {} : { pcapPath: pcap }),
	};
}

/** Throws SandboxError("invalid-argument") for rules, ports and files that no relay can have, before anything listens. */
export async function checkRelayOptions(options: Omit<RelayOptions, "log">): Promise<void> {
	const { auditLogPath, pcapPath } = options;
	const hostPorts = new Set(options.hostPorts);
	createPolicy({
		allow: options.allow ?? [],
		deny: options.deny ?? [],
		hostPorts,
		hostAddresses: createHostAddresses(systemClock),
		names: new NameTable(systemClock),
	});
	checkHostPorts(hostPorts, 0);
	if (auditLogPath !== undefined) {
		await checkWritable({ path: auditLogPath, what: "audit log", flag: "--audit-log", makesFolder: true });
	}
	if (pcapPath !== undefined) {
		await checkWritable({ path: pcapPath, what: "capture file", flag: "--pcap", makesFolder: false });
	}
}

import { DNS_CLASS_IN, DNS_TYPE, type DnsMessage, type DnsRecord } from "../../../../src/relay/wire/dns.js";
import { parseDnsMessage } from "../../../../src/relay/wire/dns-parser.js";
import { ipv4 } from "../egress/support.js";

/** A query as a stub resolver sends it. */
export function queryOf(name: string, type: number = DNS_TYPE.A, more: Partial<DnsMessage> = {}): DnsMessage {
	return {
		id: 0x1234,
		isResponse: false,
		opcode: 0,
		isAuthoritative: false,
		isTruncated: false,
		recursionDesired: true,
		recursionAvailable: false,
		code: 0,
		questions: [{ name, type, class: DNS_CLASS_IN }],
		answers: [],
		authorities: [],
		edns: undefined,
		...more,
	};
}

export function responseTo(
	query: DnsMessage,
	answers: readonly DnsRecord[],
	more: Partial<DnsMessage> = {},
): DnsMessage {
	return { ...query, isResponse: true, recursionAvailable: true, answers, ...more };
}

export function addressRecord(name: string, address: string, timeToLive = 60): DnsRecord {
	return { name, type: DNS_TYPE.A, class: DNS_CLASS_IN, timeToLive, data: { kind: "address", address: ipv4(address) } };
}

export function aliasRecord(name: string, target: string): DnsRecord {
	return { name, type: DNS_TYPE.CNAME, class: DNS_CLASS_IN, timeToLive: 60, data: { kind: "name", name: target } };
}

export function bytesRecord(name: string, type: number, bytes: Uint8Array): DnsRecord {
	return { name, type, class: DNS_CLASS_IN, timeToLive: 60, data: { kind: "bytes", bytes } };
}

export function parsed(bytes: Uint8Array | undefined): DnsMessage {
	const message = parseDnsMessage(bytes ?? new Uint8Array(0));
	if (!message.ok) throw new Error(message.reason);
	return message.value;
}

import type { Ipv4 } from "../addresses.js";
import { DNS_MAX_ALIASES } from "../limits.js";
import { DNS_CLASS_IN, DNS_TYPE, type DnsMessage, type DnsQuestion, type DnsRecord } from "../wire/dns.js";
import { canonicalDnsName } from "../wire/dns-name.js";

/** What of a resolver's answer concerns the question: the aliases from the name on, then the records that end there. */
export interface DnsAnswer {
	/** In the order in which they lead on; each is a CNAME. */
	readonly aliases: readonly DnsRecord[];
	readonly records: readonly DnsRecord[];
	/** Says how long a negative answer holds (RFC 2308). */
	readonly authorities: readonly DnsRecord[];
}

/** Records that nobody asked for are left out, whatever the section: no resolver needs them here. */
export function readDnsAnswer(question: DnsQuestion, response: DnsMessage): DnsAnswer {
	const aliases: DnsRecord[] = [];
	let owner = canonicalDnsName(question.name);
	if (question.type !== DNS_TYPE.CNAME) {
		for (let count = 0; count < DNS_MAX_ALIASES; count++) {
			const alias = response.answers.find((record) => isOf(record, owner, DNS_TYPE.CNAME));
			if (alias === undefined || alias.data.kind !== "name") break;
			aliases.push(alias);
			owner = canonicalDnsName(alias.data.name);
		}
	}
	const records = response.answers.filter((record) => isOf(record, owner, question.type));
	const authorities = response.authorities.filter(
		(record) => record.type === DNS_TYPE.SOA && record.class === DNS_CLASS_IN,
	);
	return { aliases, records, authorities: records.length === 0 ? authorities.slice(0, 1) : [] };
}

/** The address that a name of in-addr.arpa is about (RFC 1035 3.5); undefined: of none, or of a whole network. */
export function reverseAddressOf(name: string): Ipv4 | undefined {
	const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(canonicalDnsName(name));
	if (match === null) return undefined;
	const [d = 0, c = 0, b = 0, a = 0] = match.slice(1).map(Number);
	if (Math.max(a, b, c, d) > 255) return undefined;
	return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
}

function isOf(record: DnsRecord, owner: string, type: number): boolean {
	return record.type === type && record.class === DNS_CLASS_IN && canonicalDnsName(record.name) === owner;
}

/** A DNS message (RFC 1035), read by dns-parser.ts and written by dns-serializer.ts. */

import type { Ipv4 } from "../addresses.js";

// RFC 1035 4.1: id(2) flags(2) questions(2) answers(2) authorities(2) additionals(2), then the four sections
export const DNS_HEADER_BYTES = 12;
export const DNS_FLAGS_OFFSET = 2;
/** Of the numbers of questions, answers, authorities and additionals, 2 bytes each. */
export const DNS_COUNTS_OFFSET = 4;
export const DNS_MAX_BYTES = 65_535;

export const DNS_CLASS_IN = 1;
/** RFC 1035 3.2.2, 3596, 2782, 6891, 8659, 9460. */
export const DNS_TYPE = {
	A: 1,
	NS: 2,
	CNAME: 5,
	SOA: 6,
	PTR: 12,
	HINFO: 13,
	MX: 15,
	TXT: 16,
	AAAA: 28,
	SRV: 33,
	OPT: 41,
	SVCB: 64,
	HTTPS: 65,
	ANY: 255,
	CAA: 257,
} as const;
/** RFC 1035 4.1.1, 6891 9. */
export const DNS_CODE = {
	NOERROR: 0,
	FORMERR: 1,
	SERVFAIL: 2,
	NXDOMAIN: 3,
	NOTIMP: 4,
	REFUSED: 5,
	BADVERS: 16,
} as const;

export interface DnsQuestion {
	readonly name: string;
	readonly type: number;
	readonly class: number;
}

export type DnsData =
	| { readonly kind: "address"; readonly address: Ipv4 }
	/** CNAME, NS, PTR */
	| { readonly kind: "name"; readonly name: string }
	| { readonly kind: "mx"; readonly preference: number; readonly exchange: string }
	| {
			readonly kind: "srv";
			readonly priority: number;
			readonly weight: number;
			readonly port: number;
			readonly target: string;
	  }
	| { readonly kind: "soa"; readonly server: string; readonly mailbox: string; readonly numbers: readonly number[] }
	| { readonly kind: "bytes"; readonly bytes: Uint8Array };

export interface DnsRecord {
	readonly name: string;
	readonly type: number;
	readonly class: number;
	/** Seconds; with the top bit set it counts as 0 (RFC 2181 8). */
	readonly timeToLive: number;
	readonly data: DnsData;
}

export interface DnsMessage {
	readonly id: number;
	readonly isResponse: boolean;
	readonly opcode: number;
	readonly isAuthoritative: boolean;
	readonly isTruncated: boolean;
	readonly recursionDesired: boolean;
	readonly recursionAvailable: boolean;
	/** With the upper bits of OPT. */
	readonly code: number;
	readonly questions: readonly DnsQuestion[];
	readonly answers: readonly DnsRecord[];
	readonly authorities: readonly DnsRecord[];
	/** From the additional section, of which nothing else is kept. */
	readonly edns: { readonly udpBytes: number; readonly version: number } | undefined;
}

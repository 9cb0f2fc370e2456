import type { Ipv4 } from "../addresses.js";
import type { Clock } from "../clock.js";
import type { NameTable } from "../egress/name-table.js";
import type { Policy, Refused, Verdict } from "../egress/policy.js";
import { DNS_MAX_OUTSTANDING, DNS_MAX_UDP_BYTES, DNS_TOTAL_MS } from "../limits.js";
import {
	DNS_CLASS_IN,
	DNS_CODE,
	DNS_MAX_BYTES,
	DNS_TYPE,
	type DnsMessage,
	type DnsQuestion,
	type DnsRecord,
} from "../wire/dns.js";
import { canonicalDnsName } from "../wire/dns-name.js";
import { parseDnsHeader, parseDnsMessage } from "../wire/dns-parser.js";
import { serializeDnsMessage } from "../wire/dns-serializer.js";
import { type DnsAnswer, readDnsAnswer, reverseAddressOf } from "./dns-answer.js";
import { askResolvers } from "./dns-client.js";
import type { DnsTransport } from "./dns-transport.js";
import type { Resolver } from "./resolver.js";

/** What became of a question, for the audit log. */
export interface DnsDecision {
	/** In lower case. */
	readonly name: string;
	/** One that the answer held and that was taken out of it. */
	readonly address: Ipv4 | undefined;
	readonly verdict: Verdict;
	/** Of the guest's query and of the answer to it. */
	readonly bytesOut: number;
	readonly bytesIn: number;
}

export interface DnsProxyOptions {
	readonly policy: Policy;
	readonly names: NameTable;
	/** Asked for each query, as the host may move to another network. */
	readonly resolvers: () => readonly Resolver[];
	readonly transport: DnsTransport;
	readonly clock: Clock;
	readonly decided: (decision: DnsDecision) => void;
}

/** Without EDNS (RFC 1035 4.2.1). */
const MIN_UDP_BYTES = 512;
const QUERY_OPCODE = 0;

/** What is looked up. Nothing else that a record can hold is an address which a program would connect to. */
const FORWARDED_TYPES: ReadonlySet<number> = new Set([
	DNS_TYPE.A,
	DNS_TYPE.NS,
	DNS_TYPE.CNAME,
	DNS_TYPE.SOA,
	DNS_TYPE.PTR,
	DNS_TYPE.MX,
	DNS_TYPE.TXT,
	DNS_TYPE.SRV,
	DNS_TYPE.CAA,
]);
/** Question types and meta types (RFC 6895 3.1) but ANY: zone transfers, keys. */
const FIRST_META_TYPE = 128;
const LAST_META_TYPE = 254;
/** Names that are nobody's (RFC 6761, 7686), and addresses that the machines don't have. */
const LOCAL_ZONES = ["localhost", "invalid", "onion", "ip6.arpa"];

interface Reply {
	readonly code: number;
	readonly answers: readonly DnsRecord[];
	readonly authorities: readonly DnsRecord[];
}

const NO_RECORDS: readonly DnsRecord[] = [];

/**
 * One machine's resolver: answers from the host's resolvers, for the names that the policy allows, without the addresses
 * that it closes. What was answered is remembered in the name table.
 */
export class DnsProxy {
	readonly #options: DnsProxyOptions;
	/** The oldest first. */
	readonly #pending = new Set<AbortController>();
	#closed = false;

	constructor(options: DnsProxyOptions) {
		this.#options = options;
	}

	/** Answers one message; undefined: it deserves no answer, or the proxy was closed. Never rejects. */
	async handle(query: Uint8Array, via: "udp" | "tcp"): Promise<Uint8Array | undefined> {
		const header = parseDnsHeader(query);
		if (this.#closed || header === undefined || header.isResponse) return undefined;
		if (header.opcode !== QUERY_OPCODE) return answerTo(header, via, failure(DNS_CODE.NOTIMP));
		const parsed = parseDnsMessage(query);
		if (!parsed.ok) return answerTo(header, via, failure(DNS_CODE.FORMERR));
		const message = parsed.value;
		const [question] = message.questions;
		if (question === undefined || message.questions.length > 1) return answerTo(header, via, failure(DNS_CODE.FORMERR));
		if (message.edns !== undefined && message.edns.version > 0) {
			return answerTo(message, via, failure(DNS_CODE.BADVERS));
		}
		if (question.class !== DNS_CLASS_IN) return answerTo(message, via, failure(DNS_CODE.REFUSED));
		return this.#answer(message, question, via, query.length);
	}

	/** Ends the look-ups that are on their way; they are not answered. */
	close(): void {
		this.#closed = true;
		for (const pending of this.#pending) pending.abort();
	}

	async #answer(
		message: DnsMessage,
		question: DnsQuestion,
		via: "udp" | "tcp",
		bytesOut: number,
	): Promise<Uint8Array | undefined> {
		const { policy, decided } = this.#options;
		const name = canonicalDnsName(question.name);
		let verdict = policy.decideName(name);
		const stripped: [Ipv4, Refused][] = [];
		let reply = failure(DNS_CODE.REFUSED);
		if (verdict.allowed) {
			const outcome = await this.#resolve(question, name);
			if (this.#closed) return undefined;
			reply = outcome.reply;
			stripped.push(...outcome.stripped);
			verdict = outcome.refused ?? verdict;
		}
		const answer = answerTo(message, via, reply);
		decided({ name, address: undefined, verdict, bytesOut, bytesIn: answer.length });
		for (const [address, refused] of stripped) decided({ name, address, verdict: refused, bytesOut: 0, bytesIn: 0 });
		return answer;
	}

	async #resolve(question: DnsQuestion, name: string): Promise<Outcome> {
		const local = this.#answerLocally(question, name);
		if (local !== undefined) return { reply: local, stripped: [], refused: undefined };
		const response = await this.#ask(question);
		if (response === undefined) return { reply: failure(DNS_CODE.SERVFAIL), stripped: [], refused: undefined };
		return this.#clean(name, response.code, readDnsAnswer(question, response));
	}

	/** What needs no resolver. */
	#answerLocally(question: DnsQuestion, name: string): Reply | undefined {
		const { type } = question;
		if (LOCAL_ZONES.some((zone) => name === zone || name.endsWith(`.${zone}`))) return failure(DNS_CODE.NXDOMAIN);
		const reverse = reverseAddressOf(name);
		// The names of the host's network are not the machine's business.
		if (reverse !== undefined && this.#options.policy.unspeakable(reverse) !== undefined) {
			return failure(DNS_CODE.NXDOMAIN);
		}
		if (type === DNS_TYPE.ANY) return { ...failure(DNS_CODE.NOERROR), answers: [minimalAnyRecord(question.name)] };
		if (type >= FIRST_META_TYPE && type <= LAST_META_TYPE) return failure(DNS_CODE.NOTIMP);
		// AAAA, as the machines' network is IPv4; HTTPS and SVCB, whose hints and keys go round the gate; unknown types.
		return FORWARDED_TYPES.has(type) ? undefined : failure(DNS_CODE.NOERROR);
	}

	/** Under a bound of outstanding queries and of time. */
	async #ask(question: DnsQuestion): Promise<DnsMessage | undefined> {
		const { clock, resolvers, transport } = this.#options;
		for (const oldest of this.#pending) {
			if (this.#pending.size < DNS_MAX_OUTSTANDING) break;
			this.#pending.delete(oldest);
			oldest.abort();
		}
		const pending = new AbortController();
		this.#pending.add(pending);
		const timer = clock.setTimer(DNS_TOTAL_MS, () => pending.abort());
		try {
			return await askResolvers(question, resolvers(), transport, pending.signal);
		} finally {
			timer.cancel();
			this.#pending.delete(pending);
		}
	}

	/** Takes out what the policy closes, and remembers the addresses that are left. */
	#clean(name: string, code: number, answer: DnsAnswer): Outcome {
		const { names, policy } = this.#options;
		for (const { data } of answer.aliases) {
			const verdict = policy.decideAlias(data.kind === "name" ? canonicalDnsName(data.name) : ".");
			if (!verdict.allowed) return { reply: failure(DNS_CODE.REFUSED), stripped: [], refused: verdict };
		}
		const stripped: [Ipv4, Refused][] = [];
		const records: DnsRecord[] = [];
		for (const record of answer.records) {
			if (record.data.kind !== "address") {
				records.push(record);
				continue;
			}
			const { address } = record.data;
			const closed = policy.unspeakable(address);
			if (closed === undefined) {
				records.push(record);
				names.record(name, address, secondsToLive(record));
			} else {
				const reason = `${closed} is closed, so the address was taken out of the answer`;
				stripped.push([address, { allowed: false, rule: closed, reason, name }]);
			}
		}
		const isEmptied = records.length === 0 && stripped.length > 0;
		const answers = isEmptied ? NO_RECORDS : [...answer.aliases, ...records];
		return { reply: { code, answers, authorities: answer.authorities }, stripped, refused: undefined };
	}
}

interface Outcome {
	readonly reply: Reply;
	/** Addresses that were taken out. */
	readonly stripped: readonly [Ipv4, Refused][];
	/** Why the answer was refused after all. */
	readonly refused: Refused | undefined;
}

function failure(code: number): Reply {
	return { code, answers: NO_RECORDS, authorities: NO_RECORDS };
}

/** The question goes back as it came, its letters' case included. */
function answerTo(query: DnsMessage, via: "udp" | "tcp", reply: Reply): Uint8Array {
	const udpBytes = Math.min(Math.max(query.edns?.udpBytes ?? 0, MIN_UDP_BYTES), DNS_MAX_UDP_BYTES);
	const answer: DnsMessage = {
		id: query.id,
		isResponse: true,
		opcode: query.opcode,
		isAuthoritative: false,
		isTruncated: false,
		recursionDesired: query.recursionDesired,
		recursionAvailable: true,
		code: reply.code,
		questions: query.questions,
		answers: reply.answers,
		authorities: reply.authorities,
		edns: query.edns === undefined ? undefined : { udpBytes: DNS_MAX_UDP_BYTES, version: 0 },
	};
	return serializeDnsMessage(answer, via === "udp" ? udpBytes : DNS_MAX_BYTES);
}

/** RFC 8482 4.2: HINFO "RFC8482" "". */
function minimalAnyRecord(name: string): DnsRecord {
	const bytes = Uint8Array.of(7, ...Buffer.from("RFC8482"), 0);
	return { name, type: DNS_TYPE.HINFO, class: DNS_CLASS_IN, timeToLive: 3600, data: { kind: "bytes", bytes } };
}

function secondsToLive(record: DnsRecord): number {
	return record.timeToLive > 0x7fffffff ? 0 : record.timeToLive;
}

import { randomInt } from "node:crypto";
import { DNS_ATTEMPT_MS, DNS_MAX_UDP_BYTES } from "../limits.js";
import { DNS_CODE, type DnsMessage, type DnsQuestion } from "../wire/dns.js";
import { canonicalDnsName } from "../wire/dns-name.js";
import { parseDnsMessage } from "../wire/dns-parser.js";
import { serializeDnsMessage } from "../wire/dns-serializer.js";
import type { DnsTransport } from "./dns-transport.js";
import type { Resolver } from "./resolver.js";

/** A resolver that says nothing is asked so many times, in turns with the others. */
const ROUNDS = 3;
const IDS = 65_536;

/**
 * Asks the resolvers in order for an answer that says yes or no. The query is our own, of the question's name, type and
 * class alone: nothing else that a guest wrote goes out. Undefined: no resolver gave an answer before `signal` was given.
 */
export async function askResolvers(
	question: DnsQuestion,
	resolvers: readonly Resolver[],
	transport: DnsTransport,
	signal: AbortSignal,
): Promise<DnsMessage | undefined> {
	for (let round = 0; round < ROUNDS; round++) {
		let isSilent = false;
		for (const resolver of resolvers) {
			if (signal.aborted) return undefined;
			const response = await askResolver(question, resolver, transport, signal);
			if (response?.code === DNS_CODE.NOERROR || response?.code === DNS_CODE.NXDOMAIN) return response;
			isSilent ||= response === undefined;
		}
		if (!isSilent) return undefined;
	}
	return undefined;
}

async function askResolver(
	question: DnsQuestion,
	resolver: Resolver,
	transport: DnsTransport,
	signal: AbortSignal,
): Promise<DnsMessage | undefined> {
	const ask = async (via: "udp" | "tcp", edns: boolean): Promise<DnsMessage | undefined> => {
		const query = createQuery(question, edns);
		let response: DnsMessage | undefined;
		const accepts = (message: Uint8Array): boolean => {
			response = matchingResponse(query, message);
			return response !== undefined;
		};
		try {
			const bytes = serializeDnsMessage(query);
			await transport.exchange({ query: bytes, resolver, via, timeoutMs: DNS_ATTEMPT_MS, signal, accepts });
			return response;
		} catch {
			// Out of reach, or silent: the next one is asked.
			return undefined;
		}
	};
	const response = await ask("udp", true);
	// RFC 6891 7: a server that does not know EDNS.
	const plain = response?.code === DNS_CODE.FORMERR ? await ask("udp", false) : response;
	return plain?.isTruncated ? ask("tcp", true) : plain;
}

function createQuery(question: DnsQuestion, edns: boolean): DnsMessage {
	return {
		id: randomInt(IDS),
		isResponse: false,
		opcode: 0,
		isAuthoritative: false,
		isTruncated: false,
		recursionDesired: true,
		recursionAvailable: false,
		code: DNS_CODE.NOERROR,
		questions: [question],
		answers: [],
		authorities: [],
		edns: edns ? { udpBytes: DNS_MAX_UDP_BYTES, version: 0 } : undefined,
	};
}

/** RFC 5452 9.1: ID and question must be ours; the transport sees to the addresses. */
function matchingResponse(query: DnsMessage, bytes: Uint8Array): DnsMessage | undefined {
	const parsed = parseDnsMessage(bytes);
	if (!parsed.ok) return undefined;
	const response = parsed.value;
	if (!response.isResponse || response.id !== query.id || response.opcode !== 0) return undefined;
	const [asked] = query.questions;
	const [echoed, ...more] = response.questions;
	// Some servers don't repeat a question that they could not read.
	if (echoed === undefined) return response.code === DNS_CODE.FORMERR ? response : undefined;
	if (asked === undefined || more.length > 0) return undefined;
	const isSame =
		canonicalDnsName(echoed.name) === canonicalDnsName(asked.name) &&
		echoed.type === asked.type &&
		echoed.class === asked.class;
	return isSame ? response : undefined;
}

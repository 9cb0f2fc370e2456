import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DnsProxy } from "../../src/relay/services/dns-proxy.js";
import { DNS_TYPE, type DnsData, type DnsMessage, type DnsRecord } from "../../src/relay/wire/dns.js";
import { canonicalDnsName, dnsNameLabels, readDnsName } from "../../src/relay/wire/dns-name.js";
import { parseDnsMessage } from "../../src/relay/wire/dns-parser.js";
import { serializeDnsMessage } from "../../src/relay/wire/dns-serializer.js";
import { createGate } from "../unit/relay/egress/support.js";

const SEED = 1035;

/** Labels of any bytes, mostly short and few, so that names share endings. */
const label = fc.oneof(fc.constantFrom("a", "A", "org"), fc.uint8Array({ minLength: 1, maxLength: 63 }));
const name = fc.array(label, { maxLength: 6 }).map((labels) => {
	const bytes = labels.flatMap((part) => {
		const text = typeof part === "string" ? Buffer.from(part) : part;
		return [text.length, ...text];
	});
	return readDnsName(Uint8Array.from([...bytes, 0]), 0)?.name ?? ".";
});
const uint16 = fc.integer({ min: 0, max: 0xffff });
const uint32 = fc.integer({ min: 0, max: 0xffffffff });

const typed: fc.Arbitrary<{ type: number; data: DnsData }> = fc.oneof(
	uint32.map((address) => ({ type: DNS_TYPE.A, data: { kind: "address", address } as const })),
	fc
		.tuple(fc.constantFrom(DNS_TYPE.CNAME, DNS_TYPE.NS, DNS_TYPE.PTR), name)
		.map(([type, target]) => ({ type, data: { kind: "name", name: target } as const })),
	fc
		.tuple(uint16, name)
		.map(([preference, exchange]) => ({ type: DNS_TYPE.MX, data: { kind: "mx", preference, exchange } as const })),
	fc.tuple(uint16, uint16, uint16, name).map(([priority, weight, port, target]) => ({
		type: DNS_TYPE.SRV,
		data: { kind: "srv", priority, weight, port, target } as const,
	})),
	fc.tuple(name, name, fc.array(uint32, { minLength: 5, maxLength: 5 })).map(([server, mailbox, numbers]) => ({
		type: DNS_TYPE.SOA,
		data: { kind: "soa", server, mailbox, numbers } as const,
	})),
	fc.uint8Array({ maxLength: 300 }).map((bytes) => ({ type: DNS_TYPE.TXT, data: { kind: "bytes", bytes } as const })),
);
const record: fc.Arbitrary<DnsRecord> = fc
	.tuple(name, typed, uint32)
	.map(([owner, { type, data }, timeToLive]) => ({ name: owner, type, class: 1, timeToLive, data }));

const message: fc.Arbitrary<DnsMessage> = fc
	.record({
		id: uint16,
		isResponse: fc.boolean(),
		opcode: fc.integer({ min: 0, max: 15 }),
		isAuthoritative: fc.boolean(),
		isTruncated: fc.boolean(),
		recursionDesired: fc.boolean(),
		recursionAvailable: fc.boolean(),
		code: fc.integer({ min: 0, max: 15 }),
		questions: fc.array(fc.record({ name, type: uint16, class: uint16 }), { maxLength: 2 }),
		answers: fc.array(record, { maxLength: 6 }),
		authorities: fc.array(record, { maxLength: 3 }),
		edns: fc.option(fc.record({ udpBytes: uint16, version: fc.integer({ min: 0, max: 255 }) }), { nil: undefined }),
	})
	.map((parts) => (parts.edns === undefined ? parts : { ...parts, code: parts.code + 16 * 5 }));

/** Bytes that are nearly a message: one with some of its bytes changed. */
const damaged = fc
	.tuple(message, fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 8 }), fc.nat())
	.map(([whole, changes, cut]) => {
		const bytes = serializeDnsMessage(whole);
		for (const [at, value] of changes) bytes[at % bytes.length] = value;
		return bytes.subarray(0, cut % 4 === 0 ? cut % bytes.length : bytes.length);
	});

describe("DNS messages", () => {
	it("come back from their bytes as they were", () => {
		fc.assert(
			fc.property(message, (whole) => {
				expect(parseDnsMessage(serializeDnsMessage(whole))).toEqual({ ok: true, value: whole });
			}),
			{ seed: SEED, numRuns: 500 },
		);
	});

	it("never exceed the limit that they are written under, and can be read back", () => {
		fc.assert(
			fc.property(message, fc.integer({ min: 700, max: 1500 }), (whole, limit) => {
				fc.pre(whole.questions.length < 2);
				const bytes = serializeDnsMessage(whole, limit);
				expect(bytes.length).toBeLessThanOrEqual(limit);
				const read = parseDnsMessage(bytes);
				expect(read.ok && read.value.answers.length <= whole.answers.length).toBe(true);
			}),
			{ seed: SEED, numRuns: 500 },
		);
	});

	it("of any bytes are read or refused without a throw; what was read can be written", () => {
		const bytes = fc.oneof(fc.uint8Array({ maxLength: 200 }), damaged);
		fc.assert(
			fc.property(bytes, (input) => {
				const read = parseDnsMessage(input);
				if (!read.ok) return;
				const again = parseDnsMessage(serializeDnsMessage(read.value));
				expect(again.ok).toBe(true);
			}),
			{ seed: SEED, numRuns: 3000 },
		);
	});

	it("have names whose text and bytes tell the same, whatever the labels hold", () => {
		fc.assert(
			fc.property(
				fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { minLength: 1, maxLength: 6 }),
				(labels) => {
					const bytes = Uint8Array.from([...labels.flatMap((part) => [part.length, ...part]), 0]);
					const read = readDnsName(bytes, 0);
					expect(read?.end).toBe(bytes.length);
					expect(dnsNameLabels(read?.name ?? "")?.map((part) => [...part])).toEqual(labels.map((part) => [...part]));
					expect(read?.name.split(".")).toHaveLength(labels.length);
					expect(canonicalDnsName(read?.name ?? "")).toMatch(/^[\x21-\x7e]+$/);
				},
			),
			{ seed: SEED, numRuns: 500 },
		);
	});
});

describe("the resolver", () => {
	it("whatever it is asked and told, answers in form or not at all, and speaks of no private address", async () => {
		const { policy, names, clock } = createGate();
		await fc.assert(
			fc.asyncProperty(
				fc.oneof(
					damaged,
					message.map((whole) => serializeDnsMessage({ ...whole, isResponse: false, opcode: 0 })),
				),
				fc.array(record, { maxLength: 6 }),
				async (query, told) => {
					const proxy = new DnsProxy({
						policy,
						names,
						resolvers: () => [{ address: "192.0.2.53", port: 53 }],
						transport: {
							exchange: async (exchange) => {
								const asked = parseDnsMessage(exchange.query);
								if (!asked.ok) throw new Error(asked.reason);
								const owner = asked.value.questions[0]?.name ?? ".";
								const answers = told.map((one) => ({ ...one, name: owner }));
								const bytes = serializeDnsMessage({ ...asked.value, isResponse: true, answers });
								if (!exchange.accepts(bytes)) throw new Error("not accepted");
								return bytes;
							},
						},
						clock,
						decided: () => {},
					});
					const bytes = await proxy.handle(query, "udp");
					if (bytes === undefined) return;
					expect(bytes.length).toBeLessThanOrEqual(1232);
					const answer = parseDnsMessage(bytes);
					expect(answer.ok).toBe(true);
					if (!answer.ok) return;
					expect(answer.value.isResponse).toBe(true);
					for (const { data } of answer.value.answers) {
						if (data.kind === "address") expect(policy.unspeakable(data.address)).toBeUndefined();
					}
				},
			),
			{ seed: SEED, numRuns: 1000 },
		);
		expect(clock.pendingTimers).toBe(0);
	});
});

import { describe, expect, it } from "vitest";
import { SPECIAL_RANGES } from "../../../../src/relay/egress/special-ranges.js";
import { DNS_MAX_OUTSTANDING } from "../../../../src/relay/limits.js";
import { type DnsDecision, DnsProxy } from "../../../../src/relay/services/dns-proxy.js";
import type { DnsExchange, DnsTransport } from "../../../../src/relay/services/dns-transport.js";
import type { Resolver } from "../../../../src/relay/services/resolver.js";
import { formatIpv4Address } from "../../../../src/relay/wire/address.js";
import { DNS_CODE, DNS_TYPE, type DnsMessage, type DnsRecord } from "../../../../src/relay/wire/dns.js";
import { serializeDnsMessage } from "../../../../src/relay/wire/dns-serializer.js";
import { createGate, ipv4, type Rules, tryEverything } from "../egress/support.js";
import { addressRecord, aliasRecord, bytesRecord, parsed, queryOf, responseTo } from "./support.js";

const FIRST: Resolver = { address: "192.0.2.53", port: 53 };
const SECOND: Resolver = { address: "198.51.100.53", port: 53 };

/** What a resolver says to a query; undefined: nothing. */
type Say = (query: DnsMessage, exchange: DnsExchange) => DnsMessage | undefined;

/** Resolvers that answer at once, or never. */
class FakeTransport implements DnsTransport {
	readonly exchanges: DnsExchange[] = [];
	readonly #say: Say;
	readonly #setTimer: (delayMs: number, callback: () => void) => void;

	constructor(say: Say, setTimer: (delayMs: number, callback: () => void) => void) {
		this.#say = say;
		this.#setTimer = setTimer;
	}

	get asked(): string[] {
		return this.exchanges.map(({ resolver, via, query }) => {
			const [question] = parsed(query).questions;
			return `${via} ${resolver.address} ${question?.name} ${question?.type}`;
		});
	}

	exchange(exchange: DnsExchange): Promise<Uint8Array> {
		this.exchanges.push(exchange);
		return new Promise((resolve, reject) => {
			exchange.signal.addEventListener("abort", () => reject(new Error("given up")));
			this.#setTimer(exchange.timeoutMs, () => reject(new Error("no answer")));
			const response = this.#say(parsed(exchange.query), exchange);
			if (response === undefined) return;
			const bytes = serializeDnsMessage(response);
			if (exchange.accepts(bytes)) resolve(bytes);
		});
	}
}

interface SetUp {
	readonly rules?: Rules;
	readonly say?: Say;
	readonly resolvers?: readonly Resolver[];
}

function setUp({ rules = {}, say = () => undefined, resolvers = [FIRST] }: SetUp) {
	const parts = createGate(rules);
	const transport = new FakeTransport(say, (delayMs, callback) => void parts.clock.setTimer(delayMs, callback));
	const decisions: DnsDecision[] = [];
	const proxy = new DnsProxy({
		policy: parts.policy,
		names: parts.names,
		resolvers: () => resolvers,
		transport,
		clock: parts.clock,
		decided: (decision) => decisions.push(decision),
	});
	const ask = async (query: DnsMessage, via: "udp" | "tcp" = "udp"): Promise<DnsMessage> =>
		parsed(await proxy.handle(serializeDnsMessage(query), via));
	return { ...parts, transport, decisions, proxy, ask };
}

const saying =
	(answers: readonly DnsRecord[], more: Partial<DnsMessage> = {}): Say =>
	(query) =>
		responseTo(query, answers, more);

/** Lets everything run that waits for promises only. */
async function settle(): Promise<void> {
	for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

describe("the resolver", () => {
	it("asks with a query of its own and answers with the guest's ID and letters", async () => {
		const { ask, transport, decisions, names } = setUp({
			say: saying([addressRecord("wWw.Example.ORG", "93.184.216.34")]),
		});
		const query = queryOf("wWw.Example.ORG", DNS_TYPE.A, {
			answers: [bytesRecord("hidden.test", 16, Buffer.from("data"))],
		});
		const answer = await ask(query);
		expect(answer).toMatchObject({ id: 0x1234, isResponse: true, recursionAvailable: true, code: DNS_CODE.NOERROR });
		expect(answer.questions).toEqual(query.questions);
		expect(answer.answers).toEqual([addressRecord("wWw.Example.ORG", "93.184.216.34")]);
		const sent = parsed(transport.exchanges[0]?.query);
		expect(sent.answers).toEqual([]);
		expect(sent.edns).toEqual({ udpBytes: 1232, version: 0 });
		expect(names.namesOf(ipv4("93.184.216.34"))).toEqual(["www.example.org"]);
		expect(decisions).toMatchObject([{ name: "www.example.org", verdict: { allowed: true, rule: "default" } }]);
		expect(decisions[0]?.bytesOut).toBeGreaterThan(30);
		expect(decisions[0]?.bytesIn).toBeGreaterThan(30);
	});

	it("asks under IDs that nobody can foresee", async () => {
		const { ask, transport } = setUp({ say: saying([]) });
		for (let count = 0; count < 20; count++) await ask(queryOf("a.test"));
		expect(new Set(transport.exchanges.map(({ query }) => parsed(query).id)).size).toBeGreaterThan(15);
	});

	it("passes on that a name does not exist, with the zone's SOA", async () => {
		const numbers = [1, 2, 3, 4, 300];
		const soa: DnsRecord = {
			name: "test",
			type: DNS_TYPE.SOA,
			class: 1,
			timeToLive: 300,
			data: { kind: "soa", server: "ns.test", mailbox: "root.test", numbers },
		};
		const { ask } = setUp({
			say: saying([], { code: DNS_CODE.NXDOMAIN, authorities: [soa, addressRecord("x", "1.1.1.1")] }),
		});
		const answer = await ask(queryOf("nowhere.test"));
		expect(answer.code).toBe(DNS_CODE.NXDOMAIN);
		expect(answer.authorities).toEqual([soa]);
	});

	it("hands on what the question leads to, and nothing that nobody asked for", async () => {
		const records = [
			addressRecord("other.test", "8.8.8.8"),
			addressRecord("b.test", "1.1.1.1"),
			aliasRecord("a.test", "B.test"),
			bytesRecord("b.test", DNS_TYPE.TXT, Buffer.from("\u0001x")),
		];
		const { ask, names } = setUp({ say: saying(records) });
		const answer = await ask(queryOf("a.test"));
		expect(answer.answers).toEqual([aliasRecord("a.test", "B.test"), addressRecord("b.test", "1.1.1.1")]);
		expect(names.namesOf(ipv4("1.1.1.1"))).toEqual(["a.test"]);
		expect(names.namesOf(ipv4("8.8.8.8"))).toEqual([]);
	});

	it("is not led in circles by aliases", async () => {
		const { ask } = setUp({ say: saying([aliasRecord("a.test", "b.test"), aliasRecord("b.test", "a.test")]) });
		expect((await ask(queryOf("a.test"))).answers.length).toBeLessThanOrEqual(16);
	});

	it("looks up mail servers, services, texts and names of addresses", async () => {
		for (const [type, data] of [
			[DNS_TYPE.MX, { kind: "mx", preference: 10, exchange: "mail.test" }],
			[DNS_TYPE.SRV, { kind: "srv", priority: 1, weight: 2, port: 389, target: "ldap.test" }],
			[DNS_TYPE.TXT, { kind: "bytes", bytes: new Uint8Array([2, 104, 105]) }],
			[DNS_TYPE.CAA, { kind: "bytes", bytes: new Uint8Array([0, 5, 105, 115, 115, 117, 101]) }],
			[DNS_TYPE.NS, { kind: "name", name: "ns.test" }],
			[DNS_TYPE.PTR, { kind: "name", name: "one.one.one.one" }],
			[DNS_TYPE.CNAME, { kind: "name", name: "else.test" }],
		] as const) {
			const record: DnsRecord = { name: "a.test", type, class: 1, timeToLive: 60, data };
			const { ask } = setUp({ say: saying([record]) });
			expect((await ask(queryOf("a.test", type))).answers).toEqual([record]);
		}
	});

	it("says that there are no IPv6 addresses and no service bindings, and asks nobody", async () => {
		const { ask, transport } = setUp({});
		for (const type of [DNS_TYPE.AAAA, DNS_TYPE.HTTPS, DNS_TYPE.SVCB, 10, 65_280]) {
			expect(await ask(queryOf("example.org", type))).toMatchObject({ code: DNS_CODE.NOERROR, answers: [] });
		}
		const any = await ask(queryOf("example.org", DNS_TYPE.ANY));
		expect(any.answers).toMatchObject([{ type: DNS_TYPE.HINFO }]);
		expect(transport.exchanges).toEqual([]);
	});

	it("keeps names to itself that are nobody's, and those of private addresses", async () => {
		const { ask, transport } = setUp({ say: saying([]) });
		const local = [
			"localhost",
			"a.localhost",
			"x.invalid",
			"abc.onion",
			"5.1.168.192.in-addr.arpa",
			"1.0.0.127.IN-ADDR.arpa",
		];
		local.push("254.169.254.169.in-addr.arpa", "2.2.0.10.in-addr.arpa", "1.0.0.ip6.arpa");
		for (const name of local) expect((await ask(queryOf(name, DNS_TYPE.PTR))).code).toBe(DNS_CODE.NXDOMAIN);
		expect(transport.exchanges).toEqual([]);
		await ask(queryOf("8.8.8.8.in-addr.arpa", DNS_TYPE.PTR));
		expect(transport.exchanges).toHaveLength(1);
	});

	it("answers FORMERR, NOTIMP, REFUSED and BADVERS to what it does not do, and nothing to noise", async () => {
		const { ask, proxy, transport } = setUp({});
		const question = { name: "a.test", type: 1, class: 1 };
		expect((await ask(queryOf("a.test", 1, { questions: [question, question] }))).code).toBe(DNS_CODE.FORMERR);
		expect((await ask(queryOf("a.test", 1, { questions: [] }))).code).toBe(DNS_CODE.FORMERR);
		expect((await ask(queryOf("a.test", 1, { opcode: 5 }))).code).toBe(DNS_CODE.NOTIMP);
		expect((await ask(queryOf("a.test", 252))).code).toBe(DNS_CODE.NOTIMP);
		expect((await ask(queryOf("", 1, { questions: [{ ...question, class: 3 }] }))).code).toBe(DNS_CODE.REFUSED);
		expect((await ask(queryOf("a.test", 1, { edns: { udpBytes: 512, version: 1 } }))).code).toBe(DNS_CODE.BADVERS);
		expect(parsed(await proxy.handle(serializeDnsMessage(queryOf("a.test")).subarray(0, 15), "udp")).code).toBe(
			DNS_CODE.FORMERR,
		);
		expect(await proxy.handle(new Uint8Array(11), "udp")).toBeUndefined();
		expect(await proxy.handle(serializeDnsMessage(queryOf("a.test", 1, { isResponse: true })), "udp")).toBeUndefined();
		expect(transport.exchanges).toEqual([]);
	});

	it("cuts an answer to 512 bytes, or to what EDNS allows, and gives all of it over TCP", async () => {
		const records = Array.from({ length: 60 }, (_, index) => addressRecord("a.test", `1.1.1.${index}`));
		const { ask, proxy } = setUp({ say: saying(records) });
		for (const [edns, most] of [
			[undefined, 512],
			[100, 512],
			[800, 800],
			[65_535, 1232],
		] as const) {
			const query = queryOf("a.test", 1, { edns: edns === undefined ? undefined : { udpBytes: edns, version: 0 } });
			const bytes = await proxy.handle(serializeDnsMessage(query), "udp");
			expect(bytes?.length).toBeLessThanOrEqual(most);
			expect(bytes?.length).toBeGreaterThan(most * 0.6);
			expect(parsed(bytes).isTruncated).toBe(most < 1000);
			expect(parsed(bytes).edns === undefined).toBe(edns === undefined);
		}
		expect((await ask(queryOf("a.test"), "tcp")).answers).toHaveLength(60);
	});
});

describe("the resolvers behind it", () => {
	it("are asked in turns until the time is over: then SERVFAIL, within 5 s", async () => {
		const { ask, transport, clock } = setUp({ resolvers: [FIRST, SECOND] });
		const answer = ask(queryOf("a.test"));
		await settle();
		for (let ms = 0; ms < 4500; ms += 100) {
			clock.advance(100);
			await settle();
		}
		expect((await answer).code).toBe(DNS_CODE.SERVFAIL);
		expect(transport.exchanges.map(({ resolver }) => resolver)).toEqual([FIRST, SECOND, FIRST]);
		expect(clock.nowMs()).toBeLessThan(5000);
	});

	it("are passed over when they fail, are overloaded or refuse", async () => {
		const say: Say = (query, { resolver }) =>
			resolver === FIRST
				? responseTo(query, [], { code: DNS_CODE.SERVFAIL })
				: responseTo(query, [addressRecord("a.test", "1.1.1.1")]);
		const { ask } = setUp({ say, resolvers: [FIRST, SECOND] });
		expect((await ask(queryOf("a.test"))).answers).toHaveLength(1);
	});

	it("are not asked again for what all of them refuse", async () => {
		const { ask, transport } = setUp({ say: saying([], { code: DNS_CODE.SERVFAIL }), resolvers: [FIRST, SECOND] });
		expect((await ask(queryOf("a.test"))).code).toBe(DNS_CODE.SERVFAIL);
		expect(transport.exchanges).toHaveLength(2);
	});

	it("may be missing altogether: SERVFAIL at once", async () => {
		const { ask } = setUp({ resolvers: [] });
		expect((await ask(queryOf("a.test"))).code).toBe(DNS_CODE.SERVFAIL);
	});

	it("are asked over TCP when the answer is cut, and without EDNS when they don't know it", async () => {
		const cut: Say = (query, { via }) =>
			responseTo(query, via === "tcp" ? [addressRecord("a.test", "1.1.1.1")] : [], { isTruncated: via === "udp" });
		const first = setUp({ say: cut });
		expect((await first.ask(queryOf("a.test"))).answers).toHaveLength(1);
		expect(first.transport.asked).toEqual(["udp 192.0.2.53 a.test 1", "tcp 192.0.2.53 a.test 1"]);
		const old: Say = (query) =>
			query.edns === undefined
				? responseTo(query, [addressRecord("a.test", "1.1.1.1")])
				: responseTo(query, [], { code: DNS_CODE.FORMERR, questions: [], edns: undefined });
		expect((await setUp({ say: old }).ask(queryOf("a.test"))).answers).toHaveLength(1);
	});

	it.each<[string, Partial<DnsMessage>]>([
		["another ID", { id: 0 }],
		["another name", { questions: [{ name: "b.test", type: 1, class: 1 }] }],
		["another type", { questions: [{ name: "a.test", type: 16, class: 1 }] }],
		["no question", { questions: [] }],
		["a query's form", { isResponse: false }],
	])("are not believed under %s", async (_what, more) => {
		const forged: Say = (query) => {
			const response = responseTo(query, [addressRecord("a.test", "6.6.6.6")], more);
			return more.id === undefined ? response : { ...response, id: query.id ^ 1 };
		};
		const { ask, clock } = setUp({ say: forged });
		const answer = ask(queryOf("a.test"));
		for (let ms = 0; ms < 5000; ms += 500) {
			await settle();
			clock.advance(500);
		}
		expect((await answer).code).toBe(DNS_CODE.SERVFAIL);
	});

	it("are asked a bounded number of questions at a time: a new one ends the oldest", async () => {
		const { ask, clock, proxy } = setUp({});
		const answers = Array.from({ length: DNS_MAX_OUTSTANDING + 1 }, (_, index) => ask(queryOf(`n${index}.test`)));
		expect((await answers[0])?.code).toBe(DNS_CODE.SERVFAIL);
		const second = await Promise.race([answers[1], settle().then(() => "waiting")]);
		expect(second).toBe("waiting");
		for (const answer of answers) answer.catch(() => {});
		proxy.close();
		await settle();
		expect(await proxy.handle(serializeDnsMessage(queryOf("a.test")), "udp")).toBeUndefined();
		expect(clock.nowMs()).toBe(0);
	});
});

describe("under the policy, the resolver", () => {
	const closed = SPECIAL_RANGES.map(({ base, mask }) => formatIpv4Address((base | (~mask & 1)) >>> 0));

	it.each(closed)("takes %s out of an answer, says why in the log and never lets it be reached", async (text) => {
		const parts = setUp({ say: saying([addressRecord("a.test", text), addressRecord("a.test", "1.1.1.1")]) });
		expect((await parts.ask(queryOf("a.test"))).answers).toEqual([addressRecord("a.test", "1.1.1.1")]);
		expect(parts.decisions).toMatchObject([
			{ name: "a.test", address: undefined, verdict: { allowed: true } },
			{ name: "a.test", address: ipv4(text), verdict: { allowed: false, rule: expect.stringContaining("special") } },
		]);
		expect(parts.names.namesOf(ipv4(text))).toEqual([]);
		expect(tryEverything(parts, ipv4(text), 80)).toEqual([]);
	});

	it("gives an empty answer when nothing is left", async () => {
		const { ask } = setUp({ say: saying([aliasRecord("a.test", "b.test"), addressRecord("b.test", "127.0.0.1")]) });
		expect(await ask(queryOf("a.test"))).toMatchObject({ code: DNS_CODE.NOERROR, answers: [] });
	});

	it("holds against a name that first has a public address, then a private one", async () => {
		const turns = ["93.184.216.34", "127.0.0.1", "169.254.169.254", "10.0.2.2", "192.168.1.1"];
		const say: Say = (query) => responseTo(query, [addressRecord("rebind.test", turns.shift() ?? "", 0)]);
		const parts = setUp({ rules: { allow: ["rebind.test"] }, say });
		expect((await parts.ask(queryOf("rebind.test"))).answers).toHaveLength(1);
		for (let count = 0; count < 4; count++) expect((await parts.ask(queryOf("rebind.test"))).answers).toEqual([]);
		for (const text of ["127.0.0.1", "169.254.169.254", "10.0.2.2", "192.168.1.1"]) {
			expect(tryEverything(parts, ipv4(text), 80)).toEqual([]);
		}
		expect(tryEverything(parts, ipv4("93.184.216.34"), 80)).toHaveLength(3);
	});

	it("answers with a private address that a rule opens", async () => {
		const { ask } = setUp({
			rules: { allow: ["nas.lan", "192.168.1.5:445"] },
			say: saying([addressRecord("nas.lan", "192.168.1.5"), addressRecord("nas.lan", "192.168.1.6")]),
		});
		expect((await ask(queryOf("nas.lan"))).answers).toEqual([addressRecord("nas.lan", "192.168.1.5")]);
	});

	it("lets no name out that is not on the list, whatever the type: no tunnel by DNS", async () => {
		const { ask, transport, decisions } = setUp({
			rules: { allow: ["example.org", "*.example.net:443"] },
			say: saying([]),
		});
		const types = [...Object.values(DNS_TYPE), 10, 249, 255, 65_399];
		for (const name of ["secret.tunnel.test", "x.example.org", "example.net", "a\\046example.net", "."]) {
			for (const type of types) expect((await ask(queryOf(name, type))).code).toBe(DNS_CODE.REFUSED);
		}
		expect(transport.exchanges).toEqual([]);
		expect(decisions.every(({ verdict }) => !verdict.allowed)).toBe(true);
		expect(decisions).toHaveLength(5 * types.length);
		await ask(queryOf("EXAMPLE.org"));
		await ask(queryOf("a.b.example.net", DNS_TYPE.TXT));
		expect(transport.asked).toEqual(["udp 192.0.2.53 EXAMPLE.org 1", "udp 192.0.2.53 a.b.example.net 16"]);
	});

	it("refuses a denied name, and an answer that leads through one", async () => {
		const { ask, decisions, transport } = setUp({
			rules: { deny: ["*.ads.test"] },
			say: saying([aliasRecord("a.test", "x.ads.test"), addressRecord("x.ads.test", "1.1.1.1")]),
		});
		expect((await ask(queryOf("x.ads.test"))).code).toBe(DNS_CODE.REFUSED);
		expect(transport.exchanges).toEqual([]);
		expect((await ask(queryOf("a.test"))).code).toBe(DNS_CODE.REFUSED);
		expect(decisions.map(({ name, verdict }) => [name, verdict.rule])).toEqual([
			["x.ads.test", "deny *.ads.test"],
			["a.test", "deny *.ads.test"],
		]);
	});

	it("knows an alias by the name that was asked for: the address is open, the alias itself is not", async () => {
		const parts = setUp({
			rules: { allow: ["www.test"] },
			say: saying([aliasRecord("www.test", "cdn.other.test"), addressRecord("cdn.other.test", "1.1.1.1")]),
		});
		expect((await parts.ask(queryOf("www.test"))).answers).toHaveLength(2);
		expect((await parts.ask(queryOf("cdn.other.test"))).code).toBe(DNS_CODE.REFUSED);
		expect(tryEverything(parts, ipv4("1.1.1.1"), 443)).toContain("tcp 1.1.1.1:443");
	});
});

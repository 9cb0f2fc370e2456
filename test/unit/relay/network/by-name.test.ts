import { describe, expect, it } from "vitest";
import { DNS_ADDRESS } from "../../../../src/relay/addresses.js";
import { DnsProxy } from "../../../../src/relay/services/dns-proxy.js";
import { DNS_TYPE } from "../../../../src/relay/wire/dns.js";
import { serializeDnsMessage } from "../../../../src/relay/wire/dns-serializer.js";
import { addressRecord, parsed, queryOf, responseTo } from "../dns/support.js";
import { clientHello } from "../egress/client-hello.js";
import { address, createTestNetwork, type TestNetwork } from "./test-network.js";

const SHARED = "93.184.216.34";

/** A network with the relay's own DNS server, behind which every name has the one public address. */
function createNamedNetwork(allow: readonly string[]): TestNetwork & { readonly asked: string[] } {
	const asked: string[] = [];
	const test = createTestNetwork({ allow, answerDns: (query, via) => proxy.handle(query, via) });
	const { policy, names, clock, audit } = test;
	const proxy = new DnsProxy({
		policy,
		names,
		clock,
		resolvers: () => [{ address: "192.0.2.53", port: 53 }],
		transport: {
			async exchange({ query, accepts }) {
				const question = parsed(query);
				const name = question.questions[0]?.name ?? "";
				asked.push(name);
				const answer = serializeDnsMessage(responseTo(question, [addressRecord(name, SHARED)]));
				if (!accepts(answer)) throw new Error("the relay didn't take its answer");
				return answer;
			},
		},
		decided: ({ verdict, ...rest }) =>
			void audit.push({
				...rest,
				machine: "m1",
				protocol: "dns",
				port: undefined,
				verdict: verdict.allowed ? "allowed" : "refused",
				rule: verdict.rule,
			}),
	});
	return { ...test, asked };
}

async function lookUp(test: TestNetwork, name: string): Promise<number[]> {
	test.guest.udp.length = 0;
	test.guest.sendUdp(DNS_ADDRESS, 53, serializeDnsMessage(queryOf(name, DNS_TYPE.A)));
	await test.settle();
	const { answers } = parsed(test.guest.udp[0]?.payload);
	return answers.flatMap(({ data }) => (data.kind === "address" ? [data.address] : []));
}

describe("a public address that is allowed by a name", () => {
	it("is closed until the name is resolved, then open to TLS for that name", async () => {
		const test = createNamedNetwork(["good.example:443"]);
		const early = test.guest.connect(address(SHARED), 443);
		await test.settle();
		expect(early.closeReason).toBe("reset-by-guest");
		expect(test.host.tcp).toEqual([]);
		expect(await lookUp(test, "good.example")).toEqual([address(SHARED)]);
		const tcp = test.guest.connect(address(SHARED), 443);
		await test.settle();
		test.host.last.accept();
		await test.settle();
		const hello = await clientHello("good.example");
		tcp.connection.send(new Uint8Array(hello));
		await test.advance(100);
		expect(test.host.last.address).toBe(SHARED);
		expect(test.host.last.receivedBytes).toEqual(hello);
		tcp.connection.abort();
		await test.settle();
		expect(test.audit.at(-1)).toMatchObject({
			name: "good.example",
			verdict: "allowed",
			rule: "allow good.example:443",
		});
	});

	it("is reset for TLS with another name, which is logged and of which no byte goes out", async () => {
		const test = createNamedNetwork(["good.example"]);
		await lookUp(test, "good.example");
		const tcp = test.guest.connect(address(SHARED), 443);
		await test.settle();
		test.host.last.accept();
		await test.settle();
		tcp.connection.send(new Uint8Array(await clientHello("evil.example")));
		await test.advance(100);
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(test.host.last.received).toEqual([]);
		expect(test.host.last.wasReset).toBe(true);
		expect(test.audit.at(-1)).toMatchObject({
			protocol: "tcp",
			name: "evil.example",
			address: address(SHARED),
			verdict: "refused",
			rule: "not allowed",
			bytesIn: 0,
		});
	});

	it("is not found by a name that is not allowed, and nobody is asked for it", async () => {
		const test = createNamedNetwork(["good.example"]);
		expect(await lookUp(test, "evil.example")).toEqual([]);
		expect(test.asked).toEqual([]);
		expect(test.audit).toMatchObject([{ protocol: "dns", name: "evil.example", verdict: "refused" }]);
	});

	it("on a port that the rule doesn't name is never connected", async () => {
		const test = createNamedNetwork(["good.example:443"]);
		await lookUp(test, "good.example");
		const tcp = test.guest.connect(address(SHARED), 80);
		await test.settle();
		expect(tcp.closeReason).toBe("reset-by-guest");
		expect(test.host.tcp).toEqual([]);
	});
});

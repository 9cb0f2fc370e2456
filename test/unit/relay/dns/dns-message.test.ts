import { describe, expect, it } from "vitest";
import { DNS_TYPE, type DnsRecord } from "../../../../src/relay/wire/dns.js";
import { dnsNameLabels, readDnsName } from "../../../../src/relay/wire/dns-name.js";
import { parseDnsMessage } from "../../../../src/relay/wire/dns-parser.js";
import { serializeDnsMessage } from "../../../../src/relay/wire/dns-serializer.js";
import { addressRecord, aliasRecord, bytesRecord, parsed, queryOf, responseTo } from "./support.js";

const hex = (text: string): Uint8Array => Buffer.from(text.replaceAll(/\s/g, ""), "hex");

describe("a DNS message", () => {
	it("reads as RFC 1035 4.1 writes it", () => {
		// www.example.org A, with an answer that points back at the question's name
		const bytes = hex(`abcd 8580 0001 0001 0000 0001
			03777777 076578616d706c65 036f7267 00 0001 0001
			c00c 0001 0001 0000003c 0004 5db8d822
			00 0029 04d0 01 00 8000 0000`);
		const message = parsed(bytes);
		expect(message).toMatchObject({ id: 0xabcd, isResponse: true, isAuthoritative: true, recursionAvailable: true });
		expect(message.questions).toEqual([{ name: "www.example.org", type: 1, class: 1 }]);
		expect(message.answers).toEqual([addressRecord("www.example.org", "93.184.216.34")]);
		expect(message.edns).toEqual({ udpBytes: 1232, version: 0 });
		expect(message.code).toBe(16);
	});

	it("is written with names compressed, the letters' case kept", () => {
		const query = queryOf("wWw.eXample.org");
		const message = responseTo(query, [
			aliasRecord("wWw.eXample.org", "cdn.eXample.org"),
			addressRecord("cdn.eXample.org", "1.1.1.1"),
		]);
		const bytes = serializeDnsMessage(message);
		expect(parsed(bytes)).toEqual(message);
		expect(bytes.length).toBe(12 + 17 + 4 + (2 + 10 + 6) + (2 + 10 + 4));
	});

	it("that does not fit ends between two records and says so; OPT stays", () => {
		const query = queryOf("a.test", DNS_TYPE.TXT, { edns: { udpBytes: 600, version: 0 } });
		const text = bytesRecord("a.test", DNS_TYPE.TXT, Buffer.alloc(200, "x"));
		const bytes = serializeDnsMessage(responseTo(query, [text, text, text]), 600);
		expect(bytes.length).toBeLessThanOrEqual(600);
		const message = parsed(bytes);
		expect(message.isTruncated).toBe(true);
		expect(message.answers).toHaveLength(2);
		expect(message.edns).toBeDefined();
	});

	it("of more than 64 KiB once its names are spelled out is cut, too", () => {
		const name = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(59)}`;
		const data = { kind: "srv", priority: 0, weight: 0, port: 1, target: name } as const;
		const record: DnsRecord = { name, type: DNS_TYPE.SRV, class: 1, timeToLive: 0, data };
		const message = parsed(serializeDnsMessage(responseTo(queryOf(name), Array(3000).fill(record))));
		expect(message.isTruncated).toBe(true);
		expect(message.answers.length).toBeGreaterThan(200);
	});

	it.each([
		["a pointer to itself", "0000 0000 0001 0000 0000 0000 c00c 0001 0001"],
		["a pointer forwards", "0000 0000 0001 0000 0000 0000 c010 0001 0001 0000"],
		["two pointers in a circle", "0000 0000 0001 0000 0000 0000 0161 c00c 0001 0001"],
		["a label of an unknown kind", "0000 0000 0001 0000 0000 0000 4161 00 0001 0001"],
		["a name without an end", "0000 0000 0001 0000 0000 0000 0161"],
		["a question without a class", "0000 0000 0001 0000 0000 0000 0161 00 0001 00"],
		["an address of three bytes", "0000 8000 0000 0001 0000 0000 00 0001 0001 00000000 0003 010203"],
		["data behind the message's end", "0000 8000 0000 0001 0000 0000 00 0010 0001 00000000 0004 01"],
		["a name that leaves its record", "0000 8000 0000 0001 0000 0000 00 0005 0001 00000000 0001 0161 00"],
		["a name that does not fill its record", "0000 8000 0000 0001 0000 0000 00 0005 0001 00000000 0003 00 0000"],
		["fewer records than it says", "0000 8000 0000 0002 0000 0000 00 0010 0001 00000000 0000"],
		["two OPT records", "0000 0000 0000 0000 0000 0002 00 0029 04d0 00000000 0000 00 0029 04d0 00000000 0000"],
		["eleven bytes", "0000 0000 0000 0000 0000 00"],
	])("with %s is malformed", (_what, text) => {
		expect(parseDnsMessage(hex(text)).ok).toBe(false);
	});

	it("with thousands of pointers in a chain is malformed, and quickly so", () => {
		const bytes = new Uint8Array(65_535);
		const view = new DataView(bytes.buffer);
		view.setUint16(4, 1);
		for (let at = 14; at < 16_382; at += 2) view.setUint16(at, 0xc000 | (at - 2));
		expect(readDnsName(bytes, 16_380)).toBeUndefined();
	});
});

describe("a domain name", () => {
	it("has at most 255 bytes", () => {
		const longest = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(61)}`;
		expect(dnsNameLabels(longest)).toHaveLength(4);
		expect(dnsNameLabels(`${longest}d`)).toBeUndefined();
		expect(parsed(serializeDnsMessage(queryOf(longest))).questions[0]?.name).toBe(longest);
	});

	it("shows a dot inside a label as such", () => {
		const bytes = hex("05 612e622e63 04 74657374 00");
		expect(readDnsName(bytes, 0)?.name).toBe("a\\046b\\046c.test");
		expect(dnsNameLabels("a\\046b\\046c.test")?.map((label) => Buffer.from(label).toString())).toEqual([
			"a.b.c",
			"test",
		]);
	});
});

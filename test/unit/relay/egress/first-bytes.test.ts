import { beforeAll, describe, expect, it } from "vitest";
import { readFirstBytes } from "../../../../src/relay/egress/first-bytes.js";
import { NameCheck } from "../../../../src/relay/egress/name-check.js";
import { FIRST_BYTES_MAX } from "../../../../src/relay/limits.js";
import { clientHello } from "./client-hello.js";
import { createGate, ipv4 } from "./support.js";

const text = (value: string): Uint8Array => Buffer.from(value, "latin1");
const request = (value: string) => readFirstBytes(text(value.replaceAll("\n", "\r\n")));
const NEED_MORE = { kind: "need-more" };
const OTHER = { kind: "other" };

/** The handshake of one record in records of `size` bytes. */
function splitRecords(hello: Uint8Array, size: number): Buffer {
	const pieces: Buffer[] = [];
	for (let at = 5; at < hello.length; at += size) {
		const piece = Buffer.from(hello.subarray(at, at + size));
		pieces.push(Buffer.from([22, 3, 1, piece.length >> 8, piece.length & 0xff]), piece);
	}
	return Buffer.concat(pieces);
}

describe("the first bytes of TLS", () => {
	let hello: Buffer;
	let nameless: Buffer;
	beforeAll(async () => {
		hello = await clientHello("WWW.Example.org");
		nameless = await clientHello(undefined);
	});

	it("tell the name that a real client sends, once they are whole", () => {
		expect(readFirstBytes(hello)).toEqual({ kind: "name", name: "www.example.org" });
		for (let end = 0; end < hello.length; end++) expect(readFirstBytes(hello.subarray(0, end))).toEqual(NEED_MORE);
	});

	it("tell it over however many records the hello is spread, and with more data behind it", () => {
		for (const size of [1, 7, 100]) {
			expect(readFirstBytes(splitRecords(hello, size))).toEqual({ kind: "name", name: "www.example.org" });
		}
		const more = Buffer.concat([hello, Buffer.from([20, 3, 3, 0, 1, 1])]);
		expect(readFirstBytes(more)).toEqual({ kind: "name", name: "www.example.org" });
	});

	it("name nobody if the client does not", () => {
		expect(readFirstBytes(nameless)).toEqual(OTHER);
	});

	it("are unreadable when damaged, never a throw and never another name", () => {
		const name = hello.indexOf("WWW.Example.org");
		for (let at = 5; at < hello.length; at++) {
			const damaged = Buffer.from(hello);
			damaged[at] = (damaged[at] ?? 0) ^ 0xff;
			const isName = at >= name && at < name + 15;
			const found = readFirstBytes(damaged);
			if (found.kind === "name" && !isName) expect(found.name).toBe("www.example.org");
		}
		const nul = Buffer.from(hello);
		nul[name + 3] = 0;
		expect(readFirstBytes(nul)).toMatchObject({ kind: "unreadable" });
	});

	it("are unreadable when the hello does not end within the bound", () => {
		const endless = Buffer.alloc(FIRST_BYTES_MAX);
		endless.set([22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]);
		expect(readFirstBytes(endless.subarray(0, -1))).toEqual(NEED_MORE);
		expect(readFirstBytes(endless)).toMatchObject({ kind: "unreadable" });
		expect(readFirstBytes(Buffer.from([22, 3, 1, 0, 0]))).toMatchObject({ kind: "unreadable" });
	});
});

describe("the first bytes of HTTP", () => {
	it.each([
		["GET / HTTP/1.1\nHost: Example.org\n\n", "example.org"],
		["GET / HTTP/1.1\nAccept: */*\nhOsT:example.org:8080\n\n", "example.org"],
		["POST /x HTTP/1.1\nHost : example.org \n\nbody", "example.org"],
		["M-SEARCH * HTTP/1.1\nHost: example.org.\n\n", "example.org"],
		["\n\nGET / HTTP/1.1\nHost: example.org\n\n", "example.org"],
		["GET http://user:pw@Example.org:81/x HTTP/1.1\nHost: example.org:81\n\n", "example.org"],
		["GET http://example.org HTTP/1.0\n\n", "example.org"],
		["CONNECT example.org:443 HTTP/1.1\nHost: example.org:443\n\n", "example.org"],
		["GET / HTTP/1.1\nHost: [2001:db8::1]:80\n\n", "[2001:db8::1]"],
		["GET / HTTP/1.1\nHost: 192.0.2.1\n\n", "192.0.2.1"],
	])("%j tell the name", (value, name) => {
		expect(request(value)).toEqual({ kind: "name", name });
		const bytes = text(value.replaceAll("\n", "\r\n"));
		const end = Buffer.from(bytes).lastIndexOf("\r\n\r\n") + 4;
		for (let cut = 0; cut < end; cut++) expect(readFirstBytes(bytes.subarray(0, cut))).toEqual(NEED_MORE);
	});

	it("may end their lines with LF alone", () => {
		expect(readFirstBytes(text("GET / HTTP/1.1\nHost: example.org\n\n"))).toEqual({
			kind: "name",
			name: "example.org",
		});
	});

	it.each([
		["GET / HTTP/1.1\nHost: a.test\nHost: b.test\n\n"],
		["GET http://a.test/ HTTP/1.1\nHost: b.test\n\n"],
		["CONNECT b.test:443 HTTP/1.1\nHost: a.test\n\n"],
		["GET / HTTP/1.1\nX: y\n Host: b.test\n\n"],
		["GET / HTTP/1.1\nX: y\rHost: b.test\n\n"],
		["GET / HTTP/1.1\nHost: evil.test/.example.org\n\n"],
		["GET / HTTP/1.1\nHost: evil.test\u0000.example.org\n\n"],
		["GET / HTTP/1.1\nHost: user@example.org\n\n"],
		["PRI * HTTP/2.0\n\nSM\n\n"],
	])("%j are unreadable", (value) => {
		expect(request(value)).toMatchObject({ kind: "unreadable" });
	});

	it("are unreadable when the header does not end within the bound", () => {
		const start = "GET / HTTP/1.1\r\nX: ";
		expect(readFirstBytes(text(start.padEnd(FIRST_BYTES_MAX - 1, "y")))).toEqual(NEED_MORE);
		expect(readFirstBytes(text(start.padEnd(FIRST_BYTES_MAX, "y")))).toMatchObject({ kind: "unreadable" });
	});

	it("without a Host name nobody", () => {
		expect(request("GET / HTTP/1.0\nAccept: */*\n\n")).toEqual(OTHER);
		expect(request("GET / HTTP/1.1\nHost:\n\n")).toEqual(OTHER);
	});
});

describe("the first bytes of other protocols", () => {
	it.each([
		["SSH-2.0-OpenSSH_9.6\r\n"],
		["EHLO client.test\r\n"],
		["GET key\r\n"],
		["QUIT\r\n"],
		["*1\r\n$4\r\nPING\r\n"],
		["\u0000\u0000\u0000\u0008\u0004\u00d2\u0016\u002f"],
		["\u0080\u002e\u0001\u0003\u0001"],
		["\u0016\u0002"],
		["A word that is much longer than any method of HTTP ever was"],
	])("%j are let through at once", (value) => {
		const found = readFirstBytes(text(value));
		if (value.startsWith("A word")) expect(found).toEqual(NEED_MORE);
		else expect(found).toEqual(OTHER);
	});
});

describe("the check of a flow's name", () => {
	const address = ipv4("93.184.216.34");
	const check = new NameCheck(
		(() => {
			const { policy, names } = createGate({ allow: ["*.example.org"] });
			names.record("www.example.org", address, 60);
			return policy;
		})(),
		{ protocol: "tcp", address, port: 80 },
	);

	it("lets an allowed name pass, and protocols that name nobody", () => {
		const asked = text("GET / HTTP/1.1\r\nHost: api.example.org\r\n\r\n");
		expect(check.inspect(asked)).toEqual({ kind: "pass", name: "api.example.org" });
		expect(check.inspect(asked.subarray(0, 20))).toEqual(NEED_MORE);
		expect(check.inspect(text("SSH-2.0-x\r\n"))).toEqual({ kind: "pass", name: undefined });
	});

	it("refuses another name, and one that can't be read", () => {
		const refused = check.inspect(text("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"));
		expect(refused).toMatchObject({ kind: "refused", verdict: { rule: "not allowed", name: "evil.test" } });
		const unreadable = check.inspect(text("PRI * HTTP/2.0\r\n\r\n"));
		expect(unreadable).toMatchObject({ kind: "refused", verdict: { rule: "unreadable name" } });
	});
});

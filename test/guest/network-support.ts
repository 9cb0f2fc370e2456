/** What the network tests let the guest talk to: small real servers on the host's loopback. */

import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer as createHttpServer, type Server as HttpServer } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { networkInterfaces } from "node:os";
import { DNS_CLASS_IN, DNS_CODE, DNS_TYPE, type DnsMessage, type DnsRecord } from "../../src/relay/wire/dns.js";
import { parseDnsMessage } from "../../src/relay/wire/dns-parser.js";
import { serializeDnsMessage } from "../../src/relay/wire/dns-serializer.js";

export const GATEWAY = "10.0.2.2";
export const NAME_SERVER = "10.0.2.3";
export const MIB = 1_048_576;

/** Something on the host that listens, until the test is over. */
export interface HostService {
	readonly port: number;
	close(): void;
}

export function sha256(bytes: Uint8Array): string {
	return createHash("sha256").update(bytes).digest("hex");
}

/** `size` bytes that hold no pattern which a lost or doubled segment could leave as it is. */
export function noise(size: number): Buffer {
	const bytes = Buffer.alloc(size);
	let state = 86;
	for (let at = 0; at + 4 <= size; at += 4) {
		state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
		bytes.writeUInt32LE(state, at);
	}
	return bytes;
}

/** Ports of 127.0.0.1 that are free now. */
export async function freePorts(count: number): Promise<number[]> {
	const held = await Promise.all(Array.from({ length: count }, () => listen(createServer())));
	for (const { close } of held) close();
	return held.map(({ port }) => port);
}

/** Listens on a free port. */
export async function listen(server: Server | HttpServer, host = "127.0.0.1"): Promise<HostService> {
	server.listen(0, host);
	await once(server, "listening");
	return { port: (server.address() as AddressInfo).port, close: () => void server.close() };
}

/** An address by which other computers know this one, if there are any. */
export function lanAddress(): string | undefined {
	return Object.values(networkInterfaces())
		.flatMap((addresses) => addresses ?? [])
		.find(({ family, internal }) => family === "IPv4" && !internal)?.address;
}

export interface CountingServer extends HostService {
	readonly connections: number;
}

/** Tells how many came, on every address of the host. */
export async function startCountingServer(): Promise<CountingServer> {
	let connections = 0;
	const service = await listen(
		createServer((socket) => {
			connections += 1;
			socket.on("error", () => {});
			socket.end("HTTP/1.0 200 OK\r\n\r\nsecret\n");
		}),
		"0.0.0.0",
	);
	return {
		...service,
		get connections() {
			return connections;
		},
	};
}

/** GET /hello: a greeting. GET /N: N bytes of noise. PUT and POST: the SHA-256 of what was sent. */
export async function startWebServer(): Promise<HostService> {
	return await listen(
		createHttpServer((request, response) => {
			if (request.method === "PUT" || request.method === "POST") {
				const hash = createHash("sha256");
				request.on("data", (bytes) => hash.update(bytes));
				request.on("end", () => response.end(`${hash.digest("hex")}\n`));
				return;
			}
			response.end(request.url === "/hello" ? "hello from the host\n" : noise(Number(request.url?.slice(1))));
		}),
	);
}

/** Sends every datagram back. */
export async function startUdpEcho(): Promise<HostService> {
	const socket = createSocket("udp4");
	socket.on("message", (bytes, from) => socket.send(bytes, from.port, from.address));
	socket.bind(0, "127.0.0.1");
	await once(socket, "listening");
	return { port: socket.address().port, close: () => void socket.close() };
}

/**
 * TFTP (RFC 1350) from one port: the file that is asked for holds its own name, `blocks` times 512 bytes of it.
 * Busybox has no other UDP program whose bytes a test can choose.
 */
export async function startTftpServer(blocks: number): Promise<HostService> {
	const [readRequest, data, acknowledgment, blockBytes] = [1, 3, 4, 512];
	const socket = createSocket("udp4");
	let name = "";
	socket.on("message", (bytes, from) => {
		const operation = bytes.readUInt16BE(0);
		if (operation === readRequest) name = bytes.toString("latin1", 2, bytes.indexOf(0, 2));
		const block = operation === acknowledgment ? bytes.readUInt16BE(2) + 1 : 1;
		if (block > blocks + 1) return;
		const content = block > blocks ? Buffer.alloc(0) : Buffer.alloc(blockBytes, name);
		socket.send(Buffer.concat([Buffer.from([0, data, block >> 8, block & 255]), content]), from.port, from.address);
	});
	socket.bind(0, "127.0.0.1");
	await once(socket, "listening");
	return { port: socket.address().port, close: () => void socket.close() };
}

export interface NameServer extends HostService {
	/** "udp public.test A" for each question, in order. */
	readonly asked: readonly string[];
}

/** Addresses of names, as 32 bits. A name without any does not exist. */
export type Names = Readonly<Record<string, readonly number[]>>;

/** The text that every name has; too long for a datagram. */
export const LONG_TEXT_BYTES = 2000;

/** A DNS server, UDP and TCP on one port. */
export async function startNameServer(names: Names): Promise<NameServer> {
	const asked: string[] = [];
	const answer = (query: Uint8Array, via: "udp" | "tcp"): Uint8Array => {
		const parsed = parseDnsMessage(query);
		if (!parsed.ok) throw new Error(parsed.reason);
		const [question] = parsed.value.questions;
		if (question === undefined) throw new Error("a query without a question");
		asked.push(`${via} ${question.name} ${typeName(question.type)}`);
		return serializeDnsMessage(answerOf(parsed.value, names), via === "tcp" ? 65_535 : 512);
	};

	const tcp = createServer((socket) => {
		let received = Buffer.alloc(0);
		socket.on("error", () => {});
		socket.on("data", (bytes) => {
			received = Buffer.concat([received, bytes]);
			while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
				const end = 2 + received.readUInt16BE(0);
				const message = answer(received.subarray(2, end), "tcp");
				socket.write(Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message]));
				received = received.subarray(end);
			}
		});
	});
	const { port, close } = await listen(tcp);
	const udp = createSocket("udp4");
	udp.on("message", (bytes, from) => udp.send(answer(bytes, "udp"), from.port, from.address));
	udp.bind(port, "127.0.0.1");
	await once(udp, "listening");
	return {
		port,
		asked,
		close() {
			close();
			udp.close();
		},
	};
}

function answerOf(query: DnsMessage, names: Names): DnsMessage {
	const [question] = query.questions;
	const addresses = names[question?.name ?? ""];
	const response = { ...query, isResponse: true, recursionAvailable: true };
	if (question === undefined || addresses === undefined) return { ...response, code: DNS_CODE.NXDOMAIN };
	const record = (data: DnsRecord["data"]): DnsRecord => ({
		name: question.name,
		type: question.type,
		class: DNS_CLASS_IN,
		timeToLive: 60,
		data,
	});
	if (question.type === DNS_TYPE.A) {
		return { ...response, answers: addresses.map((address) => record({ kind: "address", address })) };
	}
	if (question.type !== DNS_TYPE.TXT) return response;
	const strings = Array.from({ length: LONG_TEXT_BYTES / 200 }, (_, at) =>
		Buffer.concat([Buffer.from([200]), Buffer.alloc(200, 97 + at)]),
	);
	return { ...response, answers: [record({ kind: "bytes", bytes: Buffer.concat(strings) })] };
}

function typeName(type: number): string {
	return Object.entries(DNS_TYPE).find(([, value]) => value === type)?.[0] ?? String(type);
}

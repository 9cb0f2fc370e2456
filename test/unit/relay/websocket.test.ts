import { once } from "node:events";
import { createConnection } from "node:net";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { createLog, silentLog } from "../../../src/log.js";
import { AccessTokens } from "../../../src/relay/access.js";
import {
	LINK_HIGH_WATER_BYTES,
	LINK_LOW_WATER_BYTES,
	LINK_MAX_BUFFERED_BYTES,
	MAX_FRAME_BYTES,
} from "../../../src/relay/limits.js";
import type { FrameLink } from "../../../src/relay/link.js";
import { DEFAULT_LISTEN_ADDRESS } from "../../../src/relay/listen-address.js";
import {
	type FrameSink,
	type LinkServer,
	type LinkServerOptions,
	listenForMachines,
} from "../../../src/relay/websocket.js";
import { unmask } from "../../../src/relay/websocket-lane.js";
import { rawConnection, TestClient } from "./websocket-client.js";

/** The relay's side of one connection, recorded. */
class Recorder implements FrameSink {
	readonly machine: string | undefined;
	readonly link: FrameLink;
	readonly frames: Buffer[] = [];
	/** How many frames had come at each end of a batch. */
	readonly batches: number[] = [];
	drains = 0;
	ends = 0;
	/** Answers each frame with itself. */
	echoes = false;
	#changed: (() => void) | undefined;

	constructor(link: FrameLink, machine: string | undefined) {
		this.link = link;
		this.machine = machine;
	}

	receive(frame: Uint8Array): void {
		this.frames.push(Buffer.from(frame));
		if (this.echoes) this.link.send(Buffer.from(frame));
	}

	endBatch(): void {
		this.batches.push(this.frames.length);
		this.#changed?.();
	}

	drained(): void {
		this.drains += 1;
		this.#changed?.();
	}

	closed(): void {
		this.ends += 1;
		this.#changed?.();
	}

	async until(condition: () => boolean): Promise<void> {
		while (!condition()) {
			await new Promise<void>((resolve) => {
				this.#changed = resolve;
			});
		}
	}
}

const servers: LinkServer[] = [];

afterEach(async () => {
	await Promise.all(servers.splice(0).map((server) => server.close()));
});

async function serve(options: Partial<LinkServerOptions> = {}) {
	const access = new AccessTokens();
	const machines: Recorder[] = [];
	const server = await listenForMachines({
		listen: DEFAULT_LISTEN_ADDRESS,
		access,
		origins: [],
		maxMachines: 4,
		log: silentLog,
		connect: (link, machine) => {
			const recorder = new Recorder(link, machine);
			machines.push(recorder);
			return recorder;
		},
		...options,
	});
	servers.push(server);
	const url = (machine?: string) => server.origin + access.path(machine);
	/** A client and the relay's side of it. */
	const join = async (machine?: string) => {
		const client = await TestClient.connect(url(machine));
		const recorder = machines.at(-1);
		if (recorder === undefined) throw new Error("the relay saw nobody connect");
		return { client, recorder };
	};
	return { server, machines, url, join };
}

const bytes = (length: number, first = 0) => Buffer.from(Uint8Array.from({ length }, (_, at) => first + at * 7));

/** A client's message as bytes on the wire. */
function message(payload: Uint8Array, { first = 0x82, mask = [0, 0, 0, 0] } = {}): Buffer {
	const length =
		payload.length < 126
			? [0x80 | payload.length]
			: payload.length < 65_536
				? [0xfe, payload.length >> 8, payload.length & 255]
				: [0xff, 0, 0, 0, 0, 0, payload.length >> 16, (payload.length >> 8) & 255, payload.length & 255];
	const masked = Buffer.from(payload.map((byte, at) => byte ^ (mask[at & 3] ?? 0)));
	return Buffer.concat([Buffer.from([first, ...length, ...mask]), masked]);
}

const SIZES = [0, 1, 60, 125, 126, 127, 1514, 8191, 8192, 65_535, 65_536, MAX_FRAME_BYTES];

describe("frames", () => {
	test("arrive whole and in order, both ways, whatever their size", async () => {
		const { join } = await serve();
		const { client, recorder } = await join();
		recorder.echoes = true;
		for (const size of SIZES) client.send(bytes(size, size));
		const echoed = await client.take(SIZES.length);
		expect(echoed.map((frame) => frame.length)).toEqual(SIZES);
		for (const [at, size] of SIZES.entries()) {
			expect(recorder.frames[at]?.equals(bytes(size, size))).toBe(true);
			expect(echoed[at]?.equals(bytes(size, size))).toBe(true);
		}
	});

	test("split at every byte boundary arrive whole", async () => {
		const { url, machines } = await serve();
		const payloads = [bytes(3), bytes(200, 9), bytes(0), bytes(126, 5)];
		const stream = Buffer.concat(payloads.map((payload) => message(payload, { mask: [1, 2, 3, 4] })));
		const socket = await rawConnection(url());
		socket.setNoDelay(true);
		for (let cut = 1; cut < stream.length; cut++) {
			socket.write(stream.subarray(0, cut));
			// Two reads of the server are what is tested: the second part leaves when the first has been taken in.
			await new Promise(setImmediate);
			socket.write(stream.subarray(cut));
			await machines[0]?.until(() => machines[0]?.frames.length === 4 * cut);
		}
		for (const [at, frame] of (machines[0]?.frames ?? []).entries()) {
			expect(frame.equals(payloads[at % 4] ?? bytes(1))).toBe(true);
		}
		socket.destroy();
	});

	test("of one read are one batch, frames of one turn one write", async () => {
		const { url, machines } = await serve();
		const socket = await rawConnection(url());
		const [machine] = machines;
		socket.write(Buffer.concat(Array.from({ length: 20 }, () => message(bytes(60)))));
		await machine?.until(() => machine.frames.length === 20);
		expect(machine?.batches).toEqual([20]);
		for (let frame = 0; frame < 20; frame++) machine?.link.send(bytes(60));
		const [read] = (await once(socket, "data")) as [Buffer];
		expect(read.length).toBe(20 * 62);
		socket.destroy();
	});

	test("in fragments are put together, with a ping answered in between", async () => {
		const { url, machines } = await serve();
		const socket = await rawConnection(url());
		socket.write(message(bytes(10), { first: 0x02 }));
		socket.write(message(Buffer.from("hello"), { first: 0x89 }));
		socket.write(message(bytes(10, 70), { first: 0x80 }));
		socket.write(message(bytes(5), { first: 0x82 }));
		const [pong] = (await once(socket, "data")) as [Buffer];
		expect(pong).toEqual(Buffer.from([0x8a, 5, ...Buffer.from("hello")]));
		await machines[0]?.until(() => machines[0]?.frames.length === 2);
		expect(machines[0]?.frames).toEqual([Buffer.concat([bytes(10), bytes(10, 70)]), bytes(5)]);
		socket.destroy();
	});

	test("unmask as byte by byte, at every alignment", () => {
		fc.assert(
			fc.property(fc.uint8Array({ maxLength: 80 }), fc.integer(), fc.nat(7), (payload, mask, offset) => {
				const memory = new Uint8Array(payload.length + offset);
				memory.set(payload, offset);
				unmask(memory.subarray(offset), mask);
				expect(memory.subarray(offset)).toEqual(payload.map((byte, at) => byte ^ (mask >>> ((at & 3) * 8))));
				expect(memory.subarray(0, offset)).toEqual(new Uint8Array(offset));
			}),
			{ seed: 86 },
		);
	});

	/** Bytes that headers are made of come more often than others. */
	const headerByte = fc.constantFrom(0x82, 0x02, 0x80, 0x81, 0x88, 0x89, 0x8a, 0xfe, 0xff, 0x7e, 0x7f, 0);
	const streams = fc.array(fc.array(fc.oneof(headerByte, fc.nat(255)), { minLength: 1, maxLength: 40 }), {
		maxLength: 6,
	});

	test("any stream of bytes does no more than end its connection", async () => {
		const { url, join } = await serve({ maxMachines: 200 });
		const other = await join();
		await fc.assert(
			fc.asyncProperty(streams, async (chunks) => {
				const socket = await rawConnection(url());
				for (const chunk of chunks) socket.write(Buffer.from(chunk));
				socket.end();
				socket.resume();
				await once(socket, "close");
			}),
			{ seed: 86, numRuns: 100 },
		);
		other.client.send(bytes(60));
		await other.recorder.until(() => other.recorder.frames.length === 1);
	});
});

describe("a client that breaks a rule is closed, and the others notice nothing:", () => {
	async function withOther(offend: (client: TestClient, recorder: Recorder) => void) {
		const { join } = await serve();
		const other = await join();
		const { client, recorder } = await join();
		offend(client, recorder);
		const ending = await client.ended;
		expect(recorder.ends).toBe(1);
		other.recorder.echoes = true;
		other.client.send(bytes(60));
		expect(await other.client.take(1)).toEqual([bytes(60)]);
		expect(other.recorder.ends).toBe(0);
		return ending;
	}

	test("text", async () => {
		expect(await withOther((client) => client.webSocket.send("{}"))).toEqual({
			code: 1003,
			reason: "frames are binary messages",
		});
	});

	test("a message larger than a frame", async () => {
		expect((await withOther((client) => client.send(bytes(MAX_FRAME_BYTES + 1)))).code).toBe(1009);
	});

	test("fragments that are too much together", async () => {
		const ending = await withOther((client) => {
			client.webSocket.send(bytes(60_000), { fin: false });
			client.webSocket.send(bytes(60_000), { fin: true });
		});
		expect(ending.code).toBe(1009);
	});

	test("a frame that is not masked", async () => {
		const { url, machines, join } = await serve();
		const other = await join();
		const socket = await rawConnection(url());
		const read = once(socket, "data") as Promise<[Buffer]>;
		socket.write(Buffer.from([0x82, 1, 0]));
		expect((await read)[0]).toEqual(Buffer.from([0x88, 2, 0x03, 0xea]));
		expect(machines.at(-1)?.ends).toBe(1);
		expect(other.recorder.ends).toBe(0);
	});

	test("the network's own wish", async () => {
		expect(await withOther((_client, recorder) => recorder.link.close("the machine was removed"))).toEqual({
			code: 4001,
			reason: "the machine was removed",
		});
	});

	test("nothing that comes after the offence is delivered", async () => {
		const { join } = await serve();
		const { client, recorder } = await join();
		client.webSocket.send("text");
		client.send(bytes(60));
		await client.ended;
		expect(recorder.frames).toEqual([]);
	});
});

test("nothing is sent or delivered once the client closes", async () => {
	const { url, machines } = await serve();
	const socket = await rawConnection(url());
	const chunks: Buffer[] = [];
	socket.on("data", (chunk) => chunks.push(chunk));
	const [machine] = machines;
	machine?.link.send(bytes(3));
	const close = message(Buffer.from([0x03, 0xe8]), { first: 0x88 });
	socket.write(Buffer.concat([message(bytes(60)), close, message(bytes(60))]));
	await machine?.until(() => machine.ends === 1);
	machine?.link.send(bytes(3));
	await once(socket, "close");
	expect(machine?.frames).toHaveLength(1);
	expect(Buffer.concat(chunks)).toEqual(
		Buffer.concat([Buffer.from([0x82, 3]), bytes(3), Buffer.from([0x88, 2, 3, 0xe8])]),
	);
});

test("a reason of any length is shortened to what a close message holds", async () => {
	const { join } = await serve();
	const { client, recorder } = await join();
	recorder.link.close("\u20ac".repeat(200));
	expect(await client.ended).toEqual({ code: 4001, reason: "\u20ac".repeat(41) });
});

describe("a client that reads nothing", () => {
	test("makes its producers wait, and is cut off where they don't", async () => {
		const { join } = await serve();
		const { client, recorder } = await join();
		client.webSocket.pause();
		const frame = Buffer.alloc(65_000);
		let buffered = 0;
		// The kernel's buffers take some megabytes off.
		for (; recorder.link.send(frame); buffered += frame.length) await new Promise(setImmediate);
		expect(buffered).toBeGreaterThanOrEqual(LINK_HIGH_WATER_BYTES);
		for (let sent = 0; sent < LINK_MAX_BUFFERED_BYTES; sent += frame.length) recorder.link.send(frame);
		expect(recorder.ends).toBe(1);
		expect(recorder.link.send(frame)).toBe(true);
		client.webSocket.resume();
		expect(await client.ended).toEqual({ code: 1013, reason: "the client reads too little" });
	});

	test("is told of the drain once it reads again", async () => {
		const { join } = await serve();
		const { client, recorder } = await join();
		client.webSocket.pause();
		const frame = Buffer.alloc(65_000);
		let sent = 1;
		for (; recorder.link.send(frame); sent++) await new Promise(setImmediate);
		expect(recorder.drains).toBe(0);
		client.webSocket.resume();
		await recorder.until(() => recorder.drains > 0);
		expect(recorder.drains).toBe(1);
		expect((await client.take(sent)).length).toBe(sent);
		expect(LINK_LOW_WATER_BYTES).toBeLessThan(LINK_HIGH_WATER_BYTES);
	});
});

describe("who may come in:", () => {
	test("whoever has the token; a machine's name comes from its path", async () => {
		const { join, machines } = await serve();
		await join();
		await join("web-1");
		expect(machines.map(({ machine }) => machine)).toEqual([undefined, "web-1"]);
	});

	test.each([
		["/", "404"],
		["", "404"],
		["/a/b/c", "404"],
		[`/${"A".repeat(43)}`, "401"],
		[`/${"A".repeat(43)}/web-1`, "401"],
		[`/${"A".repeat(43)}/we%20b`, "404"],
	])("nobody by the path %j", async (path, status) => {
		const { server, machines } = await serve();
		await expect(TestClient.connect(server.origin + path)).rejects.toThrow(status);
		expect(machines).toEqual([]);
	});

	test("the token of one name opens no other", async () => {
		const { url } = await serve();
		await expect(TestClient.connect(url("web-1").replace("web-1", "web-2"))).rejects.toThrow("401");
		await expect(TestClient.connect(url("web-1").replace("/web-1", ""))).rejects.toThrow("401");
	});

	test("no web page, unless its origin is allowed", async () => {
		const { url } = await serve({ origins: ["https://good.example"] });
		await expect(TestClient.connect(url(), { origin: "https://evil.example" })).rejects.toThrow("403");
		await expect(TestClient.connect(url(), { origin: "null" })).rejects.toThrow("403");
		await TestClient.connect(url(), { origin: "https://good.example" });
		const open = await serve({ origins: ["*"] });
		await TestClient.connect(open.url(), { origin: "https://evil.example" });
	});

	test("not more than there may be; a place that gets free is given again", async () => {
		const { join, url, machines } = await serve({ maxMachines: 2 });
		const first = await join();
		await join();
		const third = await TestClient.connect(url());
		expect(await third.ended).toEqual({ code: 1013, reason: "there are 2 machines already" });
		expect(machines).toHaveLength(2);
		await first.client.close();
		await first.recorder.until(() => first.recorder.ends === 1);
		await join();
		expect(machines).toHaveLength(3);
	});

	test("a machine of the same name takes the older one's place", async () => {
		const { join } = await serve({ maxMachines: 1 });
		const older = await join("a");
		const newer = await join("a");
		expect(await older.client.ended).toEqual({ code: 4000, reason: "another connection took this machine's place" });
		expect(older.recorder.ends).toBe(1);
		newer.recorder.echoes = true;
		newer.client.send(bytes(60));
		expect(await newer.client.take(1)).toEqual([bytes(60)]);
	});

	test("a plain request is told what is needed", async () => {
		const { server } = await serve();
		const response = await fetch(server.origin.replace("ws:", "http:"));
		expect(response.status).toBe(426);
	});

	test("a connection that is idle before its handshake is no machine and holds nothing up", async () => {
		const { server, join } = await serve();
		const idle = createConnection(Number(new URL(server.origin).port), "127.0.0.1");
		idle.resume();
		const closed = once(idle, "close");
		await once(idle, "connect");
		await join();
		await server.close();
		await closed;
	});
});

describe("listening", () => {
	test("is on loopback alone by default; elsewhere it is warned of", async () => {
		const lines: string[] = [];
		const log = createLog("warn", (line) => lines.push(line));
		const { server } = await serve({ log });
		expect(server.origin).toMatch(/^ws:\/\/127\.0\.0\.1:\d+$/);
		expect(lines).toEqual([]);
		await serve({ log, listen: { host: "0.0.0.0", port: 0 } });
		expect(lines.join("")).toMatch(/the relay listens on 0\.0\.0\.0:0: whoever reaches it/);
	});

	test("on a port that is taken says so", async () => {
		const { server } = await serve();
		const port = Number(new URL(server.origin).port);
		await expect(serve({ listen: { host: "127.0.0.1", port } })).rejects.toMatchObject({
			code: "invalid-argument",
			message: `the relay can't listen on 127.0.0.1:${port}: EADDRINUSE`,
		});
	});

	test("ends with every machine told", async () => {
		const { server, join } = await serve();
		const { client, recorder } = await join();
		await server.close();
		expect(await client.ended).toEqual({ code: 1001, reason: "the relay ends" });
		expect(recorder.ends).toBe(1);
	});

	test("ends though a machine takes no part", async () => {
		const { server, url } = await serve();
		const socket = await rawConnection(url());
		const closed = once(socket, "close");
		await server.close();
		await closed;
	});
});

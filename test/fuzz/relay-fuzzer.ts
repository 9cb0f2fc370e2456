/** The whole relay under frames that are grown from real captures: it never throws, and what it holds stays in bounds. */

import { GATEWAY_ADDRESS } from "../../src/relay/addresses.js";
import { readFirstBytes } from "../../src/relay/egress/first-bytes.js";
import { MAX_TCP_FLOWS, MAX_UDP_MAPPINGS } from "../../src/relay/limits.js";
import { parseArpPacket } from "../../src/relay/wire/arp.js";
import { parseDhcpMessage } from "../../src/relay/wire/dhcp.js";
import { parseDnsMessage } from "../../src/relay/wire/dns-parser.js";
import { parseIcmpMessage } from "../../src/relay/wire/icmp.js";
import { parseIpv4Packet } from "../../src/relay/wire/ipv4.js";
import { parseTcpSegment } from "../../src/relay/wire/tcp.js";
import { parseUdpDatagram } from "../../src/relay/wire/udp.js";
import { FakeGuest } from "../unit/relay/network/fake-guest.js";
import { address, createTestNetwork, pattern, type TestNetwork } from "../unit/relay/network/test-network.js";
import { VirtualClock } from "../unit/relay/virtual-clock.js";
import { mutate, type Random, repair, seededRandom } from "./mutation.js";

/** A network lives for so many frames; then it must leave nothing behind. */
const FRAMES_PER_NETWORK = 20_000;
/** Sockets are given a turn of the event loop after so many. */
const FRAMES_PER_TURN = 32;
/** An Ethernet, an IPv4 and a TCP header. */
const [IPV4_OFFSET, TCP_OFFSET, TCP_HEADERS_BYTES] = [14, 34, 54];
const [PROTOCOL_TCP, SYN, FIN] = [6, 2, 1];

export interface FuzzReport {
	readonly frames: number;
	readonly networks: number;
	/** Connections that the relay made on the host. */
	readonly contacts: number;
	/** Bytes of TCP payload that arrived there. */
	readonly carriedBytes: number;
	readonly mostFlows: number;
	/** Of the heap, at the ends of networks, MiB: after the first ones, and the most since. */
	readonly heapMiB: readonly [number, number];
}

/** Throws at the first fault, with what is needed to see it again. `collect`: a full garbage collection, if there is one. */
export async function fuzzRelay(
	captured: readonly Uint8Array[],
	frames: number,
	seed: number,
	collect: () => void = () => {},
): Promise<FuzzReport> {
	const random = seededRandom(seed);
	const totals = { networks: 0, contacts: 0, carriedBytes: 0, mostFlows: 0 };
	let [firstMiB, mostMiB] = [0, 0];
	for (let done = 0; done < frames; done += FRAMES_PER_NETWORK) {
		const run = new NetworkRun(captured, random, totals.networks % 2 === 1);
		try {
			await run.feed(Math.min(FRAMES_PER_NETWORK, frames - done));
			await run.end();
		} catch (error) {
			throw new Error(`seed ${seed}, network ${totals.networks}, frame ${run.fed}: ${run.lastFrame}`, { cause: error });
		}
		totals.networks += 1;
		totals.contacts += run.contacts;
		totals.carriedBytes += run.carriedBytes;
		totals.mostFlows = Math.max(totals.mostFlows, run.mostFlows);
		if (totals.networks % 10 === 0) {
			collect();
			const nowMiB = process.memoryUsage().heapUsed / 2 ** 20;
			if (firstMiB === 0) firstMiB = nowMiB;
			mostMiB = Math.max(mostMiB, nowMiB);
		}
	}
	return { ...totals, frames, heapMiB: [firstMiB, mostMiB] };
}

/** Takes the relay's frames, and remembers where each of its connections stands. */
class AcknowledgingGuest extends FakeGuest {
	/** By the guest's port and the other side's: the next sequence number of the relay. */
	readonly nextSequences = new Map<string, number>();

	override send(frame: Uint8Array): boolean {
		if (frame[IPV4_OFFSET + 9] === PROTOCOL_TCP && frame.length >= TCP_HEADERS_BYTES) {
			const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
			const headerBytes = (view.getUint8(TCP_OFFSET + 12) >>> 4) * 4;
			const flags = view.getUint8(TCP_OFFSET + 13);
			const length = frame.length - TCP_OFFSET - headerBytes + ((flags & (SYN | FIN)) === 0 ? 0 : 1);
			const key = `${view.getUint16(TCP_OFFSET + 2)} ${view.getUint16(TCP_OFFSET)}`;
			if (this.nextSequences.size > 4 * MAX_TCP_FLOWS) this.nextSequences.clear();
			this.nextSequences.set(key, (view.getUint32(TCP_OFFSET + 4) + length) >>> 0);
		}
		return true;
	}

	/** Acknowledges what the relay has said, as the captured guest did with the relay of its time. */
	acknowledge(frame: Uint8Array): void {
		if (frame[IPV4_OFFSET + 9] !== PROTOCOL_TCP || frame.length < TCP_HEADERS_BYTES) return;
		const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
		const next = this.nextSequences.get(`${view.getUint16(TCP_OFFSET)} ${view.getUint16(TCP_OFFSET + 2)}`);
		if (next !== undefined) view.setUint32(TCP_OFFSET + 8, next);
	}
}

class NetworkRun {
	fed = 0;
	contacts = 0;
	carriedBytes = 0;
	mostFlows = 0;
	#last: Uint8Array = new Uint8Array(0);
	readonly #captured: readonly Uint8Array[];
	readonly #random: Random;
	readonly #guest: AcknowledgingGuest;
	readonly #test: TestNetwork;

	/** `byName`: with rules that look into the first bytes of connections. */
	constructor(captured: readonly Uint8Array[], random: Random, byName: boolean) {
		this.#captured = captured;
		this.#random = random;
		const clock = new VirtualClock();
		this.#guest = new AcknowledgingGuest(1500, () => clock.nowMs());
		this.#test = createTestNetwork({
			guest: this.#guest,
			clock,
			hostPorts: localPorts(captured),
			...(byName ? { allow: ["public.test", "93.184.216.34:1-1024"], deny: ["bad.test"] } : {}),
			answerDns: async (query) => {
				const message = parseDnsMessage(query);
				return message.ok ? query.slice() : undefined;
			},
		});
		this.#test.names.record("public.test", address("93.184.216.35"), 3600);
		this.#test.host.onConnect = () => {
			this.contacts += 1;
		};
	}

	get lastFrame(): string {
		return Buffer.from(this.#last).toString("hex");
	}

	async feed(frames: number): Promise<void> {
		const random = this.#random;
		let cursor = random(this.#captured.length);
		while (this.fed < frames) {
			// Mostly in the order of the capture, so that connections come to be; now and then somewhere else.
			cursor = random(200) === 0 ? random(this.#captured.length) : (cursor + 1) % this.#captured.length;
			const real = this.#frame(cursor);
			let frame = real.slice();
			this.#guest.acknowledge(frame);
			repair(frame);
			if (random(3) === 0) frame = mutate(frame, this.#frame(random(this.#captured.length)), random) as typeof frame;
			this.#last = frame;
			parseAll(frame, random);
			this.#test.network.receive(frame.slice());
			this.fed += 1;
			if (random(8) === 0) this.#test.network.endBatch();
			if (this.fed % FRAMES_PER_TURN === 0) await this.#turn();
		}
	}

	/** After a day nothing is left. */
	async end(): Promise<void> {
		const { network, clock } = this.#test;
		network.endBatch();
		if (this.#random(2) === 0) {
			for (let hour = 0; hour < 5; hour++) {
				clock.advance(3_600_000);
				await new Promise<void>((resolve) => setImmediate(resolve));
			}
			const usage = network.usage();
			if (usage.tcpFlows + usage.udpMappings + usage.deadlines > 0) throw new Error(`left: ${JSON.stringify(usage)}`);
		}
		network.close();
		if (clock.pendingTimers > 0) throw new Error(`${clock.pendingTimers} timers are left`);
	}

	async #turn(): Promise<void> {
		const { network, host, clock, audit, warnings } = this.#test;
		network.endBatch();
		this.#actAsHost();
		await new Promise<void>((resolve) => setImmediate(resolve));
		clock.advance(this.#random(16) === 0 ? this.#random(20_000) : this.#random(50));
		const { tcpFlows, udpMappings, deadlines } = network.usage();
		if (tcpFlows > MAX_TCP_FLOWS || udpMappings > MAX_UDP_MAPPINGS || deadlines > 2 * (tcpFlows + udpMappings) + 8) {
			throw new Error(`out of bounds: ${tcpFlows} flows, ${udpMappings} mappings, ${deadlines} deadlines`);
		}
		if (clock.pendingTimers > 1) throw new Error(`${clock.pendingTimers} timers`);
		this.mostFlows = Math.max(this.mostFlows, tcpFlows);
		audit.length = 0;
		warnings.length = 0;
		for (const socket of host.tcp) {
			for (const { length } of socket.received.splice(0)) this.carriedBytes += length;
		}
		for (const socket of host.udp) socket.sent.length = 0;
		host.tcp.splice(0, Math.max(0, host.tcp.length - 64));
		host.udp.splice(0, Math.max(0, host.udp.length - 64));
		host.pinged.length = 0;
	}

	/** What servers do. */
	#actAsHost(): void {
		const random = this.#random;
		const { tcp, udp } = this.#test.host;
		for (const socket of tcp) {
			if (socket.destroyed) continue;
			if (socket.connecting) {
				if (random(10) === 0) socket.fail(["ECONNREFUSED", "EHOSTUNREACH"][random(2)] ?? "");
				else socket.accept();
			} else if (random(4) === 0 && !socket.readableEnded && socket.readable) {
				const deed = random(12);
				if (deed === 0) socket.fail("ECONNRESET");
				else if (deed < 3) socket.push(null);
				else socket.push(pattern(random(5000)));
			}
		}
		const peer = udp[random(Math.max(1, udp.length))];
		if (peer !== undefined && !peer.isClosed) peer.arrive(pattern(random(3000)), "127.0.0.1", peer.localPort ?? 80);
	}

	#frame(at: number): Uint8Array {
		return this.#captured[at] ?? new Uint8Array(0);
	}
}

/** Every parser of the relay, on the frame and on a piece of it: what they say is of no matter here. */
function parseAll(frame: Uint8Array, random: Random): void {
	const piece = frame.subarray(random(Math.max(1, frame.length)));
	for (const bytes of [frame.subarray(14), piece]) {
		parseArpPacket(bytes);
		parseIpv4Packet(bytes);
		parseTcpSegment(bytes, 0, 0);
		parseUdpDatagram(bytes, 0, 0);
		parseIcmpMessage(bytes);
		parseDhcpMessage(bytes);
		parseDnsMessage(bytes);
		readFirstBytes(bytes);
	}
	for (const start of [42, 54]) {
		const payload = frame.subarray(start);
		parseDhcpMessage(payload);
		parseDnsMessage(payload);
		readFirstBytes(payload);
	}
}

/** The gateway's ports that the captured programs spoke to: a relay that fits them has them open. */
function localPorts(captured: readonly Uint8Array[]): number[] {
	const ports = new Set<number>();
	for (const frame of captured) {
		const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
		if (frame.length < 38 || view.getUint16(12) !== 0x0800 || view.getUint32(30) !== GATEWAY_ADDRESS) continue;
		const port = view.getUint16(36);
		if (port > 1024) ports.add(port);
	}
	return [...ports];
}

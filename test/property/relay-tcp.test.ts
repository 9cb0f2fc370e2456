import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TcpConnection, type TcpConnectionOptions } from "../../src/relay/flows/tcp-connection.js";
import { TCP_TIME_WAIT_MS } from "../../src/relay/limits.js";
import {
	NO_TCP_OPTIONS,
	parseTcpSegment,
	TCP_ACK,
	TCP_SYN,
	type TcpSegment,
	tcpHeaderBytes,
	writeTcpSegment,
} from "../../src/relay/wire/tcp.js";
import { VirtualClock } from "../unit/relay/virtual-clock.js";

const GUEST = 0x0a00020f;
const REMOTE = 0x5db8d822;
/** No run takes longer, ms of virtual time. */
const LONGEST_RUN_MS = 4 * 3600_000;

/** What happens to one packet. */
type Fate = "arrives" | "is late" | "is lost" | "comes twice" | "is corrupted";

interface Plan {
	readonly fates: readonly Fate[];
	readonly seed: number;
}

/** Cheap and repeatable. */
function randomNumbers(seed: number): () => number {
	let state = seed >>> 0 || 1;
	return () => {
		state ^= state << 13;
		state ^= state >>> 17;
		state ^= state << 5;
		return (state >>> 0) / 2 ** 32;
	};
}

function patternBytes(length: number, seed: number): Buffer {
	const random = randomNumbers(seed);
	return Buffer.from(Uint8Array.from({ length }, () => random() * 256));
}

/** One of two parties: a connection, the program that uses it, and the timer that both share. */
class Party {
	readonly received: Buffer[] = [];
	readonly events: string[] = [];
	connection: TcpConnection | undefined;
	/** Segments on their way. */
	transmit: (segment: TcpSegment) => void = () => {};
	peerEnded = false;
	/** Segments with data beyond what the peer had offered, probes aside. */
	intrusions = 0;
	#peerWindowUnit = 1;
	/** The sequence number before which the peer lets us send. */
	#offeredEnd: number | undefined;
	readonly options: TcpConnectionOptions;
	readonly #random: () => number;
	readonly #clock: VirtualClock;
	readonly #toSend: Buffer;
	readonly #endsFirst: boolean;
	readonly #budget: number;
	#sent = 0;
	#blocked = false;
	#ended = false;
	#unread = 0;
	#reading = false;

	constructor(
		clock: VirtualClock,
		parameters: {
			readonly toSend: Buffer;
			readonly endsFirst: boolean;
			readonly initialSequence: number;
			readonly mtu: number;
			readonly receiveBudgetBytes: number;
			readonly sendBudgetBytes: number;
			readonly seed: number;
		},
	) {
		this.#clock = clock;
		this.#random = randomNumbers(parameters.seed);
		this.#toSend = parameters.toSend;
		this.#endsFirst = parameters.endsFirst;
		this.#budget = parameters.receiveBudgetBytes;
		this.options = {
			nowMs: () => clock.nowMs(),
			initialSequence: parameters.initialSequence,
			mtu: parameters.mtu,
			receiveBudgetBytes: parameters.receiveBudgetBytes,
			sendBudgetBytes: parameters.sendBudgetBytes,
			output: {
				segment: (segment) => {
					this.noteUse(segment);
					this.transmit(segment);
				},
				data: (bytes) => {
					this.received.push(Buffer.from(bytes));
					this.#unread += bytes.length;
					this.connection?.setReceiveBudget(this.#budget - this.#unread);
					this.#read();
				},
				timeWait: () => {},
				end: () => {
					this.events.push("end");
					this.peerEnded = true;
					this.write();
				},
				writable: () => {
					this.#blocked = false;
					this.write();
				},
				established: () => {
					this.events.push("established");
					this.write();
				},
				closed: (reason) => this.events.push(`closed: ${reason}`),
			},
		};
	}

	/** A segment has arrived: notes what it offers. */
	noteOffer(segment: TcpSegment): void {
		const isSyn = (segment.flags & TCP_SYN) !== 0;
		if (isSyn) this.#peerWindowUnit = 2 ** (segment.options.windowScale ?? 0);
		if ((segment.flags & TCP_ACK) === 0) return;
		const end = segment.acknowledgment + segment.window * (isSyn ? 1 : this.#peerWindowUnit);
		if (this.#offeredEnd === undefined || ((end - this.#offeredEnd) | 0) > 0) this.#offeredEnd = end;
	}

	/** A segment leaves: it keeps to the offer. */
	noteUse(segment: TcpSegment): void {
		if (segment.payload.length <= 1) return;
		const beyond = (segment.sequence + segment.payload.length - (this.#offeredEnd ?? 0)) | 0;
		if (beyond > 0) this.intrusions += 1;
	}

	/** Sends what there is, in chunks of any size, then ends: at once, or after the peer. */
	write(): void {
		while (!this.#blocked && this.#sent < this.#toSend.length) {
			const size = 1 + Math.floor(this.#random() ** 3 * 5000);
			const chunk = Buffer.from(this.#toSend.subarray(this.#sent, this.#sent + size));
			this.#sent += chunk.length;
			this.#blocked = this.connection?.send(chunk) === false;
		}
		if (this.#sent < this.#toSend.length || this.#ended || !(this.#endsFirst || this.peerEnded)) return;
		this.#ended = true;
		this.connection?.end();
	}

	/** The program reads a part of what is there, now and then. */
	#read(): void {
		if (this.#reading) return;
		this.#reading = true;
		this.#clock.setTimer(this.#random() * 30, () => {
			this.#reading = false;
			this.#unread -= Math.ceil(this.#unread * this.#random());
			this.connection?.setReceiveBudget(this.#budget - this.#unread);
			if (this.#unread > 0) this.#read();
		});
	}
}

/** Bytes on the wire, as they would travel: a flipped bit must die by the checksum. */
class Wire {
	packets = 0;
	corrupted = 0;
	misread = 0;
	readonly #clock: VirtualClock;
	readonly #plan: Plan;
	readonly #random: () => number;

	constructor(clock: VirtualClock, plan: Plan) {
		this.#clock = clock;
		this.#plan = plan;
		this.#random = randomNumbers(plan.seed);
	}

	send(segment: TcpSegment, source: number, destination: number, arrive: (segment: TcpSegment) => void): void {
		const bytes = new Uint8Array(tcpHeaderBytes(segment.options) + segment.payload.length);
		writeTcpSegment(bytes, 0, segment, source, destination);
		const fate = this.#plan.fates[this.packets++ % this.#plan.fates.length] ?? "arrives";
		if (fate === "is lost") return;
		if (fate === "is corrupted") {
			const bit = Math.floor(this.#random() * bytes.length * 8);
			bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
			this.corrupted += 1;
		}
		const deliver = (): void => {
			const parsed = parseTcpSegment(bytes, source, destination);
			if (parsed.ok && fate === "is corrupted") this.misread += 1;
			if (parsed.ok) arrive(parsed.value);
		};
		this.#clock.setTimer(fate === "is late" ? 5 + this.#random() * 60 : 1, deliver);
		if (fate === "comes twice") this.#clock.setTimer(2 + this.#random() * 40, deliver);
	}
}

interface Scenario {
	readonly down: Plan;
	readonly up: Plan;
	readonly sizes: readonly [number, number];
	readonly endsFirst: readonly [boolean, boolean];
	readonly sequences: readonly [number, number];
	readonly mtus: readonly [number, number];
	readonly receiveBudgets: readonly [number, number];
	readonly sendBudgets: readonly [number, number];
	/** Whether SYNs offer nothing but the MSS. */
	readonly plain: boolean;
	readonly seed: number;
}

/** A SYN as old stacks send it. */
function withoutOffers(segment: TcpSegment): TcpSegment {
	const { maximumSegmentSize } = segment.options;
	return maximumSegmentSize === undefined ? segment : { ...segment, options: { maximumSegmentSize } };
}

function run(scenario: Scenario): { guest: Party; host: Party; wires: Wire[]; clock: VirtualClock } {
	const clock = new VirtualClock();
	const [guest, host] = ([0, 1] as const).map((side) => {
		return new Party(clock, {
			toSend: patternBytes(scenario.sizes[side], scenario.seed + side),
			endsFirst: scenario.endsFirst[side],
			initialSequence: scenario.sequences[side],
			mtu: scenario.mtus[side],
			receiveBudgetBytes: scenario.receiveBudgets[side],
			sendBudgetBytes: scenario.sendBudgets[side],
			seed: scenario.seed + 10 + side,
		});
	}) as [Party, Party];
	const wires = [new Wire(clock, scenario.up), new Wire(clock, scenario.down)] as const;
	const alarms = new Map<Party, { atMs: number; cancel(): void }>();
	const schedule = (party: Party): void => {
		const atMs = party.connection?.nextTimerMs;
		const set = alarms.get(party);
		if (atMs === undefined || (set !== undefined && set.atMs <= atMs)) return;
		set?.cancel();
		const timer = clock.setTimer(atMs - clock.nowMs(), () => {
			alarms.delete(party);
			party.connection?.tick();
			schedule(party);
		});
		alarms.set(party, { atMs, cancel: () => timer.cancel() });
	};
	const arriveAt = (party: Party, arrived: TcpSegment): void => {
		const segment = scenario.plain ? withoutOffers(arrived) : arrived;
		if (party.connection === undefined && party === host) {
			if ((segment.flags & TCP_SYN) === 0) return;
			const accepted = TcpConnection.accept(segment, host.options);
			host.connection = accepted;
			clock.setTimer(20, () => {
				accepted.hostConnected();
				schedule(host);
			});
		}
		party.noteOffer(segment);
		party.connection?.receive(segment);
		if (scenario.seed % 2 === 0 || segment.sequence % 3 === 0) party.connection?.flush();
		schedule(party);
	};
	guest.transmit = (segment) => wires[0].send(segment, GUEST, REMOTE, (arrived) => arriveAt(host, arrived));
	host.transmit = (segment) => wires[1].send(segment, REMOTE, GUEST, (arrived) => arriveAt(guest, arrived));
	guest.connection = TcpConnection.connect({ ...guest.options, guestPort: 80, remotePort: 40_000 });
	schedule(guest);
	const finished = (): boolean => guest.connection?.state === "closed" && host.connection?.state === "closed";
	while (!finished() && clock.nowMs() < LONGEST_RUN_MS && clock.step()) {
		for (const party of [guest, host]) schedule(party);
	}
	return { guest, host, wires: [...wires], clock };
}

const sequences = fc.oneof(
	fc.integer({ min: 0xffff_0000, max: 0xffff_ffff }),
	fc.integer({ min: 0x7fff_0000, max: 0x8000_0000 }),
	fc.nat(0xffff_ffff),
);
const both = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<[T, T]> => fc.tuple(value, value);

/** `badness` of ten packets have a fate. */
const plans = (badness: number): fc.Arbitrary<Plan> => {
	const fate = fc.oneof(
		{ weight: 10 - badness, arbitrary: fc.constant<Fate>("arrives") },
		{ weight: badness, arbitrary: fc.constantFrom<Fate>("is late", "is lost", "comes twice", "is corrupted") },
	);
	return fc.record({
		// An odd number of fates, so that a packet sent again does not meet the same fate for ever.
		fates: fc.array(fate, { minLength: 97, maxLength: 97 }),
		seed: fc.integer({ min: 1, max: 0x7fff_ffff }),
	});
};

const scenarios = (badness: number, ends: fc.Arbitrary<readonly [boolean, boolean]>): fc.Arbitrary<Scenario> =>
	fc.record({
		down: plans(badness),
		up: plans(badness),
		sizes: both(fc.oneof(fc.nat(200), fc.nat(60_000))),
		endsFirst: ends,
		sequences: both(sequences),
		mtus: both(fc.constantFrom(128, 576, 1500, 9000, 65_521)),
		receiveBudgets: both(fc.constantFrom(700, 5000, 65_535, 1_000_000)),
		sendBudgets: both(fc.constantFrom(100, 20_000, 1_000_000)),
		plain: fc.boolean(),
		seed: fc.nat(1_000_000),
	});

const anyEnds = fc.constantFrom([true, true] as const, [true, false] as const, [false, true] as const);

function expectWhole(scenario: Scenario): number {
	const { guest, host, wires } = run(scenario);
	expect(guest.events).toEqual(["established", "end", "closed: finished"]);
	expect(host.events).toEqual(["established", "end", "closed: finished"]);
	const [fromGuest, fromHost] = [0, 1].map((side) => patternBytes(scenario.sizes[side] ?? 0, scenario.seed + side));
	expect(Buffer.concat(host.received).equals(fromGuest as Buffer)).toBe(true);
	expect(Buffer.concat(guest.received).equals(fromHost as Buffer)).toBe(true);
	for (const party of [guest, host]) {
		expect(party.connection?.nextTimerMs).toBeUndefined();
		expect(party.connection?.queuedBytes).toBe(0);
		expect(party.intrusions).toBe(0);
	}
	for (const wire of wires) expect(wire.misread).toBe(0);
	return (guest.connection?.retransmissions ?? 0) + (host.connection?.retransmissions ?? 0);
}

describe("two connections", () => {
	it("exchange every byte both ways over a perfect wire, without a retransmission", () => {
		fc.assert(
			fc.property(scenarios(0, anyEnds), (scenario) => {
				expect(expectWhole(scenario)).toBe(0);
			}),
			{ seed: 1, numRuns: 60 },
		);
	});

	it("exchange every byte both ways over a wire that loses, doubles, delays and corrupts, whoever ends first", () => {
		fc.assert(
			fc.property(scenarios(2, anyEnds), (scenario) => {
				expectWhole(scenario);
			}),
			{ seed: 2, numRuns: 150 },
		);
	});

	it.each([
		{ plain: false, lost: 100, limitMs: 300 },
		{ plain: true, lost: 20, limitMs: 500 },
	])("get over a burst of losses soon (plain: $plain)", ({ plain, lost, limitMs }) => {
		const fates = Array.from(
			{ length: 100_003 },
			(_, packet): Fate => (packet >= 300 && packet < 300 + lost ? "is lost" : "arrives"),
		);
		const scenario: Scenario = {
			up: { fates: ["arrives"], seed: 1 },
			down: { fates, seed: 1 },
			sizes: [0, 2_000_000],
			endsFirst: [true, true],
			sequences: [1, 1],
			mtus: [1500, 1500],
			receiveBudgets: [1_000_000, 1_000_000],
			sendBudgets: [1_000_000, 1_000_000],
			plain,
			seed: 4,
		};
		expectWhole(scenario);
		expect(run(scenario).clock.nowMs() - TCP_TIME_WAIT_MS).toBeLessThan(limitMs);
	});

	it("come to an end over a wire that is hardly one", () => {
		fc.assert(
			fc.property(scenarios(9, anyEnds), (scenario) => {
				const { guest, host, clock } = run(scenario);
				expect(clock.nowMs()).toBeLessThan(LONGEST_RUN_MS);
				for (const party of [guest, host]) {
					if (party.connection === undefined) continue;
					// A party with nothing to send can't know that the other is gone: the idle limit's business, not a timer's.
					expect(party.connection.nextTimerMs).toBeUndefined();
					if (party.connection.state !== "closed") {
						expect((party === guest ? host : guest).connection?.state ?? "closed").toBe("closed");
						party.connection.abort();
					}
					expect(party.connection.state).toBe("closed");
					expect(party.events.filter((event) => event.startsWith("closed"))).toHaveLength(1);
					expect(party.events.at(-1)).toMatch(/^closed/);
				}
				const sent = patternBytes(scenario.sizes[0], scenario.seed);
				const received = Buffer.concat(host.received);
				expect(received.equals(sent.subarray(0, received.length))).toBe(true);
			}),
			{ seed: 3, numRuns: 60 },
		);
	});
});

/** A segment near what is valid: most get past one check or another. */
const hostileSegments = fc.record({
	sequence: fc.oneof(fc.integer({ min: -5, max: 50 }), fc.integer({ min: -100_000, max: 100_000 }), fc.integer()),
	acknowledgment: fc.oneof(fc.integer({ min: -5, max: 50 }), fc.integer({ min: -100_000, max: 100_000 }), fc.integer()),
	flags: fc.oneof({ weight: 3, arbitrary: fc.constantFrom(16, 24, 17) }, { weight: 1, arbitrary: fc.nat(63) }),
	window: fc.oneof(fc.constantFrom(0, 1, 100), fc.nat(65_535)),
	payloadBytes: fc.oneof(fc.nat(40), fc.nat(1460)),
	sack: fc.array(fc.tuple(fc.nat(3000), fc.nat(3000)), { maxLength: 4 }),
});

describe("a guest that says anything", () => {
	it("makes nothing throw, grow or answer without end", () => {
		const steps = fc.array(
			fc.record({
				segment: hostileSegments,
				action: fc.constantFrom("none", "send", "flush", "tick", "budget", "end", "abort"),
				waitMs: fc.nat(2000),
			}),
			{ maxLength: 120 },
		);
		const syns = fc.record({
			maximumSegmentSize: fc.nat(65_535),
			windowScale: fc.nat(255),
			sackPermitted: fc.constant(true as const),
		});
		fc.assert(
			fc.property(steps, syns, sequences, (taken, options, initialSequence) => {
				const clock = new VirtualClock();
				let answers = 0;
				let received = 0;
				const closed: string[] = [];
				const guestSequence = 0xffff_ff00;
				const make = (from: (typeof taken)[number]["segment"]): TcpSegment => ({
					sourcePort: 1,
					destinationPort: 2,
					sequence: (guestSequence + from.sequence) >>> 0,
					acknowledgment: (initialSequence + from.acknowledgment) >>> 0,
					flags: from.flags,
					window: from.window,
					options:
						from.sack.length === 0
							? NO_TCP_OPTIONS
							: { sack: from.sack.map(([a, b]) => [initialSequence + a, initialSequence + b] as const) },
					payload: new Uint8Array(from.payloadBytes),
				});
				const none = { sequence: 0, acknowledgment: 0, flags: TCP_SYN, window: 1000, payloadBytes: 0, sack: [] };
				const connection = TcpConnection.accept(
					{ ...make(none), options },
					{
						nowMs: () => clock.nowMs(),
						initialSequence,
						mtu: 1500,
						receiveBudgetBytes: 20_000,
						sendBudgetBytes: 20_000,
						output: {
							segment: (segment) => {
								answers += 1;
								expect(closed).toEqual([]);
								expect(segment.payload.length).toBeLessThanOrEqual(1460);
								for (const number of [segment.sequence, segment.acknowledgment]) expect(number).toBe(number >>> 0);
								expect(segment.window).toBe(segment.window & 0xffff);
							},
							data: (bytes) => {
								received += bytes.length;
								expect(closed).toEqual([]);
							},
							end: () => expect(closed).toEqual([]),
							writable: () => expect(closed).toEqual([]),
							established: () => expect(closed).toEqual([]),
							timeWait: () => {},
							closed: (reason) => closed.push(reason),
						},
					},
				);
				connection.hostConnected();
				connection.receive(make({ ...none, sequence: 1, acknowledgment: 1, flags: TCP_ACK }));
				for (const { segment, action, waitMs } of taken) {
					answers = 0;
					connection.receive(make(segment));
					if (action === "send") connection.send(new Uint8Array(waitMs));
					if (action === "flush") connection.flush();
					if (action === "budget") connection.setReceiveBudget(waitMs);
					if (action === "end" && waitMs % 8 === 0) connection.end();
					if (action === "abort" && waitMs % 32 === 0) connection.abort();
					clock.advance(waitMs);
					if (action === "tick") connection.tick();
					// All that may ever be queued, in the smallest segments, and what answers.
					expect(answers).toBeLessThan(10 + connection.queuedBytes / 80);
				}
				// The first window, and a new one of up to 2000 with each step.
				expect(received).toBeLessThanOrEqual(20_000 + 2000 * taken.length);
				connection.abort();
				expect(closed).toHaveLength(1);
				expect(connection.nextTimerMs).toBeUndefined();
			}),
			{ seed: 4, numRuns: 400 },
		);
	});
});

import {
	TcpConnection,
	type TcpConnectionOptions,
	type TcpConnectionOutput,
} from "../../../../src/relay/flows/tcp-connection.js";
import {
	NO_TCP_OPTIONS,
	TCP_ACK,
	TCP_FIN,
	TCP_PSH,
	TCP_RST,
	TCP_SYN,
	type TcpOptions,
	type TcpSegment,
} from "../../../../src/relay/wire/tcp.js";
import { VirtualClock } from "../virtual-clock.js";

export const OUR_SEQUENCE = 5000;
export const GUEST_SEQUENCE = 100_000;
export const GUEST_PORT = 40_000;
export const REMOTE_PORT = 80;

export interface GuestSegment {
	/** Letters of S, A, F, R, P. */
	readonly flags?: string;
	/** After the guest's initial sequence; default: the next. */
	readonly position?: number;
	/** After ours; default: all that was seen. */
	readonly acknowledge?: number;
	/** Raw. */
	readonly window?: number;
	readonly payload?: string | Uint8Array;
	readonly options?: TcpOptions;
}

const LETTERS: readonly (readonly [string, number])[] = [
	["S", TCP_SYN],
	["F", TCP_FIN],
	["R", TCP_RST],
	["P", TCP_PSH],
	["A", TCP_ACK],
];

export const flagsOf = (letters: string): number =>
	LETTERS.reduce((flags, [letter, bit]) => (letters.includes(letter) ? flags | bit : flags), 0);

export const lettersOf = (flags: number): string =>
	LETTERS.map(([letter, bit]) => (flags & bit ? letter : "")).join("");

/** A guest whose every segment a test writes by hand, and the connection that it speaks to. */
export class TcpGuest {
	readonly clock = new VirtualClock();
	readonly events: string[] = [];
	/** What came since the last take(). */
	segments: TcpSegment[] = [];
	received = "";
	initialSequence = OUR_SEQUENCE;
	guestSequence = GUEST_SEQUENCE;
	/** The guest's next position. */
	next = 1;
	/** The position after the last that came from us. */
	seen = 1;
	/** Called after the event was noted. */
	hooks: Partial<TcpConnectionOutput> = {};
	connection: TcpConnection;

	constructor(
		options: Partial<TcpConnectionOptions> & { opens?: "guest" | "us"; syn?: TcpOptions; window?: number } = {},
	) {
		const { opens = "guest", syn = {}, window = 65_535, ...overrides } = options;
		this.initialSequence = overrides.initialSequence ?? OUR_SEQUENCE;
		const all: TcpConnectionOptions = {
			nowMs: () => this.clock.nowMs(),
			initialSequence: OUR_SEQUENCE,
			mtu: 1500,
			receiveBudgetBytes: 65_535,
			sendBudgetBytes: 262_144,
			output: {
				segment: (segment) => {
					this.segments.push({ ...segment, payload: segment.payload.slice() });
					const length = segment.payload.length + (segment.flags & TCP_FIN ? 1 : 0);
					this.seen = Math.max(this.seen, this.position(segment) + length);
					this.hooks.segment?.(segment);
				},
				data: (bytes) => {
					this.received += Buffer.from(bytes).toString("latin1");
					this.hooks.data?.(bytes);
				},
				end: () => this.#event("end", () => this.hooks.end?.()),
				writable: () => this.#event("writable", () => this.hooks.writable?.()),
				established: () => this.#event("established", () => this.hooks.established?.()),
				timeWait: () => {},
				closed: (reason) => this.#event(`closed: ${reason}`, () => this.hooks.closed?.(reason)),
			},
			...overrides,
		};
		this.connection =
			opens === "us"
				? TcpConnection.connect({ ...all, guestPort: GUEST_PORT, remotePort: REMOTE_PORT })
				: TcpConnection.accept(this.segment({ flags: "S", position: 0, window, options: syn }), all);
	}

	/** A connection whose handshake is done; nothing is left to take. */
	static established(options: ConstructorParameters<typeof TcpGuest>[0] = {}): TcpGuest {
		const guest = new TcpGuest(options);
		guest.connection.hostConnected();
		guest.say({ window: options.window ?? 65_535 });
		guest.take();
		guest.events.length = 0;
		return guest;
	}

	#event(name: string, hook: () => void): void {
		this.events.push(name);
		hook();
	}

	segment(segment: GuestSegment): TcpSegment {
		const payload = typeof segment.payload === "string" ? Buffer.from(segment.payload, "latin1") : segment.payload;
		const flags = flagsOf(segment.flags ?? "A");
		return {
			sourcePort: GUEST_PORT,
			destinationPort: REMOTE_PORT,
			sequence: (this.guestSequence + (segment.position ?? this.next)) >>> 0,
			acknowledgment: flags & TCP_ACK ? (this.initialSequence + (segment.acknowledge ?? this.seen)) >>> 0 : 0,
			flags,
			window: segment.window ?? 65_535,
			options: segment.options ?? NO_TCP_OPTIONS,
			payload: payload ?? new Uint8Array(0),
		};
	}

	/** Sends a segment; the next one goes on behind it, if it was in order. */
	say(segment: GuestSegment): void {
		const made = this.segment(segment);
		const length = made.payload.length + (made.flags & TCP_FIN ? 1 : 0);
		if (segment.position === undefined) this.next += length;
		this.connection.receive(made);
	}

	/** The position of one of our segments. */
	position(segment: TcpSegment): number {
		return (segment.sequence - this.initialSequence) | 0;
	}

	/** What came since the last time: `FLAGS position+length ack=… [text]`. */
	take(): string[] {
		const taken = this.segments.map((segment) => {
			const acknowledgment = segment.flags & TCP_ACK ? ` ack=${(segment.acknowledgment - this.guestSequence) | 0}` : "";
			return `${lettersOf(segment.flags)} ${this.position(segment)}+${segment.payload.length}${acknowledgment}`;
		});
		this.segments = [];
		return taken;
	}

	/** Moves the clock on, ticking whenever a timer is due. */
	wait(ms: number): void {
		const end = this.clock.nowMs() + ms;
		for (;;) {
			const at = this.connection.nextTimerMs;
			if (at === undefined || at > end) break;
			this.clock.advance(Math.max(0, at - this.clock.nowMs()));
			this.connection.tick();
		}
		this.clock.advance(end - this.clock.nowMs());
	}
}

export const bytes = (length: number, fill = 97): Uint8Array => new Uint8Array(length).fill(fill);

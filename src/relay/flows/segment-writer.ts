import { NO_TCP_OPTIONS, TCP_ACK, TCP_RST, TCP_SYN, type TcpOptions, type TcpSegment } from "../wire/tcp.js";
import { rstForStray } from "./stray-segment.js";
import type { TcpHandshake } from "./tcp-handshake.js";
import type { TcpReceiver } from "./tcp-receiver.js";
import { sequenceAt } from "./tcp-sequence.js";

const NO_BYTES = new Uint8Array(0);

export interface SegmentRoute {
	readonly remotePort: number;
	readonly guestPort: number;
	/** Of our stream. */
	readonly initialSequence: number;
	readonly output: { segment(segment: TcpSegment): void };
}

/** Makes every segment of one connection: ports, numbers, window. */
export class SegmentWriter {
	readonly #route: SegmentRoute;
	readonly #handshake: TcpHandshake;
	readonly #receiver: TcpReceiver;

	constructor(route: SegmentRoute, handshake: TcpHandshake, receiver: TcpReceiver) {
		this.#route = route;
		this.#handshake = handshake;
		this.#receiver = receiver;
	}

	/** Our SYN; `answering`: it acknowledges the guest's. */
	syn(answering: boolean): void {
		this.#write(0, answering ? TCP_SYN | TCP_ACK : TCP_SYN, this.#handshake.options(), NO_BYTES);
	}

	/** A segment of the sender. It carries an acknowledgment; over holes a bare one, which counts as a duplicate, is sent as well. */
	data(position: number, payload: Uint8Array, flags: number): void {
		if (!this.#receiver.hasHoles) this.#receiver.acknowledged();
		this.#write(position, flags | TCP_ACK, NO_TCP_OPTIONS, payload);
	}

	/** A bare acknowledgment. */
	acknowledgment(position: number): void {
		const holes = this.#receiver.hasHoles && this.#handshake.isSackPermitted;
		this.#receiver.acknowledged();
		this.#write(position, TCP_ACK, holes ? this.#sackOption() : NO_TCP_OPTIONS, NO_BYTES);
	}

	reset(position: number, acknowledging: boolean): void {
		this.#write(position, acknowledging ? TCP_RST | TCP_ACK : TCP_RST, NO_TCP_OPTIONS, NO_BYTES);
	}

	/** Answers a segment as if there were no connection. */
	resetStray(segment: TcpSegment): void {
		const answer = rstForStray(segment);
		if (answer !== undefined) this.#route.output.segment(answer);
	}

	#sackOption(): TcpOptions {
		const initial = this.#handshake.guestSequence;
		const ranges = this.#receiver.sackRanges();
		return { sack: ranges.map(([start, end]) => [sequenceAt(initial, start), sequenceAt(initial, end)] as const) };
	}

	#write(position: number, flags: number, options: TcpOptions, payload: Uint8Array): void {
		const acknowledging = (flags & TCP_ACK) !== 0;
		this.#route.output.segment({
			sourcePort: this.#route.remotePort,
			destinationPort: this.#route.guestPort,
			sequence: sequenceAt(this.#route.initialSequence, position),
			acknowledgment: acknowledging ? sequenceAt(this.#handshake.guestSequence, this.#receiver.nxt) : 0,
			flags,
			window: flags & TCP_RST ? 0 : this.#receiver.advertise(),
			options,
			payload,
		});
	}
}

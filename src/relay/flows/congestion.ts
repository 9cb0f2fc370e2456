import { TCP_INITIAL_CONGESTION_BYTES } from "../limits.js";

/** Never fewer segments than this in flight, even after a timeout: the link is local, its losses are full rings. */
const MIN_SEGMENTS = 4;

/** The congestion window (RFC 5681), with a large start and a high floor: what it protects is a ring of some hundred buffers. */
export class Congestion {
	readonly #segmentBytes: number;
	readonly #limitBytes: number;
	#windowBytes: number;
	#thresholdBytes = Number.POSITIVE_INFINITY;

	/** `limitBytes`: more than is ever queued is no use. */
	constructor(segmentBytes: number, limitBytes: number) {
		this.#segmentBytes = segmentBytes;
		this.#windowBytes = Math.max(10 * segmentBytes, TCP_INITIAL_CONGESTION_BYTES);
		this.#limitBytes = Math.max(this.#windowBytes, limitBytes);
	}

	get windowBytes(): number {
		return this.#windowBytes;
	}

	/** After an acknowledgment of new data, `flightBytes` having been in flight: slow start, then congestion avoidance. */
	grow(acknowledgedBytes: number, flightBytes: number): void {
		if (this.#windowBytes >= this.#limitBytes || 2 * flightBytes < this.#windowBytes) return;
		const step =
			this.#windowBytes < this.#thresholdBytes
				? acknowledgedBytes
				: Math.ceil((this.#segmentBytes * acknowledgedBytes) / this.#windowBytes);
		this.#windowBytes = Math.min(this.#limitBytes, this.#windowBytes + step);
	}

	/** A loss that duplicate acknowledgments told of: half. */
	onLoss(flightBytes: number): void {
		this.#thresholdBytes = Math.max(flightBytes / 2, MIN_SEGMENTS * this.#segmentBytes);
		this.#windowBytes = Math.min(this.#windowBytes, this.#thresholdBytes);
	}

	/** A retransmission timeout: start slowly again, up to half of what was in flight. */
	onTimeout(flightBytes: number): void {
		this.#thresholdBytes = Math.max(flightBytes / 2, MIN_SEGMENTS * this.#segmentBytes);
		this.#windowBytes = MIN_SEGMENTS * this.#segmentBytes;
	}
}

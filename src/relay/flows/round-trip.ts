import { TCP_INITIAL_TIMEOUT_MS, TCP_MAX_TIMEOUT_MS, TCP_MIN_TIMEOUT_MS } from "../limits.js";

/** How coarse the guest's clock may be, ms: the G of RFC 6298. */
const GRANULARITY_MS = 10;

/** The retransmission timeout (RFC 6298). Its lower bound is Linux's 200 ms instead of 1 s: the link is local. */
export class RoundTrip {
	#smoothedMs = 0;
	#variationMs = 0;
	#measured = false;
	#backoff = 1;

	/** Of a segment that was sent once (Karn). */
	sample(elapsedMs: number): void {
		if (this.#measured) {
			this.#variationMs += (Math.abs(this.#smoothedMs - elapsedMs) - this.#variationMs) / 4;
			this.#smoothedMs += (elapsedMs - this.#smoothedMs) / 8;
		} else {
			this.#measured = true;
			this.#smoothedMs = elapsedMs;
			this.#variationMs = elapsedMs / 2;
		}
	}

	backOff(): void {
		if (this.timeoutMs < TCP_MAX_TIMEOUT_MS) this.#backoff *= 2;
	}

	clearBackoff(): void {
		this.#backoff = 1;
	}

	get timeoutMs(): number {
		const base = this.#measured
			? Math.max(TCP_MIN_TIMEOUT_MS, this.#smoothedMs + Math.max(GRANULARITY_MS, 4 * this.#variationMs))
			: TCP_INITIAL_TIMEOUT_MS;
		return Math.min(TCP_MAX_TIMEOUT_MS, base * this.#backoff);
	}
}

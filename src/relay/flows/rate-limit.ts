/** At most `limit` events in each window of `windowMs`. */
export class RateLimit {
	readonly #limit: number;
	readonly #windowMs: number;
	#sinceMs = Number.NEGATIVE_INFINITY;
	#count = 0;

	constructor(limit: number, windowMs: number) {
		this.#limit = limit;
		this.#windowMs = windowMs;
	}

	allows(nowMs: number): boolean {
		if (nowMs - this.#sinceMs >= this.#windowMs) {
			this.#sinceMs = nowMs;
			this.#count = 0;
		}
		this.#count += 1;
		return this.#count <= this.#limit;
	}
}

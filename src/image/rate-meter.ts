/** Rates are taken over this long, ms. */
const WINDOW_MS = 5_000;
/** Bytes that come closer together than this are counted as one arrival, ms. */
const RESOLUTION_MS = 50;

/** Bytes per second over the last seconds. */
export class RateMeter {
	readonly #now: () => number;
	readonly #arrivals: { atMs: number; bytes: number }[] = [];

	/** `now` is in ms. */
	constructor(now: () => number) {
		this.#now = now;
	}

	add(bytes: number): void {
		const atMs = this.#now();
		const last = this.#arrivals.at(-1);
		if (last !== undefined && atMs - last.atMs < RESOLUTION_MS) last.bytes += bytes;
		else this.#arrivals.push({ atMs, bytes });
		while ((this.#arrivals[0]?.atMs ?? atMs) < atMs - WINDOW_MS) this.#arrivals.shift();
	}

	/** Undefined where nothing came for a while. */
	bytesPerSecond(): number | undefined {
		const nowMs = this.#now();
		const first = this.#arrivals[0];
		const last = this.#arrivals.at(-1);
		if (first === undefined || last === undefined || nowMs - last.atMs > WINDOW_MS) return undefined;
		const bytes = this.#arrivals.reduce((sum, arrival) => sum + arrival.bytes, 0);
		return (bytes * 1000) / Math.max(200, nowMs - first.atMs);
	}
}

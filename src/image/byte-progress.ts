import type { Progress } from "./progress.js";
import { RateMeter } from "./rate-meter.js";

/** Work that is over sooner is not worth a line, ms. */
const QUIET_MS = 1_000;
/** Shortest time between two reports, ms. */
const INTERVAL_MS = 200;

/** Progress of work that is measured in bytes: nothing is reported in its first second. */
export class ByteProgress {
	readonly #report: (progress: Progress) => void;
	readonly #phase: string;
	readonly #now: () => number;
	readonly #startedMs: number;
	readonly #rate: RateMeter;
	readonly #totalBytes: number;
	#doneBytes = 0;
	#reportedMs: number;

	constructor(
		report: (progress: Progress) => void,
		phase: string,
		totalBytes: number,
		now: () => number = () => performance.now(),
	) {
		this.#report = report;
		this.#phase = phase;
		this.#totalBytes = totalBytes;
		this.#now = now;
		this.#startedMs = now();
		this.#reportedMs = this.#startedMs + QUIET_MS - INTERVAL_MS;
		this.#rate = new RateMeter(now);
	}

	/** `bytes` more are done, of what `stage` says. */
	advance(bytes: number, stage: string): void {
		this.#doneBytes = Math.min(this.#totalBytes, this.#doneBytes + bytes);
		this.#rate.add(bytes);
		const nowMs = this.#now();
		if (nowMs - this.#reportedMs < INTERVAL_MS) return;
		this.#reportedMs = nowMs;
		const fraction = this.#totalBytes === 0 ? 1 : this.#doneBytes / this.#totalBytes;
		const elapsedMs = nowMs - this.#startedMs;
		this.#report({
			phase: this.#phase,
			stage,
			fraction,
			etaMs: fraction === 0 ? undefined : Math.round((elapsedMs / fraction) * (1 - fraction)),
			bytesPerSecond: this.#rate.bytesPerSecond(),
		});
	}
}

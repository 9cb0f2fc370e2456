import { RateMeter } from "./rate-meter.js";

/** How far long work is. */
export interface Progress {
	/** One word for the part of the work that is under way. */
	readonly phase: string;
	/** What is being done, for a person, e.g. "downloading packages, 41 of 87 MB". */
	readonly stage: string;
	/** 0..1 over the whole work; never falls. */
	readonly fraction: number;
	/** Time left, ms; undefined as long as nothing can be told. */
	readonly etaMs: number | undefined;
	/** Bytes that were fetched, or read and written, in the last seconds; undefined where there are none. */
	readonly bytesPerSecond: number | undefined;
}

/** How far a build is. */
export interface BuildProgress extends Progress {
	readonly phase: BuildPhase;
}

export type BuildPhase = "waiting" | "index" | "packages" | "tree" | "configure" | "steps" | "commit" | "snapshot";

/**
 * What each phase costs, in seconds on the machine that `base` was measured on (docs/images.md). Only their proportion
 * matters: the time left is scaled by how long the finished phases took here.
 */
const EXPECTED_SECONDS: Record<Exclude<BuildPhase, "waiting">, number> = {
	index: 6,
	packages: 25,
	tree: 2,
	configure: 250,
	steps: 0,
	commit: 2,
	snapshot: 15,
};
const PHASES = Object.keys(EXPECTED_SECONDS) as (keyof typeof EXPECTED_SECONDS)[];

/** Turns the builder's steps into progress: an estimate that only moves forward. */
export class ProgressTracker {
	readonly #report: (progress: BuildProgress) => void;
	readonly #now: () => number;
	readonly #startedMs: number;
	readonly #expected: typeof EXPECTED_SECONDS;
	readonly #totalSeconds: number;
	#phase: keyof typeof EXPECTED_SECONDS = "index";
	#phaseFraction = 0;
	#stage = "starting";
	#fraction = 0;
	readonly #rate: RateMeter;

	/** `expected` replaces what phases are expected to take, seconds. */
	constructor(
		report: (progress: BuildProgress) => void,
		expected: Partial<typeof EXPECTED_SECONDS> = {},
		now: () => number = () => performance.now(),
	) {
		this.#report = report;
		this.#expected = { ...EXPECTED_SECONDS, ...expected };
		this.#totalSeconds = PHASES.reduce((sum, phase) => sum + this.#expected[phase], 0);
		this.#now = now;
		this.#startedMs = now();
		this.#rate = new RateMeter(now);
	}

	/** The build is in `phase`, which is done by `fraction` (0..1). */
	update(phase: keyof typeof EXPECTED_SECONDS, fraction: number, stage: string): void {
		this.#phase = phase;
		this.#phaseFraction = Math.min(1, Math.max(0, fraction));
		this.#stage = stage;
		this.#emit();
	}

	/** Bytes that arrived from the network. */
	received(bytes: number): void {
		this.#rate.add(bytes);
	}

	#emit(): void {
		const before = PHASES.slice(0, PHASES.indexOf(this.#phase)).reduce((sum, p) => sum + this.#expected[p], 0);
		const done = before + this.#expected[this.#phase] * this.#phaseFraction;
		this.#fraction = Math.max(this.#fraction, done / this.#totalSeconds);
		const elapsedMs = this.#now() - this.#startedMs;
		// Until enough has happened, the expectation is all there is.
		const weight = Math.min(1, this.#fraction / 0.1);
		const measuredMs = this.#fraction > 0 ? (elapsedMs / this.#fraction) * (1 - this.#fraction) : 0;
		const expectedMs = (this.#totalSeconds - done) * 1000;
		this.#report({
			phase: this.#phase,
			stage: this.#stage,
			fraction: this.#fraction,
			etaMs: Math.round(weight * measuredMs + (1 - weight) * expectedMs),
			bytesPerSecond: this.#rate.bytesPerSecond(),
		});
	}
}

/** One line for a person. */
export function formatProgress({ stage, fraction, etaMs, bytesPerSecond }: Progress): string {
	const rate = bytesPerSecond === undefined ? "" : `, ${formatBytes(bytesPerSecond)}/s`;
	const eta = etaMs === undefined ? "" : `, ${formatDuration(etaMs)} left`;
	return `${String(Math.floor(fraction * 100)).padStart(3)} % ${stage}${rate}${eta}`;
}

/** "940 B", "12 kB", "1.3 MB", "240 MB". */
export function formatBytes(bytes: number): string {
	const units = ["B", "kB", "MB", "GB"];
	let value = bytes;
	let unit = 0;
	while (value >= 1000 && unit < units.length - 1) {
		value /= 1000;
		unit++;
	}
	return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** "45 s", "3 min 5 s". */
export function formatDuration(ms: number): string {
	const seconds = Math.max(1, Math.round(ms / 1000));
	return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/**
 * Shows progress on stderr: one line that is rewritten on a terminal, else a new line for each step and every
 * five percent.
 */
export function createProgressRenderer(out: { readonly isTTY?: boolean; write(text: string): unknown }): {
	show(progress: Progress): void;
	/** A line of text above the progress. */
	print(line: string): void;
	end(): void;
} {
	let last: { phase: string; twentieth: number } | undefined;
	let open = false;
	return {
		show(progress) {
			if (out.isTTY === true) {
				out.write(`\r\x1b[K${formatProgress(progress)}`);
				open = true;
				return;
			}
			const twentieth = Math.floor(progress.fraction * 20);
			if (last?.phase === progress.phase && last.twentieth === twentieth) return;
			last = { phase: progress.phase, twentieth };
			out.write(`${formatProgress(progress)}\n`);
		},
		print(line) {
			out.write(`${open ? "\r\x1b[K" : ""}${line}\n`);
			open = false;
		},
		end() {
			if (open) out.write("\r\x1b[K");
			open = false;
		},
	};
}

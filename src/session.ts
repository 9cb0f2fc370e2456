/** One server's machine: its image is loaded, or built, at the first call that needs it; all callers share both. */

import { SandboxError } from "./errors.js";
import type { Log } from "./log.js";
import type { Machine } from "./vm/machine.js";
import type { MachineImage } from "./vm/machine-image.js";

/** How far an image build has come. */
export interface BuildProgress {
	/** What is being done, in a few words. */
	readonly stage: string;
	/** 0..1 of the whole build. */
	readonly fraction: number;
	/** Time left, ms; undefined while there is nothing to tell it from. */
	readonly etaMs: number | undefined;
}

export interface ImageSource {
	readonly name: string;
	/** Throws SandboxError("image-missing") if the image is not there yet. */
	load(): Promise<MachineImage>;
	build(options: { signal: AbortSignal; onProgress: (progress: BuildProgress) => void }): Promise<MachineImage>;
}

export interface SessionOptions {
	readonly images: ImageSource;
	readonly createMachine: (image: MachineImage) => Machine;
	readonly log: Log;
	/** How long a call waits for a build, ms. Clients give up after 60 s. */
	readonly maxWaitMs?: number;
}

export interface WaitOptions {
	readonly signal: AbortSignal;
	readonly progress: ((message: string) => Promise<void>) | undefined;
}

const DEFAULT_MAX_WAIT_MS = 45_000;
const PROGRESS_INTERVAL_MS = 1_000;

export class Session {
	readonly #options: SessionOptions;
	readonly #ending = new AbortController();
	/** The machine, or the way to it; undefined before the first call and after a failure. */
	#machine: Promise<Machine> | undefined;
	#build: { readonly startedAt: number; progress: BuildProgress } | undefined;
	/** Callers that wait for the image at the moment: they learn of a failure themselves. */
	#waiting = 0;
	/** A build that failed while nobody waited: the next caller must hear of it. */
	#unheardFailure: unknown;

	constructor(options: SessionOptions) {
		this.#options = options;
	}

	/**
	 * The machine. Throws SandboxError("image-building") when its image is still being built after `maxWaitMs`;
	 * the build goes on and the next call waits for the same one.
	 */
	async machine(wait: WaitOptions): Promise<Machine> {
		if (this.#ending.signal.aborted) throw new SandboxError("cancelled", "the server is ending");
		if (this.#unheardFailure !== undefined) {
			const failure = this.#unheardFailure;
			this.#unheardFailure = undefined;
			throw failure;
		}
		this.#machine ??= this.#prepare();
		this.#waiting++;
		try {
			return await this.#waitFor(this.#machine, wait);
		} finally {
			this.#waiting--;
		}
	}

	/** Ends the machine, or the build; what was built so far stays for the next time. */
	async stop(): Promise<void> {
		this.#ending.abort();
		const machine = await this.#machine?.catch(() => undefined);
		await machine?.stop();
	}

	#prepare(): Promise<Machine> {
		const preparing = this.#loadOrBuild().then((image) => this.#options.createMachine(image));
		preparing.catch((error: unknown) => {
			this.#machine = undefined;
			if (this.#waiting === 0) this.#unheardFailure = error;
		});
		return preparing;
	}

	async #loadOrBuild(): Promise<MachineImage> {
		const { images, log } = this.#options;
		try {
			return await images.load();
		} catch (error) {
			if (!(error instanceof SandboxError) || error.code !== "image-missing") throw error;
		}
		log.warn(`image ${images.name} is not there yet: building it`);
		const build = {
			startedAt: performance.now(),
			progress: { stage: "starting", fraction: 0, etaMs: undefined } as BuildProgress,
		};
		this.#build = build;
		try {
			return await images.build({
				signal: this.#ending.signal,
				onProgress: (progress) => {
					build.progress = progress;
				},
			});
		} finally {
			this.#build = undefined;
		}
	}

	/** Waits, and says meanwhile how the build comes along. */
	async #waitFor(machine: Promise<Machine>, { signal, progress }: WaitOptions): Promise<Machine> {
		const maxWaitMs = this.#options.maxWaitMs ?? DEFAULT_MAX_WAIT_MS;
		const stopped = new AbortController();
		const report = setInterval(() => {
			if (this.#build !== undefined) progress?.(this.#describeBuild()).catch(() => {});
		}, PROGRESS_INTERVAL_MS);
		const patience = setTimeout(() => stopped.abort(this.#stillBuilding(maxWaitMs)), maxWaitMs);
		const cancel = () => stopped.abort(new SandboxError("cancelled", "the call was cancelled"));
		signal.addEventListener("abort", cancel);
		if (signal.aborted) cancel();
		try {
			return await Promise.race([machine, rejection(stopped.signal)]);
		} finally {
			clearInterval(report);
			clearTimeout(patience);
			signal.removeEventListener("abort", cancel);
		}
	}

	#describeBuild(): string {
		const build = this.#build;
		if (build === undefined) return `image ${this.#options.images.name} is being loaded`;
		const { stage, fraction, etaMs } = build.progress;
		const elapsed = seconds(performance.now() - build.startedAt);
		const left = etaMs === undefined ? "time left not known yet" : `about ${seconds(etaMs)} left`;
		return `image ${this.#options.images.name} is being built: ${Math.floor(fraction * 100)} % after ${elapsed}, ${left} (${stage})`;
	}

	#stillBuilding(waitedMs: number): SandboxError {
		return new SandboxError(
			"image-building",
			`${this.#describeBuild()}; this call waited ${seconds(waitedMs)} and did nothing`,
			"the build goes on by itself: make the same call again, it waits for the same build; this happens only once for an image",
		);
	}
}

function rejection(signal: AbortSignal): Promise<never> {
	return new Promise((_, reject) => {
		const fail = () => reject(signal.reason);
		if (signal.aborted) fail();
		else signal.addEventListener("abort", fail);
	});
}

function seconds(ms: number): string {
	return `${Math.round(ms / 1000)} s`;
}

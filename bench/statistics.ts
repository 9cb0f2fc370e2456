/** Figures of several runs: the machines are shared and noisy, so a median is what counts. */

export function percentile(values: readonly number[], fraction: number): number {
	const sorted = [...values].sort((a, b) => a - b);
	const at = Math.min(sorted.length - 1, Math.floor(sorted.length * fraction));
	return sorted[at] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
	return percentile(values, 0.5);
}

/** Milliseconds that `work` takes. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
	const started = performance.now();
	await work();
	return performance.now() - started;
}

/** `runs` times `work`, one after the other. */
export async function series(runs: number, work: (run: number) => Promise<number>): Promise<number[]> {
	const values: number[] = [];
	for (let run = 0; run < runs; run++) values.push(await work(run));
	return values;
}

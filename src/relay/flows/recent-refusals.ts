/** Refusals that are remembered. */
const MAX_REMEMBERED = 256;
const REPEATED_MS = 1000;

/** Tells a refusal from its repetitions: a program that knocks at a closed door all day is one line per second. */
export class RecentRefusals {
	/** The oldest first. */
	readonly #sinceMs = new Map<string, number>();

	isRepeated(key: string, nowMs: number): boolean {
		const since = this.#sinceMs.get(key);
		if (since !== undefined && nowMs - since < REPEATED_MS) return true;
		this.#sinceMs.delete(key);
		this.#sinceMs.set(key, nowMs);
		if (this.#sinceMs.size <= MAX_REMEMBERED) return false;
		for (const oldest of this.#sinceMs.keys()) {
			this.#sinceMs.delete(oldest);
			break;
		}
		return false;
	}
}

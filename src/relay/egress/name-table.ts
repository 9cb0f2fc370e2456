import type { Ipv4 } from "../addresses.js";
import type { Clock } from "../clock.js";
import { DNS_MAX_REMEMBERED_MS, DNS_MIN_REMEMBERED_MS, MAX_REMEMBERED_NAMES } from "../limits.js";

/**
 * Which names the machine was told to have which addresses. A pair is remembered for the answer's time to live, and at
 * least for an hour, as programs keep addresses longer than they may. The oldest pairs make room.
 */
export class NameTable {
	readonly #clock: Pick<Clock, "nowMs">;
	readonly #maxPairs: number;
	/** By address, then name: when to forget it, ms. The names stand in the order in which they were recorded. */
	readonly #names = new Map<Ipv4, Map<string, number>>();
	/** All pairs, the oldest first. */
	readonly #pairs = new Map<string, readonly [Ipv4, string]>();

	constructor(clock: Pick<Clock, "nowMs">, maxPairs: number = MAX_REMEMBERED_NAMES) {
		this.#clock = clock;
		this.#maxPairs = maxPairs;
	}

	/** Pairs of a name and an address. */
	get size(): number {
		return this.#pairs.size;
	}

	/** `name` in lower case, without a dot at its end. */
	record(name: string, address: Ipv4, timeToLiveSeconds: number): void {
		this.#delete(address, name);
		const keepMs = Math.min(Math.max(timeToLiveSeconds * 1000, DNS_MIN_REMEMBERED_MS), DNS_MAX_REMEMBERED_MS);
		let names = this.#names.get(address);
		if (names === undefined) {
			names = new Map();
			this.#names.set(address, names);
		}
		names.set(name, this.#clock.nowMs() + keepMs);
		this.#pairs.set(pairKey(address, name), [address, name]);
		if (this.#pairs.size <= this.#maxPairs) return;
		for (const [oldestAddress, oldestName] of this.#pairs.values()) {
			this.#delete(oldestAddress, oldestName);
			break;
		}
	}

	/** The latest answer's name comes first. */
	namesOf(address: Ipv4): string[] {
		const names = this.#names.get(address);
		if (names === undefined) return [];
		const nowMs = this.#clock.nowMs();
		const live: string[] = [];
		for (const [name, untilMs] of [...names]) {
			if (untilMs > nowMs) live.push(name);
			else this.#delete(address, name);
		}
		return live.reverse();
	}

	#delete(address: Ipv4, name: string): void {
		if (!this.#pairs.delete(pairKey(address, name))) return;
		const names = this.#names.get(address);
		names?.delete(name);
		if (names?.size === 0) this.#names.delete(address);
	}
}

function pairKey(address: Ipv4, name: string): string {
	return `${address} ${name}`;
}

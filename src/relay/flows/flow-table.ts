import type { Ipv4 } from "../addresses.js";

/** The three numbers that tell one machine's flows apart: its own address is always the same. */
export interface FlowKey {
	readonly guestPort: number;
	readonly remoteAddress: Ipv4;
	readonly remotePort: number;
}

/** An address and a port as one number (48 bits). */
export function endpointKey(address: Ipv4, port: number): number {
	return address * 0x10000 + port;
}

/** Flows by their key: two looks into a Map of numbers, nothing allocated to find one. */
export class FlowTable<T extends FlowKey> {
	readonly #byRemote = new Map<number, Map<number, T>>();
	#size = 0;

	get size(): number {
		return this.#size;
	}

	get(guestPort: number, remoteAddress: Ipv4, remotePort: number): T | undefined {
		return this.#byRemote.get(endpointKey(remoteAddress, remotePort))?.get(guestPort);
	}

	/** The key must be free. */
	add(flow: T): void {
		const key = endpointKey(flow.remoteAddress, flow.remotePort);
		let flows = this.#byRemote.get(key);
		if (flows === undefined) {
			flows = new Map();
			this.#byRemote.set(key, flows);
		}
		flows.set(flow.guestPort, flow);
		this.#size += 1;
	}

	/** Only if it is this flow that stands there. */
	delete(flow: T): void {
		const key = endpointKey(flow.remoteAddress, flow.remotePort);
		const flows = this.#byRemote.get(key);
		if (flows?.get(flow.guestPort) !== flow) return;
		flows.delete(flow.guestPort);
		if (flows.size === 0) this.#byRemote.delete(key);
		this.#size -= 1;
	}

	*values(): Generator<T> {
		for (const flows of this.#byRemote.values()) yield* flows.values();
	}
}

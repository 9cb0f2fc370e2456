import { describeError, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import type { Forward, ForwardProtocol } from "./forwards.js";
import type { Network } from "./network.js";

export interface ForwardRequest {
	/** 0: any free one. */
	readonly hostPort: number;
	readonly guestPort: number;
	readonly protocol: ForwardProtocol;
}

/**
 * The forwards of named machines. A forward ends with its machine's network, as flows do, and is opened anew on the same
 * host port when the machine connects again.
 */
export class KeptForwards {
	readonly #log: Log;
	readonly #machines = new Map<string, Set<KeptForward>>();

	constructor(log: Log) {
		this.#log = log;
	}

	of(machine: string): readonly Forward[] {
		return [...(this.#machines.get(machine) ?? [])];
	}

	async open(machine: string, network: Network | undefined, request: ForwardRequest): Promise<Forward> {
		if (network === undefined) {
			throw new SandboxError("not-found", `machine ${machine} is not connected to the relay`, "Start it first.");
		}
		const { hostPort, guestPort, protocol } = request;
		const live = await network.forward(hostPort, guestPort, protocol);
		const kept = this.#machines.get(machine) ?? new Set();
		const forward = new KeptForward(live, () => {
			kept.delete(forward);
			if (kept.size === 0) this.#machines.delete(machine);
		});
		kept.add(forward);
		this.#machines.set(machine, kept);
		return forward;
	}

	/** The machine has a new network. */
	attach(machine: string, network: Network): void {
		for (const forward of this.#machines.get(machine) ?? []) {
			forward.attach(network).catch((error: unknown) => {
				this.#log.warn(
					`the forward of port ${forward.hostPort} to port ${forward.guestPort} of ${machine} is lost: ${describeError(error)}`,
				);
				forward.close();
			});
		}
	}
}

class KeptForward implements Forward {
	readonly protocol: ForwardProtocol;
	readonly hostPort: number;
	readonly guestPort: number;
	readonly url: string;
	readonly #onClose: () => void;
	#live: Forward;
	#isClosed = false;

	constructor(live: Forward, onClose: () => void) {
		this.protocol = live.protocol;
		this.hostPort = live.hostPort;
		this.guestPort = live.guestPort;
		this.url = live.url;
		this.#live = live;
		this.#onClose = onClose;
	}

	async attach(network: Network): Promise<void> {
		this.#live.close();
		const live = await network.forward(this.hostPort, this.guestPort, this.protocol);
		if (this.#isClosed) live.close();
		else this.#live = live;
	}

	close(): void {
		if (this.#isClosed) return;
		this.#isClosed = true;
		this.#live.close();
		this.#onClose();
	}
}

/** What the owner of a machine is told of flows that the host opens. */
export interface InboundEvents {
	/** A flow is about to be opened towards the guest; it waits until this resolves (the machine may have to wake). A rejection refuses it. */
	readonly onInbound?: (guestPort: number) => Promise<void>;
	/** The last live inbound flow is over. */
	readonly onInboundIdle?: () => void;
}

/** Counts the live inbound flows, those included that wait for the machine. */
export class InboundFlows {
	readonly #events: InboundEvents;
	#live = 0;

	constructor(events: InboundEvents) {
		this.#events = events;
	}

	get live(): number {
		return this.#live;
	}

	/** Counts one more, and resolves when the guest can be spoken to. Whoever entered must leave once, also after a rejection. */
	async enter(guestPort: number): Promise<void> {
		this.#live += 1;
		await this.#events.onInbound?.(guestPort);
	}

	leave(): void {
		this.#live -= 1;
		if (this.#live === 0) this.#events.onInboundIdle?.();
	}
}

import type { NameCheck, NameCheckResult } from "../egress/name-check.js";
import type { FarEnd } from "./far-end.js";

const NOTHING = new Uint8Array(0);

/** What the check of a flow's name comes to. */
export interface NameCheckEvents {
	/** The guest's bytes go out from now on. */
	passed(name: string | undefined): void;
	/** Nothing of what the guest said has gone out, nor will; the flow is to be ended. */
	refused(rule: string, name: string | undefined): void;
}

/** A far end that holds the guest's first bytes back until the name in them is known to be allowed. What comes back passes. */
export class NameCheckedEnd implements FarEnd {
	readonly #far: FarEnd;
	readonly #check: NameCheck;
	readonly #events: NameCheckEvents;
	#held: Uint8Array = NOTHING;
	#arrived: Uint8Array[] = [];
	#state: "holding" | "passed" | "refused" = "holding";

	constructor(far: FarEnd, check: NameCheck, events: NameCheckEvents) {
		this.#far = far;
		this.#check = check;
		this.#events = events;
	}

	get bufferedBytes(): number {
		return this.#held.length + this.#far.bufferedBytes;
	}

	get open(): boolean {
		return this.#far.open;
	}

	write(bytes: Uint8Array): void {
		if (this.#state === "passed") this.#far.write(bytes);
		else if (this.#state === "holding") this.#arrived.push(bytes);
	}

	flush(): void {
		if (this.#state === "holding" && this.#arrived.length > 0) this.#inspect();
		if (this.#state === "passed") this.#far.flush();
	}

	/** A name that is cut short is none. */
	end(): void {
		this.flush();
		if (this.#state === "holding" && this.#held.length > 0) this.#refuse("unreadable name", undefined);
		else if (this.#state !== "refused") this.#far.end();
	}

	pause(): void {
		this.#far.pause();
	}

	resume(): void {
		this.#far.resume();
	}

	close(reset: boolean): void {
		if (this.#state === "holding") this.#state = "refused";
		this.#drop();
		this.#far.close(reset);
	}

	#inspect(): void {
		this.#held = Buffer.concat([this.#held, ...this.#arrived]);
		this.#arrived = [];
		const result: NameCheckResult = this.#check.inspect(this.#held);
		switch (result.kind) {
			case "need-more":
				return;
			case "pass": {
				const held = this.#held;
				this.#drop();
				this.#state = "passed";
				this.#events.passed(result.name);
				this.#far.write(held);
				return;
			}
			case "refused":
				this.#refuse(result.verdict.rule, result.verdict.name);
		}
	}

	#refuse(rule: string, name: string | undefined): void {
		this.#state = "refused";
		this.#drop();
		this.#events.refused(rule, name);
	}

	#drop(): void {
		this.#held = NOTHING;
		this.#arrived = [];
	}
}

import { DNS_TCP_MAX_OUTSTANDING, DNS_TCP_MAX_QUERY_BYTES } from "../limits.js";
import { readUint16, writeUint16 } from "../wire/bytes.js";
import type { FarEnd, FarEndEvents } from "./far-end.js";

/** Each message is preceded by its length, two bytes (RFC 1035 4.2.2). */
const PREFIX_BYTES = 2;

/** Answers one DNS query; undefined: it deserves no answer. */
export type AnswerDns = (query: Uint8Array, via: "udp" | "tcp") => Promise<Uint8Array | undefined>;

/** The resolver as a flow's far end: DNS over TCP (RFC 7766), answers in the order in which they are ready. */
export class DnsEnd implements FarEnd {
	readonly #answer: AnswerDns;
	readonly #events: FarEndEvents;
	/** A message that has not arrived whole, or that waits for its turn. */
	#received: Uint8Array = new Uint8Array(0);
	#outstanding = 0;
	#paused = false;
	#ending = false;
	#open = true;

	constructor(answer: AnswerDns, events: FarEndEvents) {
		this.#answer = answer;
		this.#events = events;
	}

	get bufferedBytes(): number {
		return this.#received.length;
	}

	get open(): boolean {
		return this.#open;
	}

	write(bytes: Uint8Array): void {
		if (this.#open) this.#received = Buffer.concat([this.#received, bytes]);
	}

	flush(): void {
		while (this.#mayAsk()) {
			const queryBytes = readUint16(this.#received, 0);
			if (queryBytes > DNS_TCP_MAX_QUERY_BYTES) {
				this.#events.farFailed("DNS query too long");
				return;
			}
			const end = PREFIX_BYTES + queryBytes;
			if (this.#received.length < end) break;
			const query = this.#received.subarray(PREFIX_BYTES, end);
			this.#received = this.#received.subarray(end);
			this.#ask(query);
		}
		if (this.#ending && this.#open && this.#outstanding === 0) this.#events.farEnded();
	}

	/** What was asked is still answered (RFC 7766 6.2.1.1). */
	end(): void {
		this.#ending = true;
		this.flush();
	}

	/** A guest that does not read its answers gets no more questions asked. */
	pause(): void {
		this.#paused = true;
	}

	resume(): void {
		this.#paused = false;
		this.flush();
	}

	close(): void {
		this.#open = false;
		this.#received = new Uint8Array(0);
	}

	#mayAsk(): boolean {
		if (!this.#open || this.#paused || this.#outstanding >= DNS_TCP_MAX_OUTSTANDING) return false;
		return this.#received.length >= PREFIX_BYTES;
	}

	#ask(query: Uint8Array): void {
		this.#outstanding += 1;
		this.#answer(query, "tcp").then(
			(answer) => this.#answered(answer),
			(error: unknown) => this.#answered(undefined, String(error)),
		);
	}

	#answered(answer: Uint8Array | undefined, failure = "not a DNS query"): void {
		this.#outstanding -= 1;
		if (!this.#open) return;
		if (answer === undefined) {
			this.#events.farFailed(failure);
			return;
		}
		const message = new Uint8Array(PREFIX_BYTES + answer.length);
		writeUint16(message, 0, answer.length);
		message.set(answer, PREFIX_BYTES);
		this.#events.farData(message);
		this.flush();
		this.#events.farDrained();
	}
}

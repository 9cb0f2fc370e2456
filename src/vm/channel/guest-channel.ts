/**
 * The host's end of the guest channel: calls in flight, credits both ways, epochs (docs/guest-channel.md).
 * Pure: bytes come in through `receive`, go out through `sendInput`; no timers, no I/O.
 */

import type { Parsed } from "../../parsed.js";
import { type Frame, GuestFrame, HostFrame, MAX_PAYLOAD_BYTES, parseFrame, serializeFrame } from "./frame.js";
import {
	type Failure,
	type Hello,
	parseCount,
	parseFailure,
	parseHello,
	serializeCredit,
	serializeReset,
	serializeWake,
} from "./messages.js";

/** A piece fills one receive buffer of the guest (a page). */
export const PIECE_BYTES = 4096;

const OUTPUT_CREDIT_BYTES = 1024 * 1024;
/** Credit is handed back in portions of at least this size. */
const CREDIT_PORTION_BYTES = 256 * 1024;
/** `write` asks its caller to wait when more than this is unsent. */
const OUTBOX_HIGH_BYTES = 256 * 1024;

export interface ChannelOptions {
	/** Sends bytes to the guest's port; the receiver cuts them into pieces of PIECE_BYTES. */
	readonly sendInput: (bytes: Uint8Array) => void;
	/** Pieces that may be unread by the guest. */
	readonly windowPieces: number;
	/** Processes that commands left running, whenever it becomes zero or non-zero. */
	readonly onBusy: (processes: number) => void;
	/** The guest started anew without being asked (epoch 0): it has booted. */
	readonly onBoot: () => void;
	/** The guest broke the protocol. */
	readonly onViolation: (reason: string) => void;
}

export interface CallHandlers {
	/**
	 * Output as it arrives; the bytes are the handler's to keep. The guest may send as much again once the handler has
	 * returned, or its promise has resolved.
	 */
	readonly onOutput?: (stream: "stdout" | "stderr", bytes: Uint8Array) => Promise<void> | void;
}

/** The guest refused a call: errno and its words. */
export class GuestCallError extends Error {
	readonly errno: number;
	constructor(failure: Failure) {
		super(failure.message);
		this.name = "GuestCallError";
		this.errno = failure.errno;
	}
}

interface OpenCall {
	readonly handlers: CallHandlers;
	readonly resolve: (payload: Uint8Array) => void;
	readonly reject: (error: Error) => void;
}

export interface GuestCall {
	/** The DONE payload; rejects with GuestCallError, or with what `fail` was given. */
	readonly done: Promise<Uint8Array>;
	/** Queues input; resolves when more may follow. */
	write(bytes: Uint8Array): Promise<void>;
	/** Says that the input is complete. */
	end(): void;
	cancel(): void;
}

export interface Clock {
	/** Microseconds since 1970. */
	readonly wallClockMicros: bigint;
	/** Fresh randomness for the guest's pool. */
	readonly seed: Uint8Array;
}

interface PendingReset {
	readonly epoch: number;
	readonly resolve: (hello: Hello) => void;
	readonly reject: (error: Error) => void;
}

export class GuestChannel {
	readonly #options: ChannelOptions;
	#epoch = 0;
	#pendingReset: PendingReset | undefined;
	#established = false;
	#failure: Error | undefined;
	#nextCall = 1;
	readonly #calls = new Map<number, OpenCall>();

	#outbox: Uint8Array[] = [];
	#outboxBytes = 0;
	#flushQueued = false;
	#held = false;
	#sentPieces = 0;
	#consumedPieces = 0;
	#creditOwed = 0;
	/** Woken whenever the outbox shrinks, a piece is consumed, or the channel fails. */
	#progressWaiters: (() => void)[] = [];

	constructor(options: ChannelOptions) {
		this.#options = options;
	}

	/** Bytes queued but not yet sent; for tests and limits. */
	get queuedBytes(): number {
		return this.#outboxBytes;
	}

	/** Starts a new epoch: open calls are rejected with `reason`, credits start afresh. Resolves with the guest's HELLO. */
	reset(clock: Clock, reason: Error): Promise<Hello> {
		this.#rejectAll(reason);
		this.#epoch = (this.#epoch + 1) >>> 0 || 1;
		this.#established = false;
		this.#outbox = [];
		this.#outboxBytes = 0;
		this.#held = false;
		this.#sentPieces = 1;
		this.#consumedPieces = 0;
		this.#creditOwed = 0;
		this.#wakeWaiters();
		const epoch = this.#epoch;
		return new Promise<Hello>((resolve, reject) => {
			this.#pendingReset = { epoch, resolve, reject };
			const payload = serializeReset({ ...clock, outputCredit: OUTPUT_CREDIT_BYTES });
			this.#options.sendInput(serializeFrame(HostFrame.reset, epoch, payload));
		});
	}

	/** Sets the guest's clock and reseeds its random pool, before anything that is sent later. */
	wake(clock: Clock): void {
		this.#queue(HostFrame.wake, 0, serializeWake(clock));
	}

	/** Opens a call with an op's arguments (see messages.ts). */
	open(args: Uint8Array, handlers: CallHandlers = {}): GuestCall {
		const id = this.#nextCall;
		this.#nextCall = (this.#nextCall + 1) >>> 0 || 1;
		const done = new Promise<Uint8Array>((resolve, reject) => {
			if (this.#failure !== undefined) reject(this.#failure);
			else this.#calls.set(id, { handlers, resolve, reject });
		});
		this.#queue(HostFrame.open, id, args);
		return {
			done,
			write: (bytes) => this.#write(id, bytes),
			end: () => this.#queueIfOpen(HostFrame.end, id),
			cancel: () => this.#queueIfOpen(HostFrame.cancel, id),
		};
	}

	/** One event of the guest's port: exactly one frame. */
	receive(bytes: Uint8Array): void {
		const parsed = parseFrame(bytes);
		if (!parsed.ok) {
			this.#options.onViolation(parsed.reason);
			return;
		}
		this.#handle(parsed.value);
	}

	/**
	 * Stops sending and resolves when the guest has read every piece sent and no frame is half-sent, so that its memory
	 * holds a clean channel. `release` goes on.
	 */
	async hold(): Promise<void> {
		while (!this.#drained()) {
			if (this.#failure !== undefined) throw this.#failure;
			await this.#progress();
		}
		this.#held = true;
	}

	release(): void {
		this.#held = false;
		this.#flush();
	}

	/** Ends everything: the guest or its process is gone. */
	fail(error: Error): void {
		this.#failure ??= error;
		this.#rejectAll(error);
		this.#pendingReset?.reject(error);
		this.#pendingReset = undefined;
		this.#wakeWaiters();
	}

	#handle(frame: Frame): void {
		if (frame.type === GuestFrame.hello) {
			this.#handleHello(frame);
			return;
		}
		if (!this.#established) return;
		this.#takeCount(frame.consumed);
		switch (frame.type) {
			case GuestFrame.out:
			case GuestFrame.err:
				this.#handleOutput(frame);
				return;
			case GuestFrame.done:
				this.#take(frame.call)?.resolve(frame.payload);
				return;
			case GuestFrame.fail:
				this.#handleFailure(frame);
				return;
			case GuestFrame.consumed:
				return;
			case GuestFrame.busy:
				this.#accept(parseCount(frame.payload), this.#options.onBusy);
				return;
			default:
				this.#options.onViolation(`unknown frame type 0x${frame.type.toString(16)}`);
		}
	}

	#handleHello(frame: Frame): void {
		if (frame.call === 0) {
			this.#options.onBoot();
			return;
		}
		const pending = this.#pendingReset;
		if (pending === undefined || pending.epoch !== frame.call) return;
		this.#accept(parseHello(frame.payload), (hello) => {
			this.#pendingReset = undefined;
			this.#established = true;
			this.#consumedPieces = 1;
			pending.resolve(hello);
			this.#wakeWaiters();
			this.#flush();
		});
	}

	#handleOutput(frame: Frame): void {
		const stream = frame.type === GuestFrame.out ? "stdout" : "stderr";
		const taken = this.#calls.get(frame.call)?.handlers.onOutput?.(stream, frame.payload);
		if (taken === undefined) {
			this.#giveCredit(frame.payload.length);
			return;
		}
		const epoch = this.#epoch;
		const settle = () => {
			if (epoch === this.#epoch) this.#giveCredit(frame.payload.length);
		};
		taken.then(settle, settle);
	}

	#giveCredit(bytes: number): void {
		this.#creditOwed += bytes;
		if (this.#creditOwed < CREDIT_PORTION_BYTES) return;
		this.#queue(HostFrame.credit, 0, serializeCredit(this.#creditOwed));
		this.#creditOwed = 0;
	}

	#handleFailure(frame: Frame): void {
		const call = this.#take(frame.call);
		if (call === undefined) return;
		const failure = parseFailure(frame.payload);
		call.reject(failure.ok ? new GuestCallError(failure.value) : new Error(failure.reason));
	}

	/** Every frame says how many pieces the guest has read so far. */
	#takeCount(pieces: number): void {
		if (pieces === this.#consumedPieces) return;
		if (pieces > this.#sentPieces || pieces < this.#consumedPieces) {
			this.#options.onViolation(`the guest read ${pieces} pieces, ${this.#sentPieces} were sent`);
			return;
		}
		this.#consumedPieces = pieces;
		this.#flush();
		this.#wakeWaiters();
	}

	#accept<T>(parsed: Parsed<T>, use: (value: T) => void): void {
		if (parsed.ok) use(parsed.value);
		else this.#options.onViolation(parsed.reason);
	}

	async #write(id: number, bytes: Uint8Array): Promise<void> {
		for (let at = 0; at < bytes.length; at += MAX_PAYLOAD_BYTES) {
			while (this.#calls.has(id) && this.#outboxBytes > OUTBOX_HIGH_BYTES) await this.#progress();
			if (!this.#calls.has(id)) return;
			this.#queue(HostFrame.data, id, bytes.subarray(at, at + MAX_PAYLOAD_BYTES));
		}
	}

	#queueIfOpen(type: number, id: number): void {
		if (this.#calls.has(id)) this.#queue(type, id, new Uint8Array(0));
	}

	#queue(type: number, call: number, payload: Uint8Array): void {
		if (this.#failure !== undefined) return;
		const frame = serializeFrame(type, call, payload);
		this.#outbox.push(frame);
		this.#outboxBytes += frame.length;
		if (this.#flushQueued) return;
		this.#flushQueued = true;
		queueMicrotask(() => {
			this.#flushQueued = false;
			this.#flush();
		});
	}

	/** Sends as much of the outbox as the window allows, in one go. */
	#flush(): void {
		if (!this.#established || this.#held || this.#failure !== undefined || this.#outboxBytes === 0) return;
		const freePieces = this.#options.windowPieces - (this.#sentPieces - this.#consumedPieces);
		if (freePieces <= 0) return;
		const bytes = this.#takeOutbox(Math.min(this.#outboxBytes, freePieces * PIECE_BYTES));
		this.#sentPieces += Math.ceil(bytes.length / PIECE_BYTES);
		this.#options.sendInput(bytes);
		this.#wakeWaiters();
	}

	#takeOutbox(size: number): Uint8Array {
		const taken = new Uint8Array(size);
		let at = 0;
		while (at < size) {
			const first = this.#outbox[0];
			if (first === undefined) break;
			const part = first.subarray(0, size - at);
			taken.set(part, at);
			at += part.length;
			if (part.length === first.length) this.#outbox.shift();
			else this.#outbox[0] = first.subarray(part.length);
		}
		this.#outboxBytes -= size;
		return taken;
	}

	#drained(): boolean {
		return this.#established && this.#outboxBytes === 0 && this.#sentPieces === this.#consumedPieces;
	}

	#take(id: number): OpenCall | undefined {
		const call = this.#calls.get(id);
		this.#calls.delete(id);
		return call;
	}

	#rejectAll(error: Error): void {
		for (const call of this.#calls.values()) call.reject(error);
		this.#calls.clear();
	}

	#progress(): Promise<void> {
		return new Promise((resolve) => this.#progressWaiters.push(resolve));
	}

	#wakeWaiters(): void {
		const waiters = this.#progressWaiters;
		this.#progressWaiters = [];
		for (const wake of waiters) wake();
	}
}

/** The machine's end of the wire to its relay: whole frames, back-pressure towards the relay, nothing held without bound. */

import type { Socket } from "node:net";
import { WebSocket } from "ws";

/** Frames of the guest that wait for the socket, bytes; beyond that they are dropped, as a full wire would. */
const MAX_UNSENT_BYTES = 8 * 1024 * 1024;
/** Frames that wait for the guest's buffers; from here on the relay is made to wait. */
const MAX_UNDELIVERED_BYTES = 1024 * 1024;
/** The guest's card tells nobody when it has buffers again: it is asked this often while frames wait, ms. */
const RETRY_MS = 1;
const RECONNECT_MS = 1_000;
const OPEN_MS = 2_000;
/** An IPv4 packet of 65,535 bytes behind an Ethernet header of 14. */
const MAX_FRAME_BYTES = 65_549;

/** v86's own adapters use the platform's WebSocket, which Node has from version 22 on. */
export function provideWebSocket(): void {
	const platform = globalThis as { WebSocket?: unknown };
	platform.WebSocket ??= WebSocket;
}

/** Takes frames for the guest; tells how many of them it took. */
export type Deliver = (frames: readonly Uint8Array[]) => number;

export class NetworkLink {
	readonly #url: string;
	#deliver: Deliver = () => 0;
	#socket: WebSocket | undefined;
	/** What is under it, once it is open. */
	#wire: Socket | undefined;
	#isCorked = false;
	#waiting: Uint8Array[] = [];
	#waitingBytes = 0;
	#isScheduled = false;
	/** The guest stands still: what arrives waits. */
	#isPaused = true;

	constructor(url: string) {
		this.#url = url;
		this.#connect();
	}

	/** Where frames for the guest go from now on. */
	attach(deliver: Deliver): void {
		this.#deliver = deliver;
	}

	/** Resolves when the relay is there, or has not come in time: the guest then starts without. */
	async opened(): Promise<void> {
		const socket = this.#socket;
		if (socket === undefined || socket.readyState !== WebSocket.CONNECTING) return;
		await new Promise<void>((resolve) => {
			const timer = setTimeout(resolve, OPEN_MS);
			for (const event of ["open", "close"]) {
				socket.once(event, () => {
					clearTimeout(timer);
					resolve();
				});
			}
		});
	}

	/** Sends a frame of the guest, or drops it when the relay is away or slow. */
	send(frame: Uint8Array): void {
		const socket = this.#socket;
		if (socket?.readyState !== WebSocket.OPEN || socket.bufferedAmount > MAX_UNSENT_BYTES) return;
		this.#cork();
		socket.send(frame, { binary: true });
		if (this.#waiting.length > 0) this.#schedule();
	}

	/** All frames that the guest sends before the emulator next rests go out in one write. */
	#cork(): void {
		const wire = this.#wire;
		if (this.#isCorked || wire === undefined) return;
		this.#isCorked = true;
		wire.cork();
		setImmediate(() => {
			this.#isCorked = false;
			wire.uncork();
		});
	}

	pause(): void {
		this.#isPaused = true;
	}

	resume(): void {
		this.#isPaused = false;
		if (this.#waiting.length > 0) this.#schedule();
	}

	/** Drops the frames that wait for a guest that is being replaced. */
	forget(): void {
		this.#waiting = [];
		this.#waitingBytes = 0;
		this.#socket?.resume();
	}

	#connect(): void {
		const socket = new WebSocket(this.#url, {
			perMessageDeflate: false,
			maxPayload: MAX_FRAME_BYTES,
			skipUTF8Validation: true,
			// Masks protect proxies from web pages; with zeros neither side touches the bytes (RFC 6455 5.3).
			generateMask: (mask) => mask.fill(0),
		});
		this.#socket = socket;
		socket.on("message", (data, isBinary) => {
			if (isBinary) this.#receive(data as Uint8Array);
		});
		socket.on("upgrade", (response) => {
			this.#wire = response.socket;
		});
		// "close" follows every error.
		socket.on("error", () => {});
		socket.on("close", () => {
			this.#socket = undefined;
			this.#wire = undefined;
			setTimeout(() => this.#connect(), RECONNECT_MS).unref();
		});
	}

	#receive(frame: Uint8Array): void {
		this.#waiting.push(frame);
		this.#waitingBytes += frame.length;
		if (this.#waitingBytes > MAX_UNDELIVERED_BYTES) this.#socket?.pause();
		this.#schedule();
	}

	/** Once for all frames that arrive together. */
	#schedule(): void {
		if (this.#isScheduled || this.#isPaused) return;
		this.#isScheduled = true;
		setImmediate(() => this.#flush());
	}

	#flush(): void {
		this.#isScheduled = false;
		if (this.#isPaused) return;
		const taken = this.#deliver(this.#waiting);
		for (let i = 0; i < taken; i++) this.#waitingBytes -= this.#waiting[i]?.length ?? 0;
		this.#waiting = this.#waiting.slice(taken);
		if (this.#waitingBytes <= MAX_UNDELIVERED_BYTES / 2) this.#socket?.resume();
		if (this.#waiting.length === 0) return;
		this.#isScheduled = true;
		setTimeout(() => this.#flush(), RETRY_MS);
	}
}

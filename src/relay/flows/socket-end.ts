import type { Socket } from "node:net";
import { CHUNK_BYTES, returnChunk, takeChunk } from "./chunk-pool.js";
import type { FarEnd, FarEndEvents } from "./far-end.js";

/** From here on a lone payload is written as it is: copying it would cost more than the memory that it keeps alive. */
const DIRECT_BYTES = 16_384;

/**
 * A connected host socket as a flow's far end. Small payloads are gathered into chunks, so that a slow host and a guest
 * that sends single bytes cost no more than the bytes: one write at a time is with the socket, the rest waits here.
 */
export class SocketEnd implements FarEnd {
	readonly #socket: Socket;
	readonly #events: FarEndEvents;
	/** Filled chunks that wait for the write before them. */
	readonly #full: Uint8Array[] = [];
	#chunk: Uint8Array | undefined;
	/** The chunk's bytes from #start to #used are not written yet. */
	#start = 0;
	#used = 0;
	#pendingBytes = 0;
	#writing = false;
	#ending = false;
	#open = true;

	/** A socket with half-open ends allowed, connected or connecting. Nothing is read from it before resume(). */
	constructor(socket: Socket, events: FarEndEvents) {
		this.#socket = socket;
		this.#events = events;
		socket.pause();
		socket.on("data", (bytes: Buffer) => events.farData(bytes));
		socket.on("end", () => events.farEnded());
		socket.on("error", (error: NodeJS.ErrnoException) => events.farFailed(error.code ?? error.message));
		socket.on("close", () => {
			this.#open = false;
			this.#dropBuffers();
			events.farGone();
		});
	}

	get bufferedBytes(): number {
		return this.#pendingBytes + this.#socket.writableLength;
	}

	get open(): boolean {
		return this.#open;
	}

	write(bytes: Uint8Array): void {
		if (!this.#open || this.#ending) return;
		if (bytes.length >= DIRECT_BYTES && !this.#writing && this.#pendingBytes === 0) {
			this.#submit(bytes);
			return;
		}
		this.#pendingBytes += bytes.length;
		for (let at = 0; at < bytes.length; ) {
			if (this.#chunk === undefined || this.#used === CHUNK_BYTES) this.#nextChunk();
			const chunk = this.#chunk;
			if (chunk === undefined) return;
			const count = Math.min(bytes.length - at, CHUNK_BYTES - this.#used);
			chunk.set(count === bytes.length ? bytes : bytes.subarray(at, at + count), this.#used);
			this.#used += count;
			at += count;
		}
	}

	flush(): void {
		if (this.#writing || this.#pendingBytes === 0 || !this.#open) return;
		const first = this.#full.shift();
		if (first !== undefined) {
			this.#pendingBytes -= first.length;
			this.#submit(first);
			return;
		}
		if (this.#chunk === undefined) return;
		const rest = this.#chunk.subarray(this.#start, this.#used);
		this.#start = this.#used;
		this.#pendingBytes -= rest.length;
		this.#submit(rest);
	}

	end(): void {
		if (this.#ending) return;
		this.#ending = true;
		this.flush();
		if (!this.#writing) this.#socket.end();
	}

	pause(): void {
		this.#socket.pause();
	}

	resume(): void {
		if (this.#open) this.#socket.resume();
	}

	close(reset: boolean): void {
		if (!this.#open) return;
		if (reset) {
			// resetAndDestroy would wait for a connection that is not made yet.
			if (this.#socket.connecting) this.#socket.destroy();
			else this.#socket.resetAndDestroy();
			this.#dropBuffers();
			return;
		}
		this.end();
		this.#socket.resume();
	}

	#submit(bytes: Uint8Array): void {
		this.#writing = true;
		this.#socket.write(bytes, this.#written);
	}

	readonly #written = (): void => {
		this.#writing = false;
		if (!this.#open) return;
		if (this.#pendingBytes > 0) this.flush();
		else {
			this.#releaseChunk();
			if (this.#ending) this.#socket.end();
		}
		this.#events.farDrained();
	};

	#nextChunk(): void {
		if (this.#chunk !== undefined && this.#start < this.#used) this.#full.push(this.#chunk.subarray(this.#start));
		this.#chunk = takeChunk();
		this.#start = 0;
		this.#used = 0;
	}

	/** Nothing is with the socket and nothing waits, so nobody refers to the chunk. */
	#releaseChunk(): void {
		if (this.#chunk !== undefined) returnChunk(this.#chunk);
		this.#chunk = undefined;
		this.#start = 0;
		this.#used = 0;
	}

	/** The socket may still hold what it was given: chunks are left to the garbage collector. */
	#dropBuffers(): void {
		this.#full.length = 0;
		this.#chunk = undefined;
		this.#start = 0;
		this.#used = 0;
		this.#pendingBytes = 0;
		this.#open = false;
	}
}

import type { Socket } from "node:net";
import { LINK_HIGH_WATER_BYTES, LINK_LOW_WATER_BYTES, LINK_MAX_BUFFERED_BYTES } from "./limits.js";
import type { FrameLink } from "./link.js";

/** Small messages are gathered in buffers of this size. */
const GATHER_BYTES = 65_536;
/** From here on a message is written as it is: a copy would cost more than one more piece of a write. */
const DIRECT_BYTES = 8192;
/** RFC 6455 5.2: a header without mask. */
const MAX_HEADER_BYTES = 10;
const WHOLE_BINARY = 0x82;
const LENGTH_16 = 126;
const LENGTH_64 = 127;

export interface LinkEvents {
	/** What was over the high-water mark has gone down to the low one. */
	drained(): void;
	/** The client reads too little for what its guest asks for. */
	overflowed(): void;
	/** The network wants the connection to end. */
	closed(reason: string): void;
}

/**
 * Ethernet frames as binary WebSocket messages of a server, written to the socket beside what the protocol's
 * implementation writes there. All frames of one turn of the event loop go out in one write.
 */
export class WebSocketLink implements FrameLink {
	readonly #socket: Socket;
	readonly #events: LinkEvents;
	#gather: Buffer = Buffer.alloc(0);
	/** Bytes of #gather from #start to #used are not with the socket yet. */
	#start = 0;
	#used = 0;
	#isScheduled = false;
	#isFull = false;
	#isOpen = true;

	constructor(socket: Socket, events: LinkEvents) {
		this.#socket = socket;
		this.#events = events;
	}

	get bufferedBytes(): number {
		return this.#socket.writableLength + this.#used - this.#start;
	}

	send(frame: Uint8Array): boolean {
		if (!this.#isOpen) return true;
		if (!this.#isScheduled) {
			this.#isScheduled = true;
			this.#socket.cork();
			setImmediate(this.#flush);
		}
		const isDirect = frame.length >= DIRECT_BYTES;
		this.#reserve(MAX_HEADER_BYTES + (isDirect ? 0 : frame.length));
		this.#header(frame.length);
		if (isDirect) {
			this.#submit();
			this.#socket.write(frame, this.#written);
		} else {
			this.#gather.set(frame, this.#used);
			this.#used += frame.length;
		}
		const buffered = this.bufferedBytes;
		if (buffered <= LINK_HIGH_WATER_BYTES) return true;
		this.#isFull = true;
		if (buffered > LINK_MAX_BUFFERED_BYTES) {
			this.end();
			this.#events.overflowed();
		}
		return false;
	}

	close(reason: string): void {
		this.#events.closed(reason);
	}

	/** Hands everything to the socket; nothing is sent any more. */
	end(): void {
		if (!this.#isOpen) return;
		this.#isOpen = false;
		if (this.#isScheduled) this.#flush();
		this.#gather = Buffer.alloc(0);
	}

	readonly #flush = (): void => {
		if (!this.#isScheduled) return;
		this.#isScheduled = false;
		this.#submit();
		this.#socket.uncork();
	};

	#submit(): void {
		if (this.#start === this.#used) return;
		this.#socket.write(this.#gather.subarray(this.#start, this.#used), this.#written);
		this.#start = this.#used;
	}

	readonly #written = (): void => {
		if (!this.#isFull || !this.#isOpen || this.bufferedBytes > LINK_LOW_WATER_BYTES) return;
		this.#isFull = false;
		this.#events.drained();
	};

	#reserve(bytes: number): void {
		if (this.#used + bytes <= this.#gather.length) return;
		this.#submit();
		this.#gather = Buffer.allocUnsafeSlow(GATHER_BYTES);
		this.#start = 0;
		this.#used = 0;
	}

	#header(bytes: number): void {
		const gather = this.#gather;
		let at = this.#used;
		gather[at++] = WHOLE_BINARY;
		if (bytes < LENGTH_16) gather[at++] = bytes;
		else if (bytes < 65_536) {
			gather[at++] = LENGTH_16;
			gather[at++] = bytes >>> 8;
			gather[at++] = bytes;
		} else {
			gather[at++] = LENGTH_64;
			at = gather.writeUInt32BE(0, at);
			at = gather.writeUInt32BE(bytes, at);
		}
		this.#used = at;
	}
}

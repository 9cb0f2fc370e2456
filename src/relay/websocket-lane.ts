import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { MAX_FRAME_BYTES } from "./limits.js";

// RFC 6455 5.2: FIN RSV1-3 opcode(4) | MASK length(7) | length(16 or 64) | masking key(32) | payload
const FIN = 0x80;
const RESERVED = 0x70;
const MASK = 0x80;
const OPCODE = 0x0f;
const OPCODE_CLOSE = 8;
const LENGTH = 0x7f;
const LENGTH_16 = 126;
const LENGTH_64 = 127;
/** First byte of a binary message in one piece. */
const WHOLE_BINARY = 0x82;

const NOTHING = Buffer.alloc(0);

export interface LaneEvents {
	/** One message, unmasked: a view of memory that is not used for anything else. */
	frame(frame: Uint8Array): void;
	/** All messages of one read from the socket have been delivered. */
	endBatch(): void;
	/** The client closes the connection, or breaks the protocol so that it will be closed: nothing more is to be sent. */
	ending(): void;
}

/**
 * The socket of one WebSocket client, as the protocol's implementation sees it. Binary messages in one piece, which are
 * nearly all there is, are taken out here, without a copy where they arrive whole; everything else (control frames, text,
 * fragments, what breaks the protocol) goes on to the implementation byte by byte.
 */
export class WebSocketLane extends Duplex {
	readonly #socket: Socket;
	readonly #events: LaneEvents;
	/** A header of which the rest has not arrived. */
	#head: Buffer = NOTHING;
	/** A message that spans several reads, and what it lacks. */
	#message: Buffer = NOTHING;
	#messageLack = 0;
	#messageMask = 0;
	/** Bytes of a frame that goes on to the implementation. */
	#passing = 0;
	/** Inside a fragmented message. */
	#isFragmented = false;
	/** From here on everything goes on: the implementation is to end the connection. */
	#passesAll = false;
	#isMuted = false;

	constructor(socket: Socket, events: LaneEvents) {
		super();
		this.#socket = socket;
		this.#events = events;
		socket.on("data", this.#receive);
		socket.on("end", () => {
			events.ending();
			this.push(null);
		});
		socket.on("error", (error) => this.destroy(error));
		socket.on("close", () => this.destroy());
	}

	/** Delivers nothing more: the connection is being closed. */
	mute(): void {
		this.#isMuted = true;
	}

	override _read(): void {
		this.#socket.resume();
	}

	override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
		this.#socket.write(chunk, callback);
	}

	override _final(callback: (error?: Error | null) => void): void {
		this.#socket.end(callback);
	}

	override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
		this.#isMuted = true;
		this.#socket.destroy();
		callback(error);
	}

	readonly #receive = (chunk: Buffer): void => {
		const bytes = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
		this.#head = NOTHING;
		let at = 0;
		let delivered = false;
		while (at < bytes.length) {
			if (this.#passesAll) {
				this.#pass(bytes.subarray(at));
				break;
			}
			if (this.#passing > 0) {
				const end = Math.min(bytes.length, at + this.#passing);
				this.#passing -= end - at;
				this.#pass(bytes.subarray(at, end));
				at = end;
				continue;
			}
			if (this.#messageLack > 0) {
				const count = bytes.copy(this.#message, this.#message.length - this.#messageLack, at, at + this.#messageLack);
				this.#messageLack -= count;
				at += count;
				if (this.#messageLack > 0) break;
				const message = this.#message;
				this.#message = NOTHING;
				delivered = this.#deliver(message, this.#messageMask) || delivered;
				continue;
			}
			const headerBytes = headerLength(bytes, at);
			if (at + headerBytes > bytes.length) {
				this.#head = bytes.subarray(at);
				break;
			}
			const first = bytes[at] ?? 0;
			const payloadBytes = isWellFormed(first, bytes[at + 1] ?? 0)
				? payloadLength(bytes, at)
				: Number.POSITIVE_INFINITY;
			if (payloadBytes > MAX_FRAME_BYTES) {
				this.#passesAll = true;
				this.#events.ending();
				continue;
			}
			if (first !== WHOLE_BINARY || this.#isFragmented) {
				if ((first & OPCODE) < OPCODE_CLOSE) this.#isFragmented = (first & FIN) === 0;
				this.#passing = headerBytes + payloadBytes;
				continue;
			}
			const mask = bytes.readInt32LE(at + headerBytes - 4);
			const start = at + headerBytes;
			const end = start + payloadBytes;
			if (end <= bytes.length) {
				delivered = this.#deliver(bytes.subarray(start, end), mask) || delivered;
			} else {
				this.#message = Buffer.allocUnsafe(payloadBytes);
				this.#messageLack = payloadBytes - bytes.copy(this.#message, 0, start);
				this.#messageMask = mask;
			}
			at = end;
		}
		if (delivered) this.#events.endBatch();
	};

	#pass(bytes: Buffer): void {
		if (!this.push(bytes)) this.#socket.pause();
	}

	#deliver(message: Buffer, mask: number): boolean {
		if (this.#isMuted) return false;
		if (mask !== 0) unmask(message, mask);
		this.#events.frame(message);
		return true;
	}
}

/** Bytes of the header; 2 while its length isn't known, and where there is no mask, as must be. */
function headerLength(bytes: Buffer, at: number): number {
	const second = bytes[at + 1];
	if (second === undefined || (second & MASK) === 0) return 2;
	const length = second & LENGTH;
	return length < LENGTH_16 ? 6 : length === LENGTH_16 ? 8 : 14;
}

function payloadLength(bytes: Buffer, at: number): number {
	const length = (bytes[at + 1] ?? 0) & LENGTH;
	if (length === LENGTH_16) return ((bytes[at + 2] ?? 0) << 8) | (bytes[at + 3] ?? 0);
	if (length === LENGTH_64) return bytes.readUInt32BE(at + 2) * 2 ** 32 + bytes.readUInt32BE(at + 6);
	return length;
}

/** Whether the frame is followed by another one: neither an error nor the closing of the connection. */
function isWellFormed(first: number, second: number): boolean {
	return (first & RESERVED) === 0 && (first & OPCODE) !== OPCODE_CLOSE && (second & MASK) !== 0;
}

/** In place; `mask` holds the key's four bytes, the first one lowest. */
export function unmask(bytes: Uint8Array, mask: number): void {
	let at = 0;
	// Up to the first aligned word byte by byte; the key turns with them.
	const lead = Math.min(bytes.length, (4 - (bytes.byteOffset & 3)) & 3);
	for (; at < lead; at++) bytes[at] = (bytes[at] ?? 0) ^ (mask >>> ((at & 3) << 3));
	const turn = (lead & 3) << 3;
	const turned = turn === 0 ? mask : (mask >>> turn) | (mask << (32 - turn));
	const count = (bytes.length - lead) >>> 2;
	if (isLittleEndian && count > 0) {
		const words = new Int32Array(bytes.buffer, bytes.byteOffset + lead, count);
		for (let word = 0; word < count; word++) words[word] = (words[word] ?? 0) ^ turned;
		at += count << 2;
	}
	for (; at < bytes.length; at++) bytes[at] = (bytes[at] ?? 0) ^ (mask >>> ((at & 3) << 3));
}

const isLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

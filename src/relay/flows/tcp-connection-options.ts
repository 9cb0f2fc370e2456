import type { TcpSegment } from "../wire/tcp.js";

/** "finished": both sides have sent their FIN and everything was acknowledged. */
export type TcpCloseReason = "finished" | "reset-by-guest" | "timed-out" | "aborted";

/** Told synchronously, from inside the event methods; must not throw. */
export interface TcpConnectionOutput {
	/**
	 * A segment to the guest, complete but for addresses. Its payload may be a view of bytes that are used again: serialize it
	 * before anything else. Raise no event of any connection from in here.
	 */
	segment(segment: TcpSegment): void;
	/** The stream's next bytes; a view that is valid until the call returns. */
	data(bytes: Uint8Array): void;
	/** The guest's FIN, after all its data. */
	end(): void;
	/** After a `send` that returned false: half of the send budget is free again. */
	writable(): void;
	/** The handshake is done. */
	established(): void;
	/** Both sides have sent their FIN and everything was acknowledged; what is left is TIME-WAIT, from which no way leads back. */
	timeWait(): void;
	/** Once, and last: nothing is sent, called or timed any more. */
	closed(reason: TcpCloseReason): void;
}

export interface TcpConnectionOptions {
	/** Monotonic, ms. */
	readonly nowMs: () => number;
	/** By RFC 6528; see InitialSequence. */
	readonly initialSequence: number;
	/** Of the link, bytes: an IPv4 packet at most. */
	readonly mtu: number;
	readonly output: TcpConnectionOutput;
	/** What the host's side takes at most, bytes; decides the window's scale. The window starts with all of it. */
	readonly receiveBudgetBytes: number;
	/** Bytes queued for the guest, sent or not, from which on `send` returns false. */
	readonly sendBudgetBytes: number;
}

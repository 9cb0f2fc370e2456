/** What a TCP flow of the guest ends in: a host socket, or a service of the relay's own. */
export interface FarEnd {
	/** Bytes of the guest, in order. A view of the frame, valid until the batch ends (`flush`). */
	write(bytes: Uint8Array): void;
	/** The batch of frames has ended: everything written so far goes out or is copied. */
	flush(): void;
	/** The guest sends no more (its FIN). */
	end(): void;
	/** Stops and restarts what comes from there. */
	pause(): void;
	resume(): void;
	/** Ends both directions at once, by a reset (`reset`) or quietly after what was written (all of it was ended before). */
	close(reset: boolean): void;
	/** Bytes written that have not gone out, which the flow's receive budget pays for. */
	readonly bufferedBytes: number;
	/** False once nothing of it is left in the host. */
	readonly open: boolean;
}

/** What a far end tells its flow. */
export interface FarEndEvents {
	/** Bytes for the guest; ownership passes. */
	farData(bytes: Uint8Array): void;
	/** No more bytes will come. */
	farEnded(): void;
	/** Some buffered bytes have gone out. */
	farDrained(): void;
	/** It broke, or it must not go on; `reason` goes to the audit log. */
	farFailed(reason: string): void;
	/** Nothing of it is left; once, last. */
	farGone(): void;
}

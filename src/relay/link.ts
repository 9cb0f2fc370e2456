/** The relay's end of one machine's wire. */
export interface FrameLink {
	/**
	 * Sends one Ethernet frame (no FCS) to the guest; the bytes belong to the link afterwards. False: more is buffered than
	 * the link wants; whoever produces data waits until the network is told of the drain. Nothing is lost either way.
	 */
	send(frame: Uint8Array): boolean;
	close(reason: string): void;
}

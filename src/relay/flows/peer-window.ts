/** The window that the guest offers, in positions (SND.WND, SND.WL1, SND.WL2 of RFC 9293 3.3.1). */
export class PeerWindow {
	#end = 0;
	#segment = 0;
	#acknowledgment = 0;
	#largestBytes = 0;

	/** The position before which we may send. */
	get end(): number {
		return this.#end;
	}

	/** The largest that was ever offered, bytes. */
	get largestBytes(): number {
		return this.#largestBytes;
	}

	/** A segment at `segment` that acknowledges `acknowledgment` offers `bytes`; an older one than the last says nothing. */
	update(segment: number, acknowledgment: number, bytes: number): void {
		if (segment < this.#segment || (segment === this.#segment && acknowledgment < this.#acknowledgment)) return;
		this.#segment = segment;
		this.#acknowledgment = acknowledgment;
		this.#end = acknowledgment + bytes;
		this.#largestBytes = Math.max(this.#largestBytes, bytes);
	}
}

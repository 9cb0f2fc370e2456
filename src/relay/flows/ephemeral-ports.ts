/** RFC 6335 6: the dynamic ports. */
const FIRST = 49_152;
const LAST = 65_535;

/** The gateway's source ports for flows towards the guest, in turn. */
export class EphemeralPorts {
	#next = FIRST;

	/** A port that isn't taken; undefined if all are. */
	take(isTaken: (port: number) => boolean): number | undefined {
		for (let tries = FIRST; tries <= LAST; tries++) {
			const port = this.#next;
			this.#next = port === LAST ? FIRST : port + 1;
			if (!isTaken(port)) return port;
		}
		return undefined;
	}
}

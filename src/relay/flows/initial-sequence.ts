import { createHmac, randomBytes } from "node:crypto";
import type { Ipv4 } from "../addresses.js";
import type { Clock } from "../clock.js";

/** The clock M of RFC 6528 ticks every 4 µs. */
const TICKS_PER_MS = 250;

/** Initial sequence numbers that nobody outside can guess (RFC 6528): M + F(addresses, ports, secret). */
export class InitialSequence {
	readonly #clock: Pick<Clock, "nowMs">;
	readonly #secret: Uint8Array;

	constructor(clock: Pick<Clock, "nowMs">, secret: Uint8Array = randomBytes(32)) {
		this.#clock = clock;
		this.#secret = secret;
	}

	/** For a connection between our `localAddress:localPort`, as the guest sees it, and the guest's. */
	next(localAddress: Ipv4, localPort: number, remoteAddress: Ipv4, remotePort: number): number {
		const tuple = Buffer.alloc(12);
		tuple.writeUInt32BE(localAddress, 0);
		tuple.writeUInt16BE(localPort, 4);
		tuple.writeUInt32BE(remoteAddress, 6);
		tuple.writeUInt16BE(remotePort, 10);
		const offset = createHmac("sha256", this.#secret).update(tuple).digest().readUInt32BE(0);
		return (Math.floor(this.#clock.nowMs() * TICKS_PER_MS) + offset) >>> 0;
	}
}

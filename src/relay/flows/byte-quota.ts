/** What a network may carry in all, bytes. */
export class ByteQuota {
	#left: number;

	constructor(bytes: number) {
		this.#left = bytes;
	}

	/** False: the quota is used up, these bytes included. */
	take(bytes: number): boolean {
		this.#left -= bytes;
		return this.#left >= 0;
	}
}

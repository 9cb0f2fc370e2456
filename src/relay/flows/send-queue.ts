/** Chunks smaller than this are gathered, so that a queue of single bytes costs no more than a few times its size. */
const SMALL_CHUNK_BYTES = 512;
const SLAB_BYTES = 4096;
/** Released chunks at the front before the lists are cut. */
const COMPACT_CHUNKS = 256;

/** Where a range that spans chunks is put together. It is valid until the next read of any queue. */
const scratch = new Uint8Array(65_535);

/** The bytes of one stream that the guest has not acknowledged, as the chunks they came in, by position. */
export class SendQueue {
	#chunks: Uint8Array[] = [];
	/** The position of each chunk's first byte. */
	#starts: number[] = [];
	/** The first chunk still needed. */
	#head = 0;
	#start = 1;
	#end = 1;
	/** The last chunk, if it is ours to fill. */
	#slab: Uint8Array | undefined;
	#slabUsed = 0;
	/** The chunk that was read last. */
	#hint = 0;

	/** The position of the first byte that is not released. */
	get start(): number {
		return this.#start;
	}

	/** The position after the last byte. */
	get end(): number {
		return this.#end;
	}

	/** Takes ownership of `bytes`. */
	append(bytes: Uint8Array): void {
		if (bytes.length === 0) return;
		if (this.#slab !== undefined && bytes.length <= SLAB_BYTES - this.#slabUsed) {
			this.#fillSlab(this.#slab, bytes);
		} else if (bytes.length < SMALL_CHUNK_BYTES) {
			this.#slabUsed = 0;
			this.#slab = new Uint8Array(SLAB_BYTES);
			this.#push(this.#slab);
			this.#fillSlab(this.#slab, bytes);
		} else {
			this.#slab = undefined;
			this.#push(bytes);
			this.#end += bytes.length;
		}
	}

	/** `length` bytes (at most 65,535) from `position` on, all of them queued; valid until the next read. */
	read(position: number, length: number): Uint8Array {
		let index = this.#find(position);
		let chunk = this.#chunks[index] as Uint8Array;
		const offset = position - (this.#starts[index] as number);
		// A slab's chunk may be longer than what is in it.
		let filled = this.#endOf(index) - position;
		if (filled >= length) return chunk.subarray(offset, offset + length);
		scratch.set(chunk.subarray(offset, offset + filled));
		while (filled < length) {
			index += 1;
			chunk = this.#chunks[index] as Uint8Array;
			const taken = Math.min(this.#endOf(index) - (this.#starts[index] as number), length - filled);
			scratch.set(chunk.subarray(0, taken), filled);
			filled += taken;
		}
		this.#hint = index;
		return scratch.subarray(0, length);
	}

	/** Everything before `position` was acknowledged. */
	release(position: number): void {
		if (position <= this.#start) return;
		this.#start = Math.min(position, this.#end);
		const starts = this.#starts;
		while (this.#head < starts.length && this.#endOf(this.#head) <= this.#start) {
			this.#chunks[this.#head] = NO_BYTES;
			this.#head += 1;
		}
		if (this.#head === starts.length) {
			this.clear();
		} else if (this.#head >= COMPACT_CHUNKS && 2 * this.#head >= starts.length) {
			this.#chunks.splice(0, this.#head);
			starts.splice(0, this.#head);
			this.#head = 0;
			this.#hint = 0;
		}
	}

	/** Forgets the bytes; the positions stay. */
	clear(): void {
		this.#chunks = [];
		this.#starts = [];
		this.#head = 0;
		this.#hint = 0;
		this.#slab = undefined;
		this.#start = this.#end;
	}

	#push(chunk: Uint8Array): void {
		this.#chunks.push(chunk);
		this.#starts.push(this.#end);
	}

	#fillSlab(slab: Uint8Array, bytes: Uint8Array): void {
		slab.set(bytes, this.#slabUsed);
		this.#slabUsed += bytes.length;
		this.#end += bytes.length;
	}

	#endOf(index: number): number {
		return this.#starts[index + 1] ?? this.#end;
	}

	/** The index of the chunk with `position`. */
	#find(position: number): number {
		const starts = this.#starts;
		const hint = this.#hint;
		if (hint >= this.#head && hint < starts.length && (starts[hint] as number) <= position) {
			if (position < this.#endOf(hint)) return hint;
			if (position < this.#endOf(hint + 1)) {
				this.#hint = hint + 1;
				return this.#hint;
			}
		}
		let low = this.#head;
		let high = starts.length - 1;
		while (low < high) {
			const middle = (low + high + 1) >> 1;
			if ((starts[middle] as number) <= position) low = middle;
			else high = middle - 1;
		}
		this.#hint = low;
		return low;
	}
}

const NO_BYTES = new Uint8Array(0);

/** Frames up to this size are cut from a slab: making a piece of memory of its own for each takes longer than filling it. */
const CUT_MAX_BYTES = 8192;
/** Up to this size the engine keeps the bytes beside the object. */
const OWN_MAX_BYTES = 64;
const SLAB_BYTES = 65_536;
/** Pieces begin on whole words, which checksums are quicker over. */
const WORD_MASK = 3;

let slab = new ArrayBuffer(0);
let used = 0;

/** `bytes` of memory with any content, for a frame that is soon sent: while one is kept, so is its slab. */
export function frameMemory(bytes: number): Uint8Array {
	if (bytes <= OWN_MAX_BYTES) return new Uint8Array(bytes);
	if (bytes > CUT_MAX_BYTES) return Buffer.allocUnsafeSlow(bytes);
	if (used + bytes > slab.byteLength) {
		slab = new ArrayBuffer(SLAB_BYTES);
		used = 0;
	}
	const start = used;
	used = (start + bytes + WORD_MASK) & ~WORD_MASK;
	return new Uint8Array(slab, start, bytes);
}

/** Size of the buffers in which small writes are gathered. */
export const CHUNK_BYTES = 65_536;
/** Chunks that are kept for reuse. */
const MAX_POOLED = 16;

const pool: Uint8Array[] = [];

/** A buffer of CHUNK_BYTES with any content. */
export function takeChunk(): Uint8Array {
	return pool.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
}

/** Gives a chunk back that nobody refers to any more. */
export function returnChunk(chunk: Uint8Array): void {
	if (pool.length < MAX_POOLED) pool.push(chunk);
}

/**
 * Sequence numbers wrap at 2^32 (RFC 9293 3.4). Inside, a stream is counted in positions, which never wrap: 0 is its SYN, 1 its
 * first byte. Only these functions know both.
 */

/** The sequence number on the wire of `position` in the stream whose SYN had `initial`. */
export function sequenceAt(initial: number, position: number): number {
	return (initial + position) >>> 0;
}

/** The position that `sequence` names: the one nearest to `near`, at most 2^31 away. May be negative. */
export function positionOf(sequence: number, initial: number, near: number): number {
	return near + ((sequence - initial - near) | 0);
}

/** Everything that a guest can make grow has its bound here. */

/** Largest Ethernet frame, bytes: an IPv4 packet of 65,535 bytes behind a header of 14. */
export const MAX_FRAME_BYTES = 65_549;

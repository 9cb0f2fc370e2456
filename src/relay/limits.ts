/** Everything that a guest can make grow has its bound here. */

/** Largest Ethernet frame, bytes: an IPv4 packet of 65,535 bytes behind a header of 14. */
export const MAX_FRAME_BYTES = 65_549;

// TCP towards the guest (flows/tcp-connection.ts)

/** No progress for so long, with data or a probe outstanding, ends a connection (R2 of RFC 9293 3.8.3). */
export const TCP_GIVE_UP_MS = 120_000;
/** An unanswered SYN or SYN-ACK ends after this. */
export const TCP_HANDSHAKE_MS = 60_000;
/** Retransmission timeout before the first measurement (RFC 6298 2.1), and its bounds. */
export const TCP_INITIAL_TIMEOUT_MS = 1000;
export const TCP_MIN_TIMEOUT_MS = 200;
export const TCP_MAX_TIMEOUT_MS = 15_000;
/** A lone segment is acknowledged at the latest after this (RFC 9293 3.8.6.3 allows 500). */
export const TCP_DELAYED_ACK_MS = 40;
export const TCP_TIME_WAIT_MS = 10_000;
/** Challenge ACKs of one connection per second (RFC 5961 7). */
export const TCP_CHALLENGES_PER_SECOND = 10;
/** In flight at the start, bytes, if the guest's window allows it. */
export const TCP_INITIAL_CONGESTION_BYTES = 262_144;
/** Smaller segments than this (Linux's bound) are not made, whatever MSS the guest names. */
export const TCP_MIN_SEGMENT_BYTES = 88;
/** Segments of one connection that wait for a hole before them to be filled. */
export const TCP_MAX_REORDERED_SEGMENTS = 2048;
/** Selectively acknowledged ranges that are remembered of one connection. */
export const TCP_MAX_SACKED_RANGES = 128;

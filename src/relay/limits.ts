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
/** With so much in flight a segment is not sent short only because the queue ends there. */
export const TCP_COALESCING_BYTES = 131_072;
/** Smaller segments than this (Linux's bound) are not made, whatever MSS the guest names. */
export const TCP_MIN_SEGMENT_BYTES = 88;
/** Segments of one connection that wait for a hole before them to be filled. */
export const TCP_MAX_REORDERED_SEGMENTS = 2048;
/** Selectively acknowledged ranges that are remembered of one connection. */
export const TCP_MAX_SACKED_RANGES = 128;

// A machine's network (network.ts)

/** TCP flows of one machine, those that linger on the host included. */
export const MAX_TCP_FLOWS = 1024;
/** Of these, such whose handshake is not done. */
export const MAX_HALF_OPEN_TCP_FLOWS = 256;
/** Buffers of one TCP flow each way, bytes: windows and queues. */
export const TCP_FLOW_BUFFER_BYTES = 1_048_576;
/** All flows' buffers each way, bytes: the more flows there are, the less a new one gets, but always the minimum. */
export const TCP_BUFFERS_BYTES = 67_108_864;
export const TCP_FLOW_MIN_BUFFER_BYTES = 65_536;
/** The host's answer to a connect is awaited so long. */
export const TCP_CONNECT_MS = 30_000;
/** An established flow without traffic ends (RFC 5382 REQ-5 asks for 2 h 4 min at least), and one in any other state. */
export const TCP_ESTABLISHED_IDLE_MS = 7_440_000;
export const TCP_TRANSITORY_IDLE_MS = 240_000;
/** What a flow has left to the host's socket, once the guest's side is over, must go out in this time. */
export const TCP_LINGER_MS = 60_000;
/** DNS over TCP: queries of one connection that wait for their answer, their size, and its idle time. */
export const DNS_TCP_MAX_OUTSTANDING = 16;
export const DNS_TCP_MAX_QUERY_BYTES = 4096;
export const DNS_TCP_BUFFER_BYTES = 8192;
export const DNS_IDLE_MS = 10_000;
/** DNS queries over UDP of one machine that wait for their answer. */
export const DNS_UDP_MAX_OUTSTANDING = 256;
/** Host sockets for UDP of one machine: one for each port of the guest. */
export const MAX_UDP_MAPPINGS = 512;
/** Destinations of one mapping that are remembered, and so may answer. */
export const MAX_UDP_PEERS = 256;
/** RFC 4787 REQ-5 allows as little as 2 min for others than well-known ports; QEMU's user network and Docker keep 30 to 60 s. */
export const UDP_IDLE_MS = 60_000;
/** Datagrams of one mapping that the host has not sent yet, bytes; more are dropped. */
export const UDP_MAX_QUEUED_BYTES = 262_144;
/** Echo requests that the host's ping is busy with. */
export const MAX_PINGS = 8;
export const ICMP_ERRORS_PER_SECOND = 100;
/** TCP flows that a snapshot remembers. */
export const MAX_OPEN_FLOWS = 4096;
/** Clients of one UDP forward at a time. */
export const MAX_UDP_FORWARD_CLIENTS = 256;
/** Ports that are forwarded to one machine. */
export const MAX_FORWARDS = 64;

// Names and the gate (egress/, services/dns-proxy.ts, audit-log.ts)

/** Pairs of name and address that one machine's DNS answers have told it. */
export const MAX_REMEMBERED_NAMES = 4096;
/** An answer's address is remembered under its name for the answer's time to live, within these bounds. */
export const DNS_MIN_REMEMBERED_MS = 3_600_000;
export const DNS_MAX_REMEMBERED_MS = 86_400_000;
/** The host's own addresses are looked up anew after this. */
export const HOST_ADDRESSES_MS = 5000;
/** A TCP flow says its server's name within so many of its first bytes, or does not say it readably. */
export const FIRST_BYTES_MAX = 16_384;
/** One resolver is given so long for one query; all together, repetitions included, so long. */
export const DNS_ATTEMPT_MS = 1500;
export const DNS_TOTAL_MS = 4500;
/** Queries of one machine, over UDP and TCP, that wait for a resolver: a new one ends the oldest. */
export const DNS_MAX_OUTSTANDING = 128;
/** The largest answer over UDP, bytes, in either direction: it fits into one packet everywhere (DNS flag day 2020). */
export const DNS_MAX_UDP_BYTES = 1232;
/** Aliases that an answer may lead through. */
export const DNS_MAX_ALIASES = 16;
/** Programs of the host that ping for guests, all machines together. */
export const MAX_PING_PROGRAMS = 8;
/** Audit log: lines that wait for the disk, the size at which a new file is begun, and how many old ones are kept. */
export const AUDIT_MAX_WAITING_LINES = 10_000;
export const AUDIT_MAX_FILE_BYTES = 16_777_216;
export const AUDIT_KEPT_FILES = 3;

// The link to a machine (websocket.ts)

/** Waits for the client to read: over the first mark producers pause until the second is reached; over the last the connection ends. */
export const LINK_HIGH_WATER_BYTES = 4_194_304;
export const LINK_LOW_WATER_BYTES = 1_048_576;
export const LINK_MAX_BUFFERED_BYTES = 16_777_216;
/** Machines that one shared network can tell apart: 10.0.2.15 to 10.0.2.254. */
export const MAX_SHARED_ADDRESSES = 240;
/** Machines at a time, where the user names no number. */
export const MAX_MACHINES = 64;
/** Connections that may be shaking hands beside those of the machines. */
export const MAX_PENDING_CONNECTIONS = 64;
/** A handshake takes at most this, ms. */
export const HANDSHAKE_MS = 10_000;
/** A client that is silent for so long is asked whether it is there, ms. */
export const KEEPALIVE_MS = 60_000;
/** A closed client has this long to answer, ms. */
export const LINK_CLOSE_MS = 2000;
/** Header lines of a handshake, bytes. */
export const MAX_HANDSHAKE_BYTES = 8192;
/** Frames that wait to be written to the capture file, bytes; further ones are left out. */
export const PCAP_MAX_BUFFERED_BYTES = 16_777_216;
/** Size of the capture file where the user names none, bytes. */
export const PCAP_MAX_BYTES = 268_435_456;

/** Fragmented IPv4 packets of one guest that wait for their rest. */
export const REASSEMBLY_MAX_DATAGRAMS = 16;
/** Payload bytes of all of them. */
export const REASSEMBLY_MAX_BYTES = 256 * 1024;
/** Fragments of one packet: enough for 65,515 bytes in packets of 296. */
export const REASSEMBLY_MAX_FRAGMENTS = 256;
/** RFC 1122 3.3.2 wants 60 to 120 s; a guest on the same machine needs less. */
export const REASSEMBLY_MS = 30_000;

import { NO_TCP_OPTIONS, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, type TcpSegment } from "../wire/tcp.js";
import { sequenceAt } from "./tcp-sequence.js";

const NO_PAYLOAD = new Uint8Array(0);

/** The sequence space that a segment covers (SEG.LEN of RFC 9293). */
export function segmentLength(segment: TcpSegment): number {
	return segment.payload.length + (segment.flags & TCP_SYN ? 1 : 0) + (segment.flags & TCP_FIN ? 1 : 0);
}

/** The answer to a segment of no flow (RFC 9293 3.10.7.1), ports swapped; none to a RST. */
export function rstForStray(segment: TcpSegment): TcpSegment | undefined {
	if (segment.flags & TCP_RST) return undefined;
	const acknowledging = (segment.flags & TCP_ACK) !== 0;
	return {
		sourcePort: segment.destinationPort,
		destinationPort: segment.sourcePort,
		sequence: acknowledging ? segment.acknowledgment : 0,
		acknowledgment: acknowledging ? 0 : sequenceAt(segment.sequence, segmentLength(segment)),
		flags: acknowledging ? TCP_RST : TCP_RST | TCP_ACK,
		window: 0,
		options: NO_TCP_OPTIONS,
		payload: NO_PAYLOAD,
	};
}

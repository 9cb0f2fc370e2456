/**
 * RFC 9293 3.3.2, and "connecting": the guest's SYN is here and the host is being asked; nothing has been sent yet.
 */
export type TcpState =
	| "connecting"
	| "syn-sent"
	| "syn-received"
	| "established"
	| "fin-wait-1"
	| "fin-wait-2"
	| "closing"
	| "time-wait"
	| "close-wait"
	| "last-ack"
	| "closed";

/** The states in which the guest may still send data. */
export function mayReceiveText(state: TcpState): boolean {
	return state === "established" || state === "fin-wait-1" || state === "fin-wait-2";
}

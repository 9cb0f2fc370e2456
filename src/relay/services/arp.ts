import { DNS_ADDRESS, GATEWAY_ADDRESS, GATEWAY_MAC } from "../addresses.js";
import type { ArpPacket } from "../wire/arp.js";

/** The answer to a request for one of the relay's addresses (RFC 826); undefined to anything else. */
export function answerArp(packet: ArpPacket): ArpPacket | undefined {
	const { operation, senderMac, senderAddress, targetAddress } = packet;
	if (operation !== "request") return undefined;
	if (targetAddress !== GATEWAY_ADDRESS && targetAddress !== DNS_ADDRESS) return undefined;
	return {
		operation: "reply",
		senderMac: GATEWAY_MAC,
		senderAddress: targetAddress,
		targetMac: senderMac,
		targetAddress: senderAddress,
	};
}

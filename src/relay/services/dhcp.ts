import {
	BROADCAST_MAC,
	DNS_ADDRESS,
	GATEWAY_ADDRESS,
	type Ipv4,
	NETWORK_BROADCAST,
	NETWORK_MASK,
} from "../addresses.js";
import type { Delivery } from "../guest-wire.js";
import { readUint32, writeUint16, writeUint32 } from "../wire/bytes.js";
import type { DhcpMessage } from "../wire/dhcp.js";

export const DHCP_SERVER_PORT = 67;
export const DHCP_CLIENT_PORT = 68;

/** RFC 2132, by its names. */
const SUBNET_MASK = 1;
const ROUTER = 3;
const DOMAIN_NAME_SERVER = 6;
const INTERFACE_MTU = 26;
const BROADCAST_ADDRESS = 28;
const REQUESTED_ADDRESS = 50;
const LEASE_TIME = 51;
const MESSAGE_TYPE = 53;
const SERVER_IDENTIFIER = 54;
const RENEWAL_TIME = 58;
const REBINDING_TIME = 59;
const CLIENT_IDENTIFIER = 61;

const DISCOVER = 1;
const OFFER = 2;
const REQUEST = 3;
const ACK = 5;
const NAK = 6;
const INFORM = 8;

/** One day; s. */
const LEASE_SECONDS = 86_400;
const BROADCAST_FLAG = 0x8000;
const ANY_BROADCAST: Ipv4 = 0xffffffff;

export interface DhcpAnswer {
	readonly message: DhcpMessage;
	readonly delivery: Delivery;
}

/**
 * The DHCP server (RFC 2131) of one guest: one fixed lease, whoever asks, nothing to remember. So RELEASE and
 * DECLINE change nothing, and a restored machine's lease is as good as ever.
 */
export function answerDhcp(message: DhcpMessage, mtu: number, guestAddress: Ipv4): DhcpAnswer | undefined {
	const lease = { mtu, guestAddress };
	if (message.operation !== "request" || message.gatewayAddress !== 0) return undefined;
	const type = message.options.get(MESSAGE_TYPE)?.[0];
	if (type === DISCOVER) return reply(message, OFFER, lease);
	if (type === INFORM) return message.clientAddress === 0 ? undefined : reply(message, ACK, lease);
	if (type !== REQUEST) return undefined;
	const server = addressOption(message, SERVER_IDENTIFIER);
	if (server !== undefined && server !== GATEWAY_ADDRESS) return undefined;
	// Selecting and init-reboot name it in an option, renewing and rebinding in ciaddr (RFC 2131 4.3.2).
	const requested =
		addressOption(message, REQUESTED_ADDRESS) ?? (message.clientAddress === 0 ? undefined : message.clientAddress);
	if (requested === undefined) return undefined;
	return reply(message, requested === guestAddress ? ACK : NAK, lease);
}

interface Lease {
	readonly mtu: number;
	readonly guestAddress: Ipv4;
}

function reply(
	request: DhcpMessage,
	type: typeof OFFER | typeof ACK | typeof NAK,
	{ mtu, guestAddress }: Lease,
): DhcpAnswer {
	const informing = request.options.get(MESSAGE_TYPE)?.[0] === INFORM;
	const options = new Map([
		[MESSAGE_TYPE, Uint8Array.of(type)],
		[SERVER_IDENTIFIER, uint32(GATEWAY_ADDRESS)],
	]);
	if (type !== NAK) {
		if (!informing) {
			options.set(LEASE_TIME, uint32(LEASE_SECONDS));
			options.set(RENEWAL_TIME, uint32(LEASE_SECONDS / 2));
			options.set(REBINDING_TIME, uint32((LEASE_SECONDS / 8) * 7));
		}
		options.set(SUBNET_MASK, uint32(NETWORK_MASK));
		options.set(ROUTER, uint32(GATEWAY_ADDRESS));
		options.set(DOMAIN_NAME_SERVER, uint32(DNS_ADDRESS));
		options.set(INTERFACE_MTU, uint16(mtu));
		options.set(BROADCAST_ADDRESS, uint32(NETWORK_BROADCAST));
	}
	const clientIdentifier = request.options.get(CLIENT_IDENTIFIER);
	if (clientIdentifier !== undefined) options.set(CLIENT_IDENTIFIER, clientIdentifier); // RFC 6842
	return {
		message: {
			operation: "reply",
			transaction: request.transaction,
			seconds: 0,
			flags: request.flags,
			clientAddress: type === NAK ? 0 : request.clientAddress,
			yourAddress: type === NAK || informing ? 0 : guestAddress,
			serverAddress: type === NAK ? 0 : GATEWAY_ADDRESS,
			gatewayAddress: 0,
			clientMac: request.clientMac,
			options,
		},
		delivery: deliveryOf(request, type, guestAddress),
	};
}

/** RFC 2131 4.1: a NAK is broadcast; ciaddr if the client has it, else broadcast if it asked so, else its new address. */
function deliveryOf(request: DhcpMessage, type: number, guestAddress: Ipv4): Delivery {
	const wantsBroadcast = request.clientAddress === 0 && (request.flags & BROADCAST_FLAG) !== 0;
	if (type === NAK || wantsBroadcast) return { mac: BROADCAST_MAC, address: ANY_BROADCAST };
	return { mac: request.clientMac, address: request.clientAddress === 0 ? guestAddress : request.clientAddress };
}

function addressOption(message: DhcpMessage, code: number): Ipv4 | undefined {
	const bytes = message.options.get(code);
	return bytes?.length === 4 ? readUint32(bytes, 0) : undefined;
}

function uint32(value: number): Uint8Array {
	const bytes = new Uint8Array(4);
	writeUint32(bytes, 0, value);
	return bytes;
}

function uint16(value: number): Uint8Array {
	const bytes = new Uint8Array(2);
	writeUint16(bytes, 0, value);
	return bytes;
}

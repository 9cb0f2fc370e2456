import type { Parsed } from "../../parsed.js";
import type { Ipv4, Mac } from "../addresses.js";
import { readMac, writeMac } from "./address.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "./bytes.js";

// RFC 2131 2: op(1) htype(1) hlen(1) hops(1) xid(4) secs(2) flags(2) ciaddr(4) yiaddr(4) siaddr(4) giaddr(4) chaddr(16)
// sname(64) file(128), the magic cookie (RFC 2132 2), then options
const HARDWARE_OFFSET = 1;
const TRANSACTION_OFFSET = 4;
const SECONDS_OFFSET = 8;
const FLAGS_OFFSET = 10;
const CLIENT_ADDRESS_OFFSET = 12;
const YOUR_ADDRESS_OFFSET = 16;
const SERVER_ADDRESS_OFFSET = 20;
const GATEWAY_ADDRESS_OFFSET = 24;
const CLIENT_MAC_OFFSET = 28;
const COOKIE_OFFSET = 236;
const OPTIONS_OFFSET = 240;
/** BOOTP clients may refuse less (RFC 1542 2.1). */
const MIN_BYTES = 300;

const REQUEST = 1;
const REPLY = 2;
/** htype 1, hlen 6: Ethernet. */
const HARDWARE = 0x0106;
const COOKIE = 0x63825363;
const OPTION_PAD = 0;
const OPTION_END = 255;

export interface DhcpMessage {
	readonly operation: "request" | "reply";
	/** xid */
	readonly transaction: number;
	/** secs */
	readonly seconds: number;
	readonly flags: number;
	/** ciaddr */
	readonly clientAddress: Ipv4;
	/** yiaddr */
	readonly yourAddress: Ipv4;
	/** siaddr */
	readonly serverAddress: Ipv4;
	/** giaddr */
	readonly gatewayAddress: Ipv4;
	/** chaddr */
	readonly clientMac: Mac;
	/** By code, at most 255 bytes each; the last of several counts. */
	readonly options: ReadonlyMap<number, Uint8Array>;
}

export function parseDhcpMessage(bytes: Uint8Array): Parsed<DhcpMessage> {
	if (bytes.length < OPTIONS_OFFSET) return { ok: false, reason: "DHCP message too short" };
	const operation = bytes[0];
	if (operation !== REQUEST && operation !== REPLY) return { ok: false, reason: "unknown BOOTP operation" };
	if (readUint16(bytes, HARDWARE_OFFSET) !== HARDWARE)
		return { ok: false, reason: "DHCP for something else than Ethernet" };
	if (readUint32(bytes, COOKIE_OFFSET) !== COOKIE) return { ok: false, reason: "BOOTP without DHCP options" };
	const options = parseOptions(bytes);
	if (options === undefined) return { ok: false, reason: "a DHCP option runs over the end" };
	return {
		ok: true,
		value: {
			operation: operation === REQUEST ? "request" : "reply",
			transaction: readUint32(bytes, TRANSACTION_OFFSET),
			seconds: readUint16(bytes, SECONDS_OFFSET),
			flags: readUint16(bytes, FLAGS_OFFSET),
			clientAddress: readUint32(bytes, CLIENT_ADDRESS_OFFSET),
			yourAddress: readUint32(bytes, YOUR_ADDRESS_OFFSET),
			serverAddress: readUint32(bytes, SERVER_ADDRESS_OFFSET),
			gatewayAddress: readUint32(bytes, GATEWAY_ADDRESS_OFFSET),
			clientMac: readMac(bytes, CLIENT_MAC_OFFSET),
			options,
		},
	};
}

function parseOptions(bytes: Uint8Array): Map<number, Uint8Array> | undefined {
	const options = new Map<number, Uint8Array>();
	let at = OPTIONS_OFFSET;
	while (at < bytes.length && bytes[at] !== OPTION_END) {
		const code = bytes[at] ?? OPTION_END;
		if (code === OPTION_PAD) {
			at += 1;
			continue;
		}
		const end = at + 2 + (bytes[at + 1] ?? 255);
		if (end > bytes.length) return undefined;
		options.set(code, bytes.subarray(at + 2, end));
		at = end;
	}
	return options;
}

/** Options longer than 255 bytes are the caller's mistake: RangeError. */
export function serializeDhcpMessage(message: DhcpMessage): Uint8Array {
	let end = OPTIONS_OFFSET + 1;
	for (const [code, value] of message.options) {
		if (value.length > 255) throw new RangeError(`DHCP option ${code} of ${value.length} bytes, at most 255 fit`);
		end += 2 + value.length;
	}
	const bytes = new Uint8Array(Math.max(MIN_BYTES, end));
	bytes[0] = message.operation === "request" ? REQUEST : REPLY;
	writeUint16(bytes, HARDWARE_OFFSET, HARDWARE);
	writeUint32(bytes, TRANSACTION_OFFSET, message.transaction);
	writeUint16(bytes, SECONDS_OFFSET, message.seconds);
	writeUint16(bytes, FLAGS_OFFSET, message.flags);
	writeUint32(bytes, CLIENT_ADDRESS_OFFSET, message.clientAddress);
	writeUint32(bytes, YOUR_ADDRESS_OFFSET, message.yourAddress);
	writeUint32(bytes, SERVER_ADDRESS_OFFSET, message.serverAddress);
	writeUint32(bytes, GATEWAY_ADDRESS_OFFSET, message.gatewayAddress);
	writeMac(bytes, CLIENT_MAC_OFFSET, message.clientMac);
	writeUint32(bytes, COOKIE_OFFSET, COOKIE);
	let at = OPTIONS_OFFSET;
	for (const [code, value] of message.options) {
		bytes[at] = code;
		bytes[at + 1] = value.length;
		bytes.set(value, at + 2);
		at += 2 + value.length;
	}
	bytes[at] = OPTION_END;
	return bytes;
}

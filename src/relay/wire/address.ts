import type { Ipv4, Mac } from "../addresses.js";
import { readUint16, readUint32, writeUint16, writeUint32 } from "./bytes.js";

const DECIMAL_BYTE = /^(0|[1-9]\d{0,2})$/;

/** Four decimal numbers with dots, no leading zeros (RFC 6943 3.1.1); undefined for any other text. */
export function parseIpv4Address(text: string): Ipv4 | undefined {
	const parts = text.split(".", 5);
	if (parts.length !== 4) return undefined;
	let address = 0;
	for (const part of parts) {
		const value = DECIMAL_BYTE.test(part) ? Number(part) : 256;
		if (value > 255) return undefined;
		address = address * 256 + value;
	}
	return address;
}

export function formatIpv4Address(address: Ipv4): string {
	return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

export function formatMac(mac: Mac): string {
	return mac
		.toString(16)
		.padStart(12, "0")
		.replace(/(..)(?=.)/g, "$1:");
}

export function readMac(bytes: Uint8Array, at: number): Mac {
	return readUint16(bytes, at) * 0x1_0000_0000 + readUint32(bytes, at + 2);
}

export function writeMac(bytes: Uint8Array, at: number, mac: Mac): void {
	writeUint16(bytes, at, Math.floor(mac / 0x1_0000_0000));
	writeUint32(bytes, at + 2, mac >>> 0);
}

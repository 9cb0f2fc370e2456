import { describe, expect, it } from "vitest";
import { GATEWAY_MAC } from "../../../../src/relay/addresses.js";
import {
	formatIpv4Address,
	formatMac,
	parseIpv4Address,
	readMac,
	writeMac,
} from "../../../../src/relay/wire/address.js";
import { readUint16, readUint32 } from "../../../../src/relay/wire/bytes.js";

describe("an IPv4 address", () => {
	it.each([
		["0.0.0.0", 0],
		["10.0.2.15", 0x0a00020f],
		["255.255.255.255", 0xffffffff],
	])("%s is %d", (text, address) => {
		expect(parseIpv4Address(text)).toBe(address);
		expect(formatIpv4Address(address)).toBe(text);
	});

	it.each([
		"",
		"10.0.2",
		"10.0.2.15.",
		"10.0.2.15.1",
		"010.0.2.15",
		"10.0.2.256",
		"10.0.2.-1",
		"0x0a.0.2.15",
		"167772687",
		" 10.0.2.15",
		"10.0.2.15\n",
		"10..2.15",
		"１0.0.2.15",
	])("is not %j", (text) => {
		expect(parseIpv4Address(text)).toBeUndefined();
	});
});

describe("a MAC", () => {
	it("is written and read with all of its 48 bits", () => {
		const bytes = new Uint8Array(8);
		writeMac(bytes, 1, GATEWAY_MAC);
		expect([...bytes]).toEqual([0, 0x52, 0x54, 0, 0x12, 0x35, 2, 0]);
		expect(readMac(bytes, 1)).toBe(GATEWAY_MAC);
	});

	it("is shown as six pairs of digits", () => {
		expect(formatMac(GATEWAY_MAC)).toBe("52:54:00:12:35:02");
		expect(formatMac(1)).toBe("00:00:00:00:00:01");
		expect(formatMac(0xffffffffffff)).toBe("ff:ff:ff:ff:ff:ff");
	});
});

describe("an integer outside of the bytes", () => {
	it("reads as zeros", () => {
		const bytes = Uint8Array.of(1, 2, 3);
		expect(readUint16(bytes, 2)).toBe(0x0300);
		expect(readUint32(bytes, 1)).toBe(0x02030000);
		expect(readUint32(bytes, 3)).toBe(0);
		expect(readUint16(bytes, -1)).toBe(1);
	});
});

import { describe, expect, it } from "vitest";
import { type DhcpMessage, parseDhcpMessage, serializeDhcpMessage } from "../../../../src/relay/wire/dhcp.js";
import { accepted } from "./frames.js";

const MESSAGE: DhcpMessage = {
	operation: "request",
	transaction: 0xdeadbeef,
	seconds: 2,
	flags: 0x8000,
	clientAddress: 1,
	yourAddress: 0x0a00020f,
	serverAddress: 0x0a000202,
	gatewayAddress: 4,
	clientMac: 0x525400aabbcc,
	options: new Map([
		[53, Uint8Array.of(1)],
		[61, Uint8Array.of(1, 2, 3)],
		[80, new Uint8Array(0)],
	]),
};

describe("a DHCP message", () => {
	it("has its fields where RFC 2131 2 draws them", () => {
		const bytes = serializeDhcpMessage(MESSAGE);
		const view = Buffer.from(bytes);
		expect(view.toString("hex", 0, 12)).toBe("01010600deadbeef00028000");
		expect([12, 16, 20, 24].map((at) => view.readUInt32BE(at))).toEqual([1, 0x0a00020f, 0x0a000202, 4]);
		expect(view.toString("hex", 28, 34)).toBe("525400aabbcc");
		expect(view.toString("hex", 236, 252)).toBe("63825363350101" + "3d03010203" + "5000" + "ff00");
		expect(accepted(parseDhcpMessage(bytes))).toEqual(MESSAGE);
	});

	it("has at least 300 bytes", () => {
		expect(serializeDhcpMessage(MESSAGE)).toHaveLength(300);
	});

	it("may lack the end of its options", () => {
		const bytes = serializeDhcpMessage({ ...MESSAGE, options: new Map([[53, Uint8Array.of(1)]]) });
		expect(accepted(parseDhcpMessage(bytes.subarray(0, 243))).options.size).toBe(1);
	});

	it.each([
		["operation", 0, 3],
		["hardware", 1, 6],
		["length of a hardware address", 2, 16],
		["cookie", 236, 0],
	])("is refused with another %s", (_, at, value) => {
		const bytes = serializeDhcpMessage(MESSAGE);
		bytes[at] = value;
		expect(parseDhcpMessage(bytes).ok).toBe(false);
	});

	it("is refused when it is too short, or an option runs over its end", () => {
		const bytes = serializeDhcpMessage(MESSAGE);
		expect(parseDhcpMessage(bytes.subarray(0, 239)).ok).toBe(false);
		for (const length of [241, 242, 244, 247]) expect(parseDhcpMessage(bytes.subarray(0, length)).ok).toBe(false);
	});

	it("can't be written with an option of more than 255 bytes", () => {
		expect(() => serializeDhcpMessage({ ...MESSAGE, options: new Map([[43, new Uint8Array(256)]]) })).toThrow(
			"DHCP option 43 of 256 bytes, at most 255 fit",
		);
	});
});

import { describe, expect, it } from "vitest";
import { BROADCAST_MAC, GATEWAY_ADDRESS, GUEST_ADDRESS } from "../../../../src/relay/addresses.js";
import { answerDhcp } from "../../../../src/relay/services/dhcp.js";
import type { DhcpMessage } from "../../../../src/relay/wire/dhcp.js";

const MAC = 0x525400aabbcc;
const MTU = 9000;
const ADDRESS_10_0_2_99 = 0x0a000263;

function request(type: number, fields: Partial<DhcpMessage> = {}, options: [number, number[]][] = []): DhcpMessage {
	return {
		operation: "request",
		transaction: 0x12345678,
		seconds: 3,
		flags: 0,
		clientAddress: 0,
		yourAddress: 0,
		serverAddress: 0,
		gatewayAddress: 0,
		clientMac: MAC,
		options: new Map(
			[[53, [type]] as [number, number[]], ...options].map(([code, value]) => [code, Uint8Array.from(value)]),
		),
		...fields,
	};
}

/** The answer's options as plain arrays. */
function optionsOf(message: DhcpMessage): Record<number, number[]> {
	return Object.fromEntries([...message.options].map(([code, value]) => [code, [...value]]));
}

describe("the DHCP server", () => {
	it("offers the one lease, with router, DNS server and MTU", () => {
		const answer = answerDhcp(request(1, {}, [[61, [1, 2, 3]]]), MTU, GUEST_ADDRESS);
		expect(answer?.message).toMatchObject({
			operation: "reply",
			transaction: 0x12345678,
			yourAddress: GUEST_ADDRESS,
			serverAddress: GATEWAY_ADDRESS,
			clientMac: MAC,
		});
		expect(answer && optionsOf(answer.message)).toEqual({
			1: [255, 255, 255, 0],
			3: [10, 0, 2, 2],
			6: [10, 0, 2, 3],
			26: [0x23, 0x28],
			28: [10, 0, 2, 255],
			51: [0, 1, 0x51, 0x80],
			53: [2],
			54: [10, 0, 2, 2],
			58: [0, 0, 0xa8, 0xc0],
			59: [0, 1, 0x27, 0x50],
			61: [1, 2, 3],
		});
	});

	it("answers to the new address, or by broadcast to who asks so, or to the address that the client has", () => {
		expect(answerDhcp(request(1), MTU, GUEST_ADDRESS)?.delivery).toEqual({ mac: MAC, address: GUEST_ADDRESS });
		expect(answerDhcp(request(1, { flags: 0x8000 }), MTU, GUEST_ADDRESS)?.delivery).toEqual({
			mac: BROADCAST_MAC,
			address: 0xffffffff,
		});
		expect(
			answerDhcp(request(3, { clientAddress: GUEST_ADDRESS, flags: 0x8000 }), MTU, GUEST_ADDRESS)?.delivery,
		).toEqual({
			mac: MAC,
			address: GUEST_ADDRESS,
		});
	});

	it.each([
		[
			"selecting",
			{},
			[
				[50, [10, 0, 2, 15]],
				[54, [10, 0, 2, 2]],
			],
		],
		["rebooting", {}, [[50, [10, 0, 2, 15]]]],
		["renewing", { clientAddress: GUEST_ADDRESS }, []],
	] as [
		string,
		Partial<DhcpMessage>,
		[number, number[]][],
	][])("acknowledges a client that is %s", (_state, fields, options) => {
		const answer = answerDhcp(request(3, fields, options), MTU, GUEST_ADDRESS);
		expect(answer?.message.options.get(53)).toEqual(Uint8Array.of(5));
		expect(answer?.message.yourAddress).toBe(GUEST_ADDRESS);
	});

	it.each([
		["asks for another address", {}, [[50, [10, 0, 2, 99]]]],
		["renews another address", { clientAddress: ADDRESS_10_0_2_99 }, []],
	] as [
		string,
		Partial<DhcpMessage>,
		[number, number[]][],
	][])("says no by broadcast to a client that %s", (_case, fields, options) => {
		const answer = answerDhcp(request(3, fields, options), MTU, GUEST_ADDRESS);
		expect(answer && optionsOf(answer.message)).toEqual({ 53: [6], 54: [10, 0, 2, 2] });
		expect(answer?.message.yourAddress).toBe(0);
		expect(answer?.delivery).toEqual({ mac: BROADCAST_MAC, address: 0xffffffff });
	});

	it("informs a client that has an address, without a lease", () => {
		const answer = answerDhcp(request(8, { clientAddress: GUEST_ADDRESS }), MTU, GUEST_ADDRESS);
		expect(answer?.message.yourAddress).toBe(0);
		expect(answer?.message.options.has(51)).toBe(false);
		expect(answer?.message.options.get(6)).toEqual(Uint8Array.of(10, 0, 2, 3));
	});

	it("has nothing to say to RELEASE, DECLINE, replies, relay agents, and clients of another server", () => {
		expect(answerDhcp(request(7, { clientAddress: GUEST_ADDRESS }), MTU, GUEST_ADDRESS)).toBeUndefined();
		expect(answerDhcp(request(4, {}, [[50, [10, 0, 2, 15]]]), MTU, GUEST_ADDRESS)).toBeUndefined();
		expect(answerDhcp(request(1, { operation: "reply" }), MTU, GUEST_ADDRESS)).toBeUndefined();
		expect(answerDhcp(request(1, { gatewayAddress: 1 }), MTU, GUEST_ADDRESS)).toBeUndefined();
		expect(
			answerDhcp(
				request(3, {}, [
					[50, [10, 0, 2, 15]],
					[54, [10, 0, 2, 9]],
				]),
				MTU,
				GUEST_ADDRESS,
			),
		).toBeUndefined();
		expect(answerDhcp(request(3), MTU, GUEST_ADDRESS)).toBeUndefined();
	});
});

import { describe, expect, it } from "vitest";
import { isOpenFlow, listOpenFlows, type OpenFlow } from "../../../../src/relay/flows/open-flow.js";

const FLOW: OpenFlow = { protocol: "tcp", guestPort: 40_000, remoteAddress: "93.184.216.34", remotePort: 443 };

describe("a flow that a snapshot remembers", () => {
	it("is told from everything else", () => {
		expect(isOpenFlow(FLOW)).toBe(true);
		expect(isOpenFlow(JSON.parse(JSON.stringify(FLOW)))).toBe(true);
		for (const wrong of [
			undefined,
			null,
			"tcp",
			{},
			{ ...FLOW, protocol: "udp" },
			{ ...FLOW, guestPort: 65_536 },
			{ ...FLOW, guestPort: 1.5 },
			{ ...FLOW, remotePort: -1 },
			{ ...FLOW, remotePort: "443" },
			{ ...FLOW, remoteAddress: "example.org" },
			{ ...FLOW, remoteAddress: "1.2.3.256" },
		]) {
			expect(isOpenFlow(wrong)).toBe(false);
		}
	});

	it("is one of 4096 at most", () => {
		const flows = Array.from({ length: 5000 }, (_, index) => ({ guestPort: index, remoteAddress: 1, remotePort: 80 }));
		const listed = listOpenFlows(flows);
		expect(listed.length).toBe(4096);
		expect(listed[7]).toEqual({ protocol: "tcp", guestPort: 7, remoteAddress: "0.0.0.1", remotePort: 80 });
	});
});

import { describe, expect, it } from "vitest";
import { listOpenFlows } from "../../../../src/relay/flows/open-flow.js";

describe("a flow that a snapshot remembers", () => {
	it("is one of 4096 at most", () => {
		const flows = Array.from({ length: 5000 }, (_, index) => ({ guestPort: index, remoteAddress: 1, remotePort: 80 }));
		const listed = listOpenFlows(flows);
		expect(listed.length).toBe(4096);
		expect(listed[7]).toEqual({ protocol: "tcp", guestPort: 7, remoteAddress: "0.0.0.1", remotePort: 80 });
	});
});

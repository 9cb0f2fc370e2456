import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { openSnapshotFile } from "../../../../src/vm/snapshot/file.js";

const golden = (name: string) => fileURLToPath(new URL(`../../../../snapshots/golden/${name}`, import.meta.url));

async function read(name: string) {
	const snapshot = await openSnapshotFile(golden(name));
	try {
		const pieces: Uint8Array[] = [];
		for await (const piece of snapshot.state) pieces.push(piece.slice());
		return { header: snapshot.header, state: Buffer.concat(pieces).toString("latin1") };
	} finally {
		await snapshot.close();
	}
}

describe("the golden snapshots", () => {
	it("of version 1 without connections reads as it was written", async () => {
		const { header, state } = await read("v1.sbx86");
		expect(header).toMatchObject({ id: "s-20260102-030405-0badcafe", name: "golden", memoryMiB: 512, openFlows: [] });
		expect(state).toBe("state of version 1\n".repeat(100));
	});

	it("of version 1 with connections reads as it was written", async () => {
		const { header } = await read("v1-flows.sbx86");
		expect(header.openFlows).toEqual([
			{ protocol: "tcp", guestPort: 40_000, remoteAddress: "93.184.216.34", remotePort: 443 },
		]);
	});
});

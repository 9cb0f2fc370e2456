import { describe, expect, it } from "vitest";
import { NameTable } from "../../../../src/relay/egress/name-table.js";
import { VirtualClock } from "../virtual-clock.js";
import { ipv4 } from "./support.js";

const address = ipv4("93.184.216.34");

describe("the name table", () => {
	it("tells the names that an address was answered for, the latest first", () => {
		const names = new NameTable(new VirtualClock());
		names.record("a.test", address, 60);
		names.record("b.test", address, 60);
		names.record("a.test", address, 60);
		expect(names.namesOf(address)).toEqual(["a.test", "b.test"]);
		expect(names.namesOf(address + 1)).toEqual([]);
	});

	it("keeps a pair for the answer's time to live, at least for an hour, at most for a day", () => {
		const clock = new VirtualClock();
		const names = new NameTable(clock);
		names.record("short.test", address, 0);
		names.record("long.test", address, 7200);
		names.record("endless.test", address, 0xffffffff);
		clock.advance(3_600_000);
		expect(names.namesOf(address)).toEqual(["endless.test", "long.test"]);
		clock.advance(3_600_000);
		expect(names.namesOf(address)).toEqual(["endless.test"]);
		clock.advance(79_200_000);
		expect(names.namesOf(address)).toEqual([]);
		expect(names.size).toBe(0);
	});

	it("forgets the oldest pair when it is full", () => {
		const names = new NameTable(new VirtualClock(), 3);
		for (const name of ["a.test", "b.test", "c.test"]) names.record(name, address, 60);
		names.record("a.test", address, 60);
		names.record("d.test", address + 1, 60);
		expect(names.size).toBe(3);
		expect(names.namesOf(address)).toEqual(["a.test", "c.test"]);
		expect(names.namesOf(address + 1)).toEqual(["d.test"]);
	});
});

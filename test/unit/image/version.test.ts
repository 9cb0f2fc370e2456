import { describe, expect, it } from "vitest";
import { compareVersions, parseVersion } from "../../../src/image/sources/debian/version.js";

// From Debian Policy 5.6.12 and dpkg's own t-version.c.
const ASCENDING = [
	["0.9~rc1", "0.9"],
	["1.0~beta1~svn1245", "1.0~beta1"],
	["1.0~beta1", "1.0"],
	["1.2.3", "1.2.3-1"],
	["1.9", "1.10"],
	["1.0-1", "1.0-1.1"],
	["1.0-9", "1.0-10"],
	["2.41-12", "2.41-12+deb13u4"],
	["1.0a", "1.0+"],
	["1.0", "1:0.5"],
	["1:9", "2:1"],
	["5.2.37-2", "5.2.37-2+b10"],
	["1a", "1b"],
	["a", "+"],
] as const;

describe("version order", () => {
	for (const [older, newer] of ASCENDING) {
		it(`${older} is older than ${newer}`, () => {
			expect(compareVersions(older, newer)).toBeLessThan(0);
			expect(compareVersions(newer, older)).toBeGreaterThan(0);
		});
	}

	for (const [a, b] of [
		["1.0", "1.0-0"],
		["1.0", "0:1.0"],
		["1.001", "1.1"],
		["1.0-00", "1.0-0"],
	] as const) {
		it(`${a} equals ${b}`, () => expect(compareVersions(a, b)).toBe(0));
	}

	it("the last hyphen separates the revision", () => {
		expect(parseVersion("1:2.0-rc-3")).toEqual({ epoch: 1, upstream: "2.0-rc", revision: "3" });
	});

	it("a text with a blank, a slash or nothing in it is no version", () => {
		for (const text of ["", "1 2", "1/2", "x:1", "1-"]) expect(parseVersion(text)).toBeUndefined();
	});
});

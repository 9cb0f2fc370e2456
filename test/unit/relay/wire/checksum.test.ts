import { describe, expect, it } from "vitest";
import { foldChecksum, pseudoHeaderSum, sumWords } from "../../../../src/relay/wire/checksum.js";

describe("the Internet checksum", () => {
	it("of RFC 1071's example is what its section 3 says", () => {
		const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
		expect(sumWords(bytes, 0, 8)).toBe(0x2ddf0);
		expect(foldChecksum(0x2ddf0)).toBe(~0xddf2 & 0xffff);
	});

	it("of nothing is ffff", () => {
		expect(foldChecksum(sumWords(new Uint8Array(0), 0, 0))).toBe(0xffff);
	});

	it("takes an odd last byte as the high half of a word", () => {
		expect(sumWords(Uint8Array.of(0x12, 0x34, 0x56), 0, 3)).toBe(0x1234 + 0x5600);
	});

	it("folds as often as it carries", () => {
		expect(foldChecksum(0xffff_ffff)).toBe(0);
		expect(foldChecksum(0x1_ffff)).toBe(0xfffe);
		expect(foldChecksum(2 ** 48 - 1)).toBe(0);
	});

	it("holds its carries over the longest packet of ones", () => {
		const ones = new Uint8Array(65_535 + 8).fill(0xff);
		for (const start of [0, 1, 2, 3]) expect(foldChecksum(sumWords(ones, start, start + 65_534))).toBe(0);
	});

	it("of the pseudo-header counts both halves of the addresses", () => {
		expect(pseudoHeaderSum(0xc0a80001, 0xfffefffd, 17, 20)).toBe(0xc0a8 + 0x0001 + 0xfffe + 0xfffd + 17 + 20);
	});
});

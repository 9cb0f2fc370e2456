import { describe, expect, it } from "vitest";
import { parseStanzas, readStanzas } from "../../../src/image/sources/debian/control.js";

const TEXT = "Package: a\nDescription: first\n second\n\tthird\n\n# a comment\nPackage: b\nversion:1\n";

async function collect(pieces: readonly string[]): Promise<Record<string, string>[]> {
	const stanzas: Record<string, string>[] = [];
	async function* chunks() {
		for (const piece of pieces) yield Buffer.from(piece);
	}
	for await (const stanza of readStanzas(chunks(), "test")) stanzas.push(Object.fromEntries(stanza));
	return stanzas;
}

describe("deb822", () => {
	it("folded values keep their lines and field names lose their case", () => {
		expect(parseStanzas(TEXT, "test").map((stanza) => Object.fromEntries(stanza))).toEqual([
			{ package: "a", description: "first\n second\n\tthird" },
			{ package: "b", version: "1" },
		]);
	});

	it("a stream split at any byte gives the same stanzas", async () => {
		const whole = await collect([TEXT]);
		for (let at = 1; at < TEXT.length; at++) {
			expect(await collect([TEXT.slice(0, at), TEXT.slice(at)])).toEqual(whole);
		}
	});

	it("a line that is no field is refused with the place it came from", () => {
		expect(() => parseStanzas("Package: a\nnonsense\n", "the index")).toThrow(
			/the index: not a "Field: value" line: "nonsense"/,
		);
	});

	it("a field that occurs twice is refused", () => {
		expect(() => parseStanzas("Package: a\nPackage: b\n", "test")).toThrow(/occurs twice/);
	});

	it("a stanza without an end is refused at the bound", async () => {
		await expect(collect(["A: ", "x".repeat(1024 * 1024 + 1)])).rejects.toThrow(/longer than 1048576 characters/);
	});
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LineReader } from "../../src/line-reader.js";

describe("LineReader", () => {
	it("gives the same lines however the stream is cut", () => {
		const lines = fc.array(fc.string({ unit: "binary" }).map((text) => text.replaceAll("\n", "")));
		fc.assert(
			fc.property(lines, fc.infiniteStream(fc.integer({ min: 1, max: 7 })), (expected, sizes) => {
				const bytes = Buffer.from(expected.map((line) => `${line}\n`).join(""));
				const reader = new LineReader(10_000);
				const seen: string[] = [];
				for (let at = 0; at < bytes.length; ) {
					const size = sizes.next().value;
					seen.push(...reader.push(bytes.subarray(at, at + size)));
					at += size;
				}
				expect(seen).toEqual(expected.map((line) => Buffer.from(line).toString()));
			}),
		);
	});

	it("throws away a line that is too long and goes on with the next", () => {
		const reader = new LineReader(4);
		expect(reader.push(Buffer.from("abc"))).toEqual([]);
		expect(reader.push(Buffer.from("defgh"))).toEqual([]);
		expect(reader.push(Buffer.from("i\nokay\nlonger\n\n"))).toEqual(["too-long", "okay", "too-long", ""]);
	});

	it("takes a 20 MB line in small chunks in linear time", () => {
		const reader = new LineReader(100_000_000);
		const chunk = Buffer.alloc(65_536, "a");
		const startedAt = performance.now();
		for (let i = 0; i < 320; i++) reader.push(chunk);
		expect(reader.push(Buffer.from("\n"))[0]).toHaveLength(320 * 65_536);
		expect(performance.now() - startedAt).toBeLessThan(2000);
	});
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeOutput, strayHeadBytes, unfinishedTailBytes } from "../../src/tools/utf8.js";

const text = fc.string({ unit: "binary", maxLength: 60 }).map((value) => Buffer.from(value));

describe("output that was cut", () => {
	it("never shows half a character of what was whole", () => {
		fc.assert(
			fc.property(text, fc.nat(), fc.nat(), (bytes, a, b) => {
				if (bytes.toString().includes("\ufffd")) return;
				const [start, end] = [a % (bytes.length + 1), b % (bytes.length + 1)].sort((x, y) => x - y) as [number, number];
				if (start === end) return;
				const cut = { head: bytes.subarray(0, start), tail: bytes.subarray(end), omittedBytes: end - start };
				const decoded = decodeOutput(cut);
				expect(decoded.text).not.toContain("\ufffd");
				expect(decoded.omittedBytes).toBeGreaterThanOrEqual(cut.omittedBytes);
				expect(decoded.omittedBytes).toBeLessThanOrEqual(cut.omittedBytes + 6);
				const [head, tail] = decoded.text.split(/\n\[\.\.\. \d+ bytes left out \.\.\.\]\n/);
				expect(bytes.toString().startsWith(head ?? "?")).toBe(true);
				expect(bytes.toString().endsWith(tail ?? "?")).toBe(true);
				const kept = Buffer.byteLength(head ?? "") + Buffer.byteLength(tail ?? "");
				expect(kept + decoded.omittedBytes).toBe(bytes.length);
			}),
		);
	});

	it("is decoded without a throw whatever the bytes", () => {
		const bytes = fc.uint8Array({ maxLength: 40 });
		fc.assert(
			fc.property(bytes, bytes, fc.nat(), (head, tail, omittedBytes) => {
				const { text: shown } = decodeOutput({ head, tail, omittedBytes });
				if (omittedBytes === 0) expect(shown).toBe(Buffer.concat([head, tail]).toString());
				expect(unfinishedTailBytes(head)).toBeLessThanOrEqual(3);
				expect(strayHeadBytes(tail)).toBeLessThanOrEqual(3);
			}),
		);
	});
});

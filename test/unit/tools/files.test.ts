import { describe, expect, it } from "vitest";
import { encode } from "../../../src/tools/read-file.js";
import { decodeContent } from "../../../src/tools/write-file.js";

const text = Buffer.from("aé€😀");

describe("the content of a file that is read", () => {
	it("is text where it is UTF-8, and base64 where it is not", () => {
		expect(encode({ bytes: text, truncated: false }, 0, undefined)).toMatchObject({
			content: "aé€😀",
			encoding: "utf8",
		});
		expect(encode({ bytes: Buffer.from([0xff, 0xfe]), truncated: false }, 0, undefined)).toMatchObject({
			content: "//4=",
			encoding: "base64",
		});
		expect(encode({ bytes: text, truncated: false }, 0, "base64")).toMatchObject({ content: text.toString("base64") });
	});

	it("ends on a character's border where it is cut, and the next read starts there", () => {
		for (let limit = 4; limit <= text.length; limit++) {
			let offset = 0;
			let seen = "";
			while (offset < text.length) {
				const bytes = text.subarray(offset, offset + limit);
				const part = encode({ bytes, truncated: offset + bytes.length < text.length }, offset, undefined);
				expect(part.encoding).toBe("utf8");
				seen += part.content;
				offset += part.skippedBytes + part.bytes;
			}
			expect(seen).toBe("aé€😀");
		}
	});

	it("is base64 where not one character fits, or an error where text was asked for", () => {
		const part = { bytes: text.subarray(6, 8), truncated: true };
		expect(encode(part, 6, undefined)).toMatchObject({ encoding: "base64", bytes: 2 });
		expect(() => encode(part, 6, "utf8")).toThrowError(/hold no whole character/);
	});

	it("shows invalid bytes as U+FFFD and says so where text was asked for", () => {
		const part = encode({ bytes: Buffer.from([0x61, 0xff]), truncated: false }, 0, "utf8");
		expect(part.content).toBe("a\ufffd");
		expect(part.notices[0]).toMatch(/^not UTF-8/);
	});

	it("does not take the end of a broken file for a cut", () => {
		expect(encode({ bytes: Buffer.from([0x61, 0xc3]), truncated: false }, 0, undefined).encoding).toBe("base64");
	});
});

describe("the content of a file that is written", () => {
	it("is exactly what it stands for", () => {
		expect(decodeContent("aé€😀", "utf8")).toEqual(text);
		expect(decodeContent(text.toString("base64"), "base64")).toEqual(text);
		expect(decodeContent("", "base64")).toHaveLength(0);
	});

	it.each([
		["abc", "are not whole groups of four"],
		["ab=c", "are not whole groups of four"],
		["abcd\n", 'character 4 is "\\n"'],
		["ab-_", 'character 2 is "-"'],
		["YR==", "are not whole groups of four"],
	])("is refused as base64: %j", (content, reason) => {
		expect(() => decodeContent(content, "base64")).toThrowError(
			expect.objectContaining({ code: "invalid-argument", message: expect.stringContaining(reason) }),
		);
	});

	it("is refused where no UTF-8 stands for it, or where it is too long", () => {
		expect(() => decodeContent("a\ud800b", "utf8")).toThrowError(/unpaired surrogate at character 1/);
		expect(() => decodeContent("a".repeat(16 * 2 ** 20 + 1), "utf8")).toThrowError(/16777217 bytes, at most 16777216/);
	});
});

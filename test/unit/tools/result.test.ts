import { describe, expect, it } from "vitest";
import { SandboxError } from "../../../src/errors.js";
import { answerResult, errorResult } from "../../../src/tools/result.js";

describe("results", () => {
	it("put the structure beside the text", () => {
		expect(answerResult({ structured: { a: 1 }, text: "one" })).toEqual({
			content: [{ type: "text", text: "one" }],
			structuredContent: { a: 1 },
		});
	});

	it("show an error's code, message and next step in the text", () => {
		expect(errorResult(new SandboxError("no-space", "the disk is full", "free some space"))).toEqual({
			content: [{ type: "text", text: "Error (no-space): the disk is full.\nWhat to do: free some space." }],
			isError: true,
		});
		expect(errorResult(new SandboxError("timeout", "no answer")).content[0]?.text).toBe("Error (timeout): no answer.");
	});

	it("call an error that is not ours a defect", () => {
		expect(errorResult(new TypeError("x is undefined")).content[0]?.text).toBe(
			"Error (internal): x is undefined.\nWhat to do: this is a defect of sandbox86; its log on stderr has the details.",
		);
	});
});

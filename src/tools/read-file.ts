import { z } from "zod";
import { SandboxError } from "../errors.js";
import type { FileContent } from "../vm/machine.js";
import { limits } from "./limits.js";
import { boundedInteger, defineTool, guestPath } from "./tool.js";
import { decodeUtf8, isValidUtf8, strayHeadBytes, unfinishedTailBytes } from "./utf8.js";

type Encoding = "utf8" | "base64";

export const readFileTool = defineTool({
	name: "read_file",
	title: "Read a file",
	description:
		"Reads bytes of a file in the machine, as text, or as base64 where they are not UTF-8. " +
		"Relative paths start at the shell's folder. When truncated, the text says at which offset to go on.",
	input: z.strictObject({
		path: guestPath,
		offset: boundedInteger(0, Number.MAX_SAFE_INTEGER, "bytes").optional().describe("first byte, default 0"),
		limit: boundedInteger(1, limits.maxFileBytes, "bytes")
			.optional()
			.describe(`bytes, default ${limits.defaultReadBytes}`),
		encoding: z.enum(["utf8", "base64"]).optional().describe("default: utf8 if the bytes are"),
	}),
	output: z.object({
		content: z.string(),
		encoding: z.enum(["utf8", "base64"]),
		size_bytes: z.int().min(0).describe("of the whole file"),
		truncated: z.boolean(),
	}),
	annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
	async run({ path, offset = 0, limit = limits.defaultReadBytes, encoding }, context) {
		const machine = await context.machine();
		const file = await machine.readFile(path, { offset, limit });
		const part = encode(file, offset, encoding);
		const structured = {
			content: part.content,
			encoding: part.encoding,
			size_bytes: file.sizeBytes,
			truncated: file.truncated,
		};
		const notices = [...file.notices, ...part.notices];
		if (part.encoding === "base64") notices.push(`base64 of ${part.bytes} bytes`);
		if (file.truncated) notices.push(`truncated: go on with offset ${offset + part.skippedBytes + part.bytes}`);
		return { structured, text: [textOf(part.content), ...notices.map((notice) => `[${notice}]`)].join("\n") };
	},
});

export interface EncodedPart {
	readonly content: string;
	readonly encoding: Encoding;
	/** Bytes of the file that `content` stands for, and those skipped before them. */
	readonly bytes: number;
	readonly skippedBytes: number;
	readonly notices: readonly string[];
}

/** Text if it is UTF-8 but for characters cut at its ends, which are left to the neighbouring reads; base64 otherwise. */
export function encode(
	{ bytes, truncated }: Pick<FileContent, "bytes" | "truncated">,
	offset: number,
	wanted: Encoding | undefined,
): EncodedPart {
	if (wanted === "base64") return asBase64(bytes);
	const skippedBytes = offset > 0 ? strayHeadBytes(bytes) : 0;
	const tail = truncated ? unfinishedTailBytes(bytes.subarray(skippedBytes)) : 0;
	const kept = bytes.subarray(skippedBytes, bytes.length - tail);
	const cutAway = kept.length === 0 && bytes.length > 0;
	if (wanted === undefined) return isValidUtf8(kept) && !cutAway ? asText(kept, skippedBytes, []) : asBase64(bytes);
	if (cutAway) {
		throw new SandboxError(
			"invalid-argument",
			`the ${bytes.length} bytes at offset ${offset} hold no whole character`,
			"give a limit of at least 4, or encoding base64",
		);
	}
	const notices = isValidUtf8(kept)
		? []
		: ["not UTF-8: invalid bytes are shown as U+FFFD; encoding base64 gives them exactly"];
	return asText(kept, skippedBytes, notices);
}

function asText(bytes: Uint8Array, skippedBytes: number, notices: readonly string[]): EncodedPart {
	const skipped =
		skippedBytes === 0 ? [] : [`the offset is inside a character: ${skippedBytes} bytes of it were skipped`];
	return {
		content: decodeUtf8(bytes),
		encoding: "utf8",
		bytes: bytes.length,
		skippedBytes,
		notices: [...skipped, ...notices],
	};
}

function asBase64(bytes: Uint8Array): EncodedPart {
	const content = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
	return { content, encoding: "base64", bytes: bytes.length, skippedBytes: 0, notices: [] };
}

/** A large file is sent once, not twice. */
function textOf(content: string): string {
	if (content.length <= limits.maxTextChars) return content;
	return `[${content.length} characters: see content in structuredContent]`;
}

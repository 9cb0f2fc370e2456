import { z } from "zod";
import { SandboxError } from "../errors.js";
import { limits } from "./limits.js";
import { defineTool, guestPath } from "./tool.js";

/** Octal text: JSON has no octal numbers, and 755 as a number would be taken for another mode. */
const MODE = /^0?[0-7]{3,4}$/;

export const writeFileTool = defineTool({
	name: "write_file",
	title: "Write a file",
	description:
		"Writes or appends to a file in the machine, at most 16 MiB at a time; atomic, makes missing parent folders. " +
		"Content arrives exactly as given, nothing is quoted or expanded.",
	input: z.strictObject({
		path: guestPath,
		content: z.string(),
		encoding: z.enum(["utf8", "base64"]).optional().describe("of content, default utf8"),
		mode: z
			.string()
			.regex(MODE, 'octal permissions as text are needed, e.g. "0755"')
			.optional()
			.describe('octal text, e.g. "0755"; default: the old file\'s, else 0644'),
		append: z.boolean().optional(),
	}),
	output: z.object({ path: z.string(), size_bytes: z.int().min(0) }),
	annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false },
	async run({ path, content, encoding = "utf8", mode, append }, context) {
		const bytes = decodeContent(content, encoding);
		const machine = await context.machine();
		const written = await machine.writeFile(path, bytes, {
			...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
			...(append === undefined ? {} : { append }),
		});
		const notices = written.notices.map((notice) => `\n[${notice}]`).join("");
		return {
			structured: { path: written.path, size_bytes: written.sizeBytes },
			text: `${append ? "Appended" : "Wrote"} ${bytes.length} bytes; ${written.path} has ${written.sizeBytes} bytes.${notices}`,
		};
	},
});

/** The exact bytes that `content` stands for; throws SandboxError("invalid-argument") for anything doubtful. */
export function decodeContent(content: string, encoding: "utf8" | "base64"): Uint8Array {
	const bytes = encoding === "base64" ? decodeBase64(content) : encodeText(content);
	if (bytes.length > limits.maxFileBytes) {
		throw refuse(
			`content has ${bytes.length} bytes, at most ${limits.maxFileBytes} are taken at once`,
			"write it in parts, the later ones with append",
		);
	}
	return bytes;
}

function encodeText(content: string): Uint8Array {
	const lone = content.search(/\p{Surrogate}/u);
	if (lone !== -1) {
		throw refuse(
			`content has an unpaired surrogate at character ${lone}, which no UTF-8 stands for`,
			"send bytes as base64",
		);
	}
	return Buffer.from(content, "utf8");
}

function decodeBase64(content: string): Uint8Array {
	const bytes = Buffer.from(content, "base64");
	if (bytes.toString("base64") === content) return bytes;
	const wrong = content.search(/[^A-Za-z0-9+/=]/);
	const reason =
		wrong !== -1
			? `character ${wrong} is ${JSON.stringify(content[wrong])}`
			: `its ${content.length} characters are not whole groups of four that are padded with zeros and =`;
	throw refuse(
		`content is not base64: ${reason}`,
		"encode it as RFC 4648, section 4 says, with padding and without line breaks",
	);
}

function refuse(message: string, hint: string): SandboxError {
	return new SandboxError("invalid-argument", message, hint);
}

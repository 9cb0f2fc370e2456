/** What a tool's answer or failure looks like to the client. */

import { SandboxError } from "../errors.js";
import type { ToolAnswer } from "./tool.js";

export interface ToolResult {
	readonly content: readonly { readonly type: "text"; readonly text: string }[];
	readonly structuredContent?: Record<string, unknown>;
	readonly isError?: true;
}

export function answerResult({ structured, text }: ToolAnswer<Record<string, unknown>>): ToolResult {
	return { content: [{ type: "text", text }], structuredContent: structured };
}

/** The message and the next step stand in the text, where a model reads them. */
export function errorResult(error: unknown): ToolResult {
	const { code, message, hint } = asSandboxError(error);
	const next = hint === undefined ? "" : `\nWhat to do: ${hint}.`;
	return { content: [{ type: "text", text: `Error (${code}): ${message}.${next}` }], isError: true };
}

/** An error that is not one of ours is a defect of ours. */
export function asSandboxError(error: unknown): SandboxError {
	if (error instanceof SandboxError) return error;
	const message = error instanceof Error ? error.message : String(error);
	return new SandboxError("internal", message, "this is a defect of sandbox86; its log on stderr has the details", {
		cause: error,
	});
}

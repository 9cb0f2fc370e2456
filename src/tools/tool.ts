/** What a tool is: schemas, words and a handler. No protocol types in here. */

import { z } from "zod";
import { SandboxError } from "../errors.js";
import type { Machine } from "../vm/machine.js";
import type { SnapshotStore } from "../vm/snapshot/store.js";
import { limits } from "./limits.js";

/** What a handler works with. */
export interface ToolContext {
	/** The machine; waits for its image to be built and throws SandboxError("image-building") when that takes long. */
	machine(): Promise<Machine>;
	readonly snapshots: SnapshotStore;
	/** Leads a free port of the host's loopback to the machine's, which must run; gives its URL. */
	forwardPort(guestPort: number): Promise<string>;
	/** Aborted when the caller gives up. */
	readonly signal: AbortSignal;
	/** Tells the caller what goes on; resolves once it is sent. Undefined if the caller doesn't listen. */
	readonly progress: ((message: string) => Promise<void>) | undefined;
	/** Time for a command that names none, ms. */
	readonly defaultTimeoutMs: number;
}

export interface ToolAnswer<Output> {
	readonly structured: Output;
	/** The same for a reader. */
	readonly text: string;
}

/** Hints for the client, as the protocol names them. */
export interface ToolAnnotations {
	readonly readOnlyHint: boolean;
	readonly destructiveHint: boolean;
	readonly idempotentHint: boolean;
	/** Whether the tool can reach the world outside of the machine. */
	readonly openWorldHint: boolean;
}

export interface ToolDefinition<Input extends z.ZodObject, Output extends z.ZodObject> {
	readonly name: string;
	readonly title: string;
	readonly description: string;
	readonly input: Input;
	readonly output: Output;
	readonly annotations: ToolAnnotations;
	run(input: z.output<Input>, context: ToolContext): Promise<ToolAnswer<z.input<Output>>>;
}

/** A tool whose input has yet to be checked. */
export interface Tool {
	readonly name: string;
	readonly title: string;
	readonly description: string;
	readonly annotations: ToolAnnotations;
	readonly inputSchema: JsonSchema;
	readonly outputSchema: JsonSchema;
	call(input: unknown, context: ToolContext): Promise<ToolAnswer<Record<string, unknown>>>;
}

export type JsonSchema = { readonly type: "object"; readonly [key: string]: unknown };

export function defineTool<Input extends z.ZodObject, Output extends z.ZodObject>(
	definition: ToolDefinition<Input, Output>,
): Tool {
	const { name, title, description, annotations, input, output } = definition;
	return {
		name,
		title,
		description,
		annotations,
		inputSchema: jsonSchema(input, "input"),
		outputSchema: jsonSchema(output, "output"),
		async call(raw, context) {
			const parsed = input.safeParse(raw ?? {});
			if (!parsed.success) throw explainInput(name, Object.keys(input.shape), parsed.error);
			return definition.run(parsed.data, context);
		},
	};
}

/** Names the field, the rule and, for an unknown field, the fields there are. */
function explainInput(tool: string, fields: readonly string[], error: z.ZodError): SandboxError {
	const problems = error.issues.slice(0, limits.maxIssues).map((issue) => {
		if (issue.code === "unrecognized_keys") {
			const names = issue.keys.slice(0, limits.maxIssues).map((key) => JSON.stringify(key.slice(0, 100)));
			return `unknown field ${names.join(", ")}`;
		}
		const where = issue.path.join(".");
		return where === "" ? issue.message : `${where}: ${issue.message}`;
	});
	return new SandboxError(
		"invalid-argument",
		`the input of ${tool} is wrong: ${problems.join("; ")}`,
		`the fields of ${tool} are ${fields.join(", ")}; correct the call and send it again`,
	);
}

function jsonSchema(schema: z.ZodObject, io: "input" | "output"): JsonSchema {
	const { $schema: _, ...rest } = z.toJSONSchema(schema, { io }) as Record<string, unknown>;
	return { ...rest, type: "object" };
}

/** Text without NUL, at most `maxBytes` bytes of UTF-8. */
export function boundedText(what: string, maxBytes: number) {
	return z
		.string()
		.min(1, `the ${what} is empty`)
		.refine((text) => !text.includes("\0"), `the ${what} holds a NUL character`)
		.refine((text) => Buffer.byteLength(text) <= maxBytes, {
			error: (issue) =>
				`the ${what} has ${Buffer.byteLength(String(issue.input))} bytes, at most ${maxBytes} are taken`,
		});
}

/** A whole number; the error names the bounds. */
export function boundedInteger(least: number, most: number, unit: string) {
	const error = `a whole number of ${unit} from ${least} to ${most} is needed`;
	return z.int({ error }).min(least, error).max(most, error);
}

export const guestPath = boundedText("path", limits.maxPathBytes);

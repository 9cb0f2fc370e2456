import { type ParseArgsConfig, parseArgs } from "node:util";
import { SandboxError } from "../../errors.js";

type Options = NonNullable<ParseArgsConfig["options"]>;

/** Reads the arguments after the command's name. `form` is what the command takes, for the error: "image diff A B". */
export function parseArguments<O extends Options>(
	args: readonly string[],
	form: string,
	count: number,
	options: O,
): ReturnType<typeof parseArgs<{ options: O; allowPositionals: true }>> {
	const wrong = (problem: string) => new SandboxError("invalid-argument", problem, `usage: sandbox86 ${form}`);
	let parsed: ReturnType<typeof parseArgs<{ options: O; allowPositionals: true }>>;
	try {
		parsed = parseArgs({ args: [...args], options, allowPositionals: true });
	} catch (error) {
		throw wrong(error instanceof Error ? error.message : String(error));
	}
	const found = parsed.positionals.length;
	if (found !== count) throw wrong(`there ${found === 1 ? "is 1 name" : `are ${found} names`} where ${count} belong`);
	return parsed;
}

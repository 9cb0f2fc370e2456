/** Every setting: one schema, read from the command line and the environment once. process.env is read nowhere else. */

import { isAbsolute, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import envPaths from "env-paths";
import { z } from "zod";
import { SandboxError } from "./errors.js";
import { IMAGE_NAME } from "./image/image-name.js";

/** Longest time that a caller may give a command, ms. */
export const MAX_TIMEOUT_MS = 600_000;

/** Below this a limit of bytes would let hardly a packet through. */
const MIN_BYTE_COUNT = 1024;
/** The letter at N stands for 1024^N. */
const UNITS = ["", "k", "M", "G"];

/** v86 puts the initramfs at 64 MiB (src/kernel.js, load_kernel); with less memory no kernel boots. */
const MIN_MEMORY_MIB = 72;

interface OptionMeta {
	readonly flag: string;
	readonly env: string;
	/** What stands for the value in the help text. */
	readonly value: string;
	/** Text of the default in the help, where it isn't the schema's own. */
	readonly defaultText?: string;
}

function option<T extends z.ZodType>(schema: T, meta: OptionMeta, description: string): T {
	return schema.meta({ ...meta, description });
}

/** A whole number in its usual spelling; "5e2", "0x10" and "" are none. */
function wholeNumber(least: number, most: number, unit: string) {
	const rule = `a whole number of ${unit} from ${least} to ${most} is needed`;
	return z
		.string()
		.regex(/^\d{1,9}$/, rule)
		.transform(Number)
		.refine((value) => value >= least && value <= most, rule);
}

/** "1048576", "512k", "10M", "2G": bytes, each letter 1024 times the one before. */
function byteCount(rule: string) {
	return z
		.string()
		.regex(/^\d{1,9}[kMG]?$/, rule)
		.transform((text) => Number.parseInt(text, 10) * 1024 ** Math.max(0, UNITS.indexOf(text.at(-1) ?? "")))
		.refine((bytes) => bytes >= MIN_BYTE_COUNT, `${rule}, at least ${MIN_BYTE_COUNT}`);
}

/** An option that may be given several times; its variable holds the values with commas between them. */
const list = z.array(z.string()).default([]);

const filePath = z
	.string()
	.min(1, "a path is needed")
	.refine((path) => !path.includes("\0"), "a path without NUL is needed")
	.transform((path) => (isAbsolute(path) ? path : resolve(path)));

/** Each option as text, the way flags and variables bring it; the result is `Config`. */
export const configSchema = z.object({
	image: option(
		z.string().regex(IMAGE_NAME, "a name of up to 64 of a-z 0-9 . _ - is needed").default("base"),
		{ flag: "image", env: "SANDBOX86_IMAGE", value: "NAME" },
		"the image that the machine runs: base (Debian with Python, git and curl), tiny (busybox) or your own",
	),
	memoryMiB: option(
		wholeNumber(MIN_MEMORY_MIB, 2047, "MiB").optional(),
		{
			flag: "memory",
			env: "SANDBOX86_MEMORY_MIB",
			value: "MIB",
			defaultText: "what the image's recipe says, else 512",
		},
		`the machine's memory in MiB, ${MIN_MEMORY_MIB} to 2047; its disk is in there, too`,
	),
	home: option(
		filePath.default(() => envPaths("sandbox86", { suffix: "" }).data),
		{ flag: "home", env: "SANDBOX86_HOME", value: "FOLDER", defaultText: "the platform's data folder" },
		"the folder of all data: images, snapshots, logs",
	),
	mirror: option(
		z.url({ protocol: /^https?$/, error: "a URL with http or https is needed" }).optional(),
		{ flag: "mirror", env: "SANDBOX86_MIRROR", value: "URL", defaultText: "the host's own, else a public one" },
		"the Debian mirror that image builds download from; signatures decide, whatever its name",
	),
	network: option(
		z.enum(["relay", "fetch", "none"], "one of relay, fetch, none is needed").default("relay"),
		{ flag: "network", env: "SANDBOX86_NETWORK", value: "KIND" },
		"the machine's network: relay (what the rules let out), fetch (HTTP by v86 itself, no rules) or none",
	),
	allow: option(
		list,
		{ flag: "allow", env: "SANDBOX86_ALLOW", value: "RULE", defaultText: "every public address" },
		"let the machine reach NAME, *.NAME, an address or network, with :PORT if wanted, and nothing else (repeatable)",
	),
	deny: option(
		list,
		{ flag: "deny", env: "SANDBOX86_DENY", value: "RULE", defaultText: "none" },
		"close what --allow or the default opens; written as --allow (repeatable)",
	),
	hostPort: option(
		list,
		{ flag: "host-port", env: "SANDBOX86_HOST_PORT", value: "PORT", defaultText: "none" },
		"let the machine reach the host's localhost:PORT as 10.0.2.2:PORT, TCP and UDP (repeatable)",
	),
	forward: option(
		list,
		{ flag: "forward", env: "SANDBOX86_FORWARD", value: "HOST:GUEST", defaultText: "none" },
		"lead the host's 127.0.0.1:HOST to the machine's port GUEST; append /udp for UDP (repeatable)",
	),
	dns: option(
		list,
		{ flag: "dns", env: "SANDBOX86_DNS", value: "ADDRESS", defaultText: "those of the host" },
		"a DNS server that answers for the machine, ADDRESS or ADDRESS:PORT (repeatable)",
	),
	auditLog: option(
		filePath.optional(),
		{
			flag: "audit-log",
			env: "SANDBOX86_AUDIT_LOG",
			value: "FILE",
			defaultText: "logs/network.jsonl in the data folder",
		},
		"the file that gets a line of JSON for each connection and DNS question, refused ones too",
	),
	pcap: option(
		filePath.optional(),
		{ flag: "pcap", env: "SANDBOX86_PCAP", value: "FILE", defaultText: "none" },
		"record the machine's frames in FILE, for tcpdump or Wireshark",
	),
	bandwidth: option(
		byteCount("a rate in bytes per second such as 500k or 10M is needed").optional(),
		{ flag: "bandwidth", env: "SANDBOX86_BANDWIDTH", value: "RATE", defaultText: "no limit" },
		"bytes per second that the machine may send, and as many that it may receive; 500k, 10M (of 1024)",
	),
	maxBytes: option(
		byteCount("a number of bytes such as 500M or 2G is needed").optional(),
		{ flag: "max-bytes", env: "SANDBOX86_MAX_BYTES", value: "BYTES", defaultText: "no limit" },
		"bytes that the machine may send and receive in all; connections are reset then",
	),
	maxFlowBytes: option(
		byteCount("a number of bytes such as 500M or 2G is needed").optional(),
		{ flag: "max-flow-bytes", env: "SANDBOX86_MAX_FLOW_BYTES", value: "BYTES", defaultText: "no limit" },
		"bytes that one connection may carry, both ways together",
	),
	timeoutMs: option(
		wholeNumber(1, MAX_TIMEOUT_MS, "milliseconds").default(50_000),
		{ flag: "timeout", env: "SANDBOX86_TIMEOUT_MS", value: "MS" },
		"how long a command may run when the call doesn't say; most clients give up after 60000",
	),
	logLevel: option(
		z.enum(["error", "warn", "info", "debug"], "one of error, warn, info, debug is needed").default("warn"),
		{ flag: "log-level", env: "SANDBOX86_LOG_LEVEL", value: "LEVEL" },
		"what is written to stderr: error, warn, info or debug",
	),
});

export type Config = z.output<typeof configSchema>;

export const COMMANDS = {
	serve: "serve MCP over stdin and stdout (the default)",
	image: "build, list, verify or remove images: sandbox86 image --help",
	snapshot: "list or remove snapshots: sandbox86 snapshot --help",
	relay: "run the network relay alone, for any v86: sandbox86 relay --help",
} as const;

export type CommandName = keyof typeof COMMANDS;

export type CommandLine =
	| { readonly kind: "help" }
	| { readonly kind: "version" }
	| { readonly kind: "run"; readonly command: CommandName; readonly config: Config; readonly args: readonly string[] };

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the arguments after the program's name, and the environment; a flag goes before its variable. Words after the command,
 * and flags that only the command knows, are handed on in `args`. Throws SandboxError("invalid-argument").
 */
export function parseCommandLine(argv: readonly string[], env: Environment = process.env): CommandLine {
	const { tokens } = parseArgs({
		args: [...argv],
		options: parseArgsOptions(),
		allowPositionals: true,
		strict: false,
		tokens: true,
	});
	const flags = new Map<string, string[]>();
	const args: string[] = [];
	let command: CommandName | undefined;
	let meta: "help" | "version" | undefined;
	for (const token of tokens) {
		if (token.kind === "positional") {
			if (command === undefined) command = commandNamed(token.value);
			else args.push(token.value);
		} else if (token.kind === "option") {
			const name = token.name;
			if (name === "help" || name === "h") {
				if (command === undefined || command === "serve") meta ??= "help";
				else args.push("--help");
			} else if (name === "version" || name === "V") meta ??= "version";
			else if (!FLAGS.has(name)) {
				if (command === undefined || command === "serve") throw unknownFlag(token.rawName);
				args.push(token.inlineValue ? `${token.rawName}=${token.value}` : token.rawName);
			} else if (token.value === undefined || (!token.inlineValue && token.value.startsWith("--"))) {
				throw usage(`${token.rawName} needs a value`);
			} else if (!flags.has(name)) flags.set(name, [token.value]);
			else if (REPEATABLE.has(name)) flags.get(name)?.push(token.value);
			else throw usage(`${token.rawName} is given twice`);
		}
	}
	if (meta !== undefined) return { kind: meta };
	if ((command ?? "serve") === "serve" && args.length > 0) throw usage(`unknown argument ${JSON.stringify(args[0])}`);
	return { kind: "run", command: command ?? "serve", config: parseConfig(flags, env), args };
}

/** The text of --help, made from the schema. */
export function helpText(): string {
	const rows = optionList().map(({ meta, description, defaultValue }) => {
		const fallback = meta.defaultText ?? defaultValue;
		return `  --${meta.flag} ${meta.value}\n      ${description}\n      (${meta.env}; default: ${fallback})`;
	});
	const commands = Object.entries(COMMANDS).map(([name, description]) => `  ${name.padEnd(8)} ${description}`);
	return [
		"Usage: sandbox86 [command] [options]",
		"",
		"A 32-bit Linux machine for a coding agent, as an MCP server over stdio.",
		"",
		"Commands:",
		...commands,
		"",
		"Options (a flag goes before its environment variable):",
		...rows,
		"  -h, --help\n      show this text",
		"  -V, --version\n      show the version",
		"",
	].join("\n");
}

/** The folders in `home`, absolute. */
export function dataFolders(home: string): { readonly snapshots: string; readonly logs: string } {
	return { snapshots: join(home, "snapshots"), logs: join(home, "logs") };
}

function parseConfig(flags: ReadonlyMap<string, readonly string[]>, env: Environment): Config {
	const input: Record<string, string | readonly string[]> = {};
	const sources: Record<string, string> = {};
	for (const { key, meta } of optionList()) {
		const fromFlag = flags.get(meta.flag);
		// An empty variable counts as unset: clients' configuration files leave them empty.
		const fromEnv = env[meta.env] || undefined;
		if (fromFlag === undefined && fromEnv === undefined) continue;
		input[key] = REPEATABLE.has(meta.flag) ? (fromFlag ?? splitList(fromEnv ?? "")) : (fromFlag?.[0] ?? fromEnv ?? "");
		sources[key] = fromFlag === undefined ? meta.env : `--${meta.flag}`;
	}
	const parsed = configSchema.safeParse(input);
	if (parsed.success) return parsed.data;
	const issue = parsed.error.issues[0];
	const key = String(issue?.path[0]);
	throw usage(
		`${sources[key] ?? key} is ${JSON.stringify(String(input[key]).slice(0, 100))}, but ${issue?.message ?? "that is wrong"}`,
	);
}

interface OptionRow {
	readonly key: string;
	readonly meta: OptionMeta;
	readonly description: string;
	readonly defaultValue: string;
}

function optionList(): OptionRow[] {
	return Object.entries(configSchema.shape).map(([key, schema]) => {
		const { description, ...meta } = schema.meta() as unknown as OptionMeta & { description: string };
		const parsed = meta.defaultText === undefined ? schema.safeParse(undefined) : undefined;
		return { key, meta, description, defaultValue: String(parsed?.data ?? "none") };
	});
}

function splitList(text: string): string[] {
	return text
		.split(",")
		.map((part) => part.trim())
		.filter((part) => part !== "");
}

/** The flags that may be given several times. */
const REPEATABLE: ReadonlySet<string> = new Set(
	optionList()
		.filter(({ key }) => Array.isArray(configSchema.shape[key as keyof Config].safeParse(undefined).data))
		.map(({ meta }) => meta.flag),
);

const FLAGS: ReadonlySet<string> = new Set(optionList().map(({ meta }) => meta.flag));

function parseArgsOptions(): Record<string, { type: "string" | "boolean"; short?: string }> {
	return {
		...Object.fromEntries([...FLAGS].map((flag) => [flag, { type: "string" as const }])),
		help: { type: "boolean", short: "h" },
		version: { type: "boolean", short: "V" },
	};
}

function commandNamed(word: string): CommandName {
	if (Object.hasOwn(COMMANDS, word)) return word as CommandName;
	throw usage(`unknown command ${JSON.stringify(word.slice(0, 100))}; there are ${Object.keys(COMMANDS).join(", ")}`);
}

function unknownFlag(rawName: string): SandboxError {
	return usage(
		`unknown option ${rawName}; there are ${[...FLAGS].map((flag) => `--${flag}`).join(", ")}, --help, --version`,
	);
}

function usage(message: string): SandboxError {
	return new SandboxError("invalid-argument", message, "see sandbox86 --help");
}

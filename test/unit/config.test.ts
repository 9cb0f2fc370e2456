import { isAbsolute } from "node:path";
import { describe, expect, it } from "vitest";
import { type Config, configSchema, helpText, parseCommandLine } from "../../src/config.js";

function config(argv: string[], env: Record<string, string> = {}): Config {
	const commandLine = parseCommandLine(argv, env);
	if (commandLine.kind !== "run") throw new Error(`not a run: ${commandLine.kind}`);
	return commandLine.config;
}

describe("the configuration", () => {
	it("has a default for everything", () => {
		expect(config([])).toMatchObject({ image: "base", timeoutMs: 50_000, logLevel: "warn" });
		expect(config([]).memoryMiB).toBeUndefined();
		expect(isAbsolute(config([]).home)).toBe(true);
	});

	it.each([
		["--image", "SANDBOX86_IMAGE", "tiny", { image: "tiny" }],
		["--memory", "SANDBOX86_MEMORY_MIB", "72", { memoryMiB: 72 }],
		["--home", "SANDBOX86_HOME", "/data", { home: "/data" }],
		["--mirror", "SANDBOX86_MIRROR", "http://127.0.0.1:8000/debian", { mirror: "http://127.0.0.1:8000/debian" }],
		["--network", "SANDBOX86_NETWORK", "none", { network: "none" }],
		["--allow", "SANDBOX86_ALLOW", "*.example.org:443", { allow: ["*.example.org:443"] }],
		["--deny", "SANDBOX86_DENY", "192.0.2.0/24", { deny: ["192.0.2.0/24"] }],
		["--host-port", "SANDBOX86_HOST_PORT", "8080", { hostPort: ["8080"] }],
		["--forward", "SANDBOX86_FORWARD", "5353:53/udp", { forward: ["5353:53/udp"] }],
		["--dns", "SANDBOX86_DNS", "192.0.2.53:5353", { dns: ["192.0.2.53:5353"] }],
		["--audit-log", "SANDBOX86_AUDIT_LOG", "/data/audit", { auditLog: "/data/audit" }],
		["--pcap", "SANDBOX86_PCAP", "/data/pcap", { pcap: "/data/pcap" }],
		["--bandwidth", "SANDBOX86_BANDWIDTH", "500k", { bandwidth: 512_000 }],
		["--max-bytes", "SANDBOX86_MAX_BYTES", "2G", { maxBytes: 2_147_483_648 }],
		["--max-flow-bytes", "SANDBOX86_MAX_FLOW_BYTES", "1048576", { maxFlowBytes: 1_048_576 }],
		["--timeout", "SANDBOX86_TIMEOUT_MS", "1000", { timeoutMs: 1000 }],
		["--log-level", "SANDBOX86_LOG_LEVEL", "debug", { logLevel: "debug" }],
	])("takes %s and %s", (flag, variable, value, expected) => {
		expect(config([flag, value])).toMatchObject(expected);
		expect(config([`${flag}=${value}`])).toMatchObject(expected);
		expect(config([], { [variable]: value })).toMatchObject(expected);
	});

	it("puts a flag before its variable, and takes an empty variable for none", () => {
		expect(config(["--memory", "256"], { SANDBOX86_MEMORY_MIB: "128" }).memoryMiB).toBe(256);
		expect(config([], { SANDBOX86_MEMORY_MIB: "" }).memoryMiB).toBeUndefined();
	});

	it("takes the relay, with no rules, where nothing else is said", () => {
		expect(config([])).toMatchObject({ network: "relay", allow: [], deny: [], hostPort: [], forward: [], dns: [] });
		expect(config([])).not.toHaveProperty("auditLog");
		expect(config([])).not.toHaveProperty("pcap");
	});

	it("gathers a flag that is repeated, and parts its variable at commas", () => {
		expect(config(["--allow", "a.example", "--allow=b.example"]).allow).toEqual(["a.example", "b.example"]);
		expect(config([], { SANDBOX86_ALLOW: " a.example , b.example:443,, " }).allow).toEqual([
			"a.example",
			"b.example:443",
		]);
		expect(config(["--deny", "a.example"], { SANDBOX86_DENY: "b.example" }).deny).toEqual(["a.example"]);
		expect(config([], { SANDBOX86_HOST_PORT: "," }).hostPort).toEqual([]);
	});

	it.each([
		[["--bandwidth", "1.5M"], '--bandwidth is "1.5M", but a rate in bytes per second such as 500k or 10M is needed'],
		[["--max-bytes", "10MB"], '--max-bytes is "10MB", but a number of bytes such as 500M or 2G is needed'],
		[
			["--max-flow-bytes", "0"],
			'--max-flow-bytes is "0", but a number of bytes such as 500M or 2G is needed, at least 1024',
		],
		[["--memory", "71"], '--memory is "71", but a whole number of MiB from 72 to 2047 is needed'],
		[["--memory", "2048"], '--memory is "2048", but'],
		[["--memory", "1e3"], '--memory is "1e3", but'],
		[["--memory=-1"], '--memory is "-1", but'],
		[["--memory", "99999999999999999999"], "--memory is"],
		[["--memory"], "--memory needs a value"],
		[["--memory", "--image"], "--memory needs a value"],
		[["--memory", "72", "--memory", "73"], "--memory is given twice"],
		[["--image", "../../etc"], '--image is "../../etc", but a name'],
		[["--home", ""], '--home is "", but a path is needed'],
		[["--audit-log", "a\0b"], "--audit-log is"],
		[["--network", "wat"], '--network is "wat", but one of relay, fetch, none is needed'],
		[["--network", "none", "--network", "relay"], "--network is given twice"],
		[["--allow"], "--allow needs a value"],
		[["--allow", "--deny", "x"], "--allow needs a value"],
		[["--mirror", "ftp://x/"], '--mirror is "ftp://x/", but a URL'],
		[["--timeout", "0"], '--timeout is "0", but a whole number of milliseconds from 1 to 600000 is needed'],
		[["--log-level", "loud"], '--log-level is "loud", but one of error, warn, info, debug is needed'],
		[["--bogus"], "unknown option --bogus; there are --image,"],
		[["-x"], "unknown option -x"],
		[["frobnicate"], 'unknown command "frobnicate"'],
		[["serve", "extra"], 'unknown argument "extra"'],
	])("refuses %j", (argv, message) => {
		expect(() => parseCommandLine(argv, {})).toThrowError(
			expect.objectContaining({ code: "invalid-argument", message: expect.stringContaining(message) }),
		);
	});

	it("names the variable that is wrong", () => {
		expect(() => parseCommandLine([], { SANDBOX86_MEMORY_MIB: "lots" })).toThrowError(/SANDBOX86_MEMORY_MIB is "lots"/);
	});

	it("hands a command its own words and flags", () => {
		expect(parseCommandLine(["--home", "/d", "image", "rm", "base", "--force"], {})).toMatchObject({
			command: "image",
			config: { home: "/d" },
			args: ["rm", "base", "--force"],
		});
		expect(parseCommandLine(["image", "--help"], {})).toMatchObject({ command: "image", args: ["--help"] });
	});

	it("knows --help and --version wherever they stand", () => {
		expect(parseCommandLine(["--help"], {})).toEqual({ kind: "help" });
		expect(parseCommandLine(["--memory", "128", "-h"], {})).toEqual({ kind: "help" });
		expect(parseCommandLine(["--version"], {})).toEqual({ kind: "version" });
		expect(parseCommandLine(["-V"], {})).toEqual({ kind: "version" });
	});
});

describe("the help text", () => {
	it("shows every option with its flag, variable and default", () => {
		const help = helpText();
		for (const schema of Object.values(configSchema.shape)) {
			const meta = schema.meta() as unknown as { flag: string; env: string; description: string };
			expect(help).toContain(`--${meta.flag} `);
			expect(help).toContain(meta.env);
			expect(help).toContain(meta.description);
		}
		expect(help).toContain("(SANDBOX86_MEMORY_MIB; default: what the image's recipe says, else 512)");
		expect(help.split("\n").every((line) => line.length <= 120)).toBe(true);
	});
});

import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { COMMANDS, configSchema, parseCommandLine } from "../../src/config.js";
import { parseRecipe } from "../../src/image/recipe.js";
import { parseFrom } from "../../src/image/sources/sources.js";
import { parsePortForward } from "../../src/network.js";
import { formatAuditLine } from "../../src/relay/audit-log.js";
import { RELAY_USAGE } from "../../src/relay/command.js";
import { NameTable } from "../../src/relay/egress/name-table.js";
import { createPolicy } from "../../src/relay/egress/policy.js";
import { parseHostPort, parseRule } from "../../src/relay/egress/rule.js";
import { tools } from "../../src/tools/index.js";

const root = resolve(import.meta.dirname, "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const packageJson = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };

function blocks(language: string): string[] {
	return [...readme.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, "g"))].map((match) => match[1] ?? "");
}

describe("the README", () => {
	it("configures clients with arguments that the server takes", () => {
		const configurations = blocks("json")
			.map((text) => JSON.parse(text) as Record<string, Record<string, { args: string[] }>>)
			.filter((block) => "mcpServers" in block || "servers" in block);
		expect(configurations).toHaveLength(2);
		for (const configuration of configurations) {
			const servers = configuration.mcpServers ?? configuration.servers;
			const [program, ...args] = servers?.sandbox86?.args ?? [];
			expect(program).toMatch(/\/dist\/cli\.js$/);
			expect(parseCommandLine(args, {})).toMatchObject({ kind: "run", command: "serve" });
		}
	});

	it("shows recipes that can be read", () => {
		const recipes = blocks("json").filter((text) => "from" in (JSON.parse(text) as object));
		expect(recipes).toHaveLength(1);
		for (const text of recipes) expect(parseFrom(parseRecipe(text, "README.md").from).source.scheme).toBe("oci");
	});

	it("names every option with its variable, and every tool", () => {
		for (const schema of Object.values(configSchema.shape)) {
			const { flag, env, value } = schema.meta() as unknown as Record<string, string>;
			expect(readme).toContain(`| \`--${flag} ${value}\` | \`${env}\` |`);
		}
		for (const { name } of tools) expect(readme).toContain(`\`${name}\``);
	});

	it("calls commands that exist", () => {
		for (const [, command = ""] of readme.matchAll(/`(?:sandbox86|node dist\/cli\.js) ([a-z]+)/g))
			expect(Object.keys(COMMANDS)).toContain(command);
	});

	it("starts scripts that exist", () => {
		for (const [, script = ""] of readme.matchAll(/npm run ([\w:]+)/g))
			expect(packageJson.scripts).toHaveProperty([script]);
	});

	it.each([
		"README.md",
		"CONTRIBUTING.md",
		"docs/adr/README.md",
		"docs/limitations.md",
		"docs/relay.md",
		"docs/threat-model.md",
	])("and its neighbours link to files that are there: %s", (path) => {
		for (const [, target = ""] of readFileSync(join(root, path), "utf8").matchAll(/\]\(([^)#:]+)\)/g)) {
			expect(existsSync(join(root, dirname(path), target)), target).toBe(true);
		}
	});
});

describe.each(["README.md", "docs/relay.md"])("the network's examples in %s", (path) => {
	const text = readFileSync(join(root, path), "utf8");
	const values = (flag: string) =>
		[...text.matchAll(new RegExp(`--${flag} '?([^\\s'\`]+)`, "g"))].map(([, value = ""]) => value);

	it("are rules, ports and forwards that can be had", () => {
		const isExample = (value: string) => !/^(RULE|PORT|HOST|FILE|ADDRESS)/.test(value);
		const allow = values("allow").filter(isExample).map(parseRule);
		const deny = values("deny").filter(isExample).map(parseRule);
		expect(allow.length).toBeGreaterThan(0);
		expect(deny.length).toBeGreaterThan(0);
		createPolicy({
			allow,
			deny,
			hostPorts: new Set(values("host-port").filter(isExample).map(parseHostPort)),
			hostAddresses: () => new Set(),
			names: new NameTable({ nowMs: () => 0 }),
		});
		for (const forward of values("forward").filter(isExample)) parsePortForward(forward);
	});
});

describe("docs/relay.md", () => {
	const text = readFileSync(join(root, "docs/relay.md"), "utf8");
	const line = formatAuditLine(new Date(), {
		machine: "machine-1",
		protocol: "tcp",
		name: undefined,
		address: undefined,
		port: undefined,
		verdict: "allowed",
		rule: "default",
		bytesOut: 0,
		bytesIn: 0,
	});
	const fields = Object.keys(JSON.parse(line) as object);

	it("explains every field of the audit log, and shows a line with them", () => {
		const rows = [...text.matchAll(/^\| (`\w+`(?:, `\w+`)*) \|/gm)].flatMap(
			([, names = ""]) => names.match(/\w+/g) ?? [],
		);
		expect(rows).toEqual(expect.arrayContaining(fields));
		const [, example = ""] = /```\n(\{"time".*\})\n```/.exec(text) ?? [];
		expect(Object.keys(JSON.parse(example) as object)).toEqual(fields);
	});

	it("names every option of the relay", () => {
		for (const flag of ["allow", "deny", "host-port", "forward", "dns", "audit-log", "pcap"])
			expect(text).toContain(`--${flag}`);
		for (const [, flag = ""] of RELAY_USAGE.matchAll(/^ {2}(--[a-z-]+)/gm)) expect(text).toContain(flag);
	});
});

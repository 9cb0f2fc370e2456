import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { configSchema, parseCommandLine } from "../../src/config.js";
import { tools } from "../../src/tools/index.js";

const root = resolve(import.meta.dirname, "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const packageJson = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { scripts: Record<string, string> };

function blocks(language: string): string[] {
	return [...readme.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, "g"))].map((match) => match[1] ?? "");
}

describe("the README", () => {
	it("configures clients with arguments that the server takes", () => {
		const configurations = blocks("json").map(
			(text) => JSON.parse(text) as Record<string, Record<string, { args: string[] }>>,
		);
		expect(configurations).toHaveLength(2);
		for (const configuration of configurations) {
			const servers = configuration.mcpServers ?? configuration.servers;
			const [program, ...args] = servers?.sandbox86?.args ?? [];
			expect(program).toMatch(/\/dist\/cli\.js$/);
			expect(parseCommandLine(args, {})).toMatchObject({ kind: "run", command: "serve" });
		}
	});

	it("names every option with its variable, and every tool", () => {
		for (const schema of Object.values(configSchema.shape)) {
			const { flag, env, value } = schema.meta() as unknown as Record<string, string>;
			expect(readme).toContain(`| \`--${flag} ${value}\` | \`${env}\` |`);
		}
		for (const { name } of tools) expect(readme).toContain(`\`${name}\``);
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
		"docs/threat-model.md",
	])("and its neighbours link to files that are there: %s", (path) => {
		for (const [, target = ""] of readFileSync(join(root, path), "utf8").matchAll(/\]\(([^)#:]+)\)/g)) {
			expect(existsSync(join(root, dirname(path), target)), target).toBe(true);
		}
	});
});

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const folders: string[] = [];
afterAll(() => {
	for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Runs the project's rules over a tree of `files`. */
function cruise(files: Readonly<Record<string, string>>): { status: number | null; output: string } {
	const folder = mkdtempSync(join(tmpdir(), "sandbox86-imports-"));
	folders.push(folder);
	for (const name of ["node_modules", "tsconfig.json"]) symlinkSync(join(root, name), join(folder, name));
	for (const [path, text] of Object.entries(files)) {
		mkdirSync(dirname(join(folder, path)), { recursive: true });
		writeFileSync(join(folder, path), text);
	}
	const program = join(root, "node_modules/dependency-cruiser/bin/dependency-cruise.mjs");
	const { status, stdout, stderr } = spawnSync(
		process.execPath,
		[program, "src", "--config", join(root, ".dependency-cruiser.cjs")],
		{ cwd: folder, encoding: "utf8" },
	);
	return { status, output: stdout + stderr };
}

const good = {
	"src/errors.ts": "export const e = 1;\n",
	"src/vm/a.ts": 'import "../errors.js";\n',
	"src/tools/b.ts": 'import "../vm/a.js";\n',
	"src/relay/c.ts": "export const c = 1;\n",
	"src/server.ts": "export const s = 1;\n",
};

const violations: [rule: string, path: string, text: string][] = [
	["vm-stands-alone", "src/vm/v1.ts", 'import "../relay/c.js";\n'],
	["relay-stands-alone", "src/relay/v2.ts", 'import "../vm/a.js";\n'],
	["tools-import-downwards", "src/tools/v3.ts", 'import "../server.js";\n'],
	["image-imports-vm-only", "src/image/v4.ts", 'import "../tools/b.js";\n'],
	["session-imports-downwards", "src/session.ts", 'import "./tools/b.js";\n'],
	["foundation-imports-nothing", "src/log.ts", 'import "./errors.js";\n'],
	["v86-in-the-machine-process-only", "src/vm/v5.ts", 'import "v86";\n'],
	["sdk-in-the-server-only", "src/tools/v6.ts", 'import "@modelcontextprotocol/sdk/types.js";\n'],
	["ws-at-the-ends-of-the-wire-only", "src/relay/v7.ts", 'import "ws";\n'],
	["ws-at-the-ends-of-the-wire-only", "src/vm/v12.ts", 'import "ws";\n'],
	["codecs-are-pure", "src/vm/channel/v8.ts", 'import "node:fs";\n'],
	["codecs-know-nothing-else", "src/relay/wire/v9.ts", 'import "../../log.js";\n'],
	["no-circles", "src/relay/v10.ts", 'import "./v11.js";\nexport const x = 1;\n'],
];

describe("the import rules", () => {
	it("let imports downwards pass", () => {
		const { status, output } = cruise(good);
		expect(output).toMatch(/no dependency violations found \(5 modules/);
		expect(status).toBe(0);
	});

	let planted: ReturnType<typeof cruise>;
	beforeAll(() => {
		const files = Object.fromEntries(violations.map(([, path, text]) => [path, text]));
		planted = cruise({ ...good, ...files, "src/relay/v11.ts": 'import { x } from "./v10.js";\nexport const y = x;\n' });
	});

	it.each(violations)("stop a planted violation of %s", (rule, path) => {
		expect(planted.output).toContain(`error ${rule}: ${path}`);
		expect(planted.status).not.toBe(0);
	});
});

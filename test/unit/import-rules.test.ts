import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../..");
let folder: string;

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-imports-"));
	symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
	symlinkSync(join(root, "tsconfig.json"), join(folder, "tsconfig.json"));
	plant("src/errors.ts", "export const e = 1;\n");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function plant(path: string, text: string): void {
	mkdirSync(dirname(join(folder, path)), { recursive: true });
	writeFileSync(join(folder, path), text);
}

function cruise(): { status: number | null; output: string } {
	const program = join(root, "node_modules/dependency-cruiser/bin/dependency-cruise.mjs");
	const config = join(root, ".dependency-cruiser.cjs");
	const { status, stdout, stderr } = spawnSync(process.execPath, [program, "src", "--config", config], {
		cwd: folder,
		encoding: "utf8",
	});
	return { status, output: stdout + stderr };
}

describe("the import rules", () => {
	it("let an import downwards pass", () => {
		plant("src/vm/a.ts", 'import "../errors.js";\n');
		plant("src/tools/b.ts", 'import "../vm/a.js";\n');
		const { status, output } = cruise();
		expect(output).toMatch(/no dependency violations found \(3 modules/);
		expect(status).toBe(0);
	});

	it.each([
		["vm-stands-alone", "src/vm/a.ts", 'import "../relay/b.js";\n'],
		["relay-stands-alone", "src/relay/c.ts", 'import "../vm/d.js";\n'],
		["tools-import-downwards", "src/tools/a.ts", 'import "../server.js";\n'],
		["image-imports-vm-only", "src/image/a.ts", 'import "../tools/b.js";\n'],
		["foundation-imports-nothing", "src/log.ts", 'import "./errors.js";\n'],
		["v86-in-the-machine-process-only", "src/vm/a.ts", 'import "v86";\n'],
		["sdk-in-the-server-only", "src/tools/a.ts", 'import "@modelcontextprotocol/sdk/types.js";\n'],
		["ws-in-the-websocket-only", "src/relay/a.ts", 'import "ws";\n'],
		["codecs-are-pure", "src/vm/channel/a.ts", 'import "node:fs";\n'],
		["codecs-know-nothing-else", "src/relay/wire/a.ts", 'import "../../log.js";\n'],
	])("stop a planted violation of %s", (rule, path, text) => {
		for (const target of ["vm/d", "relay/b", "tools/b", "server"]) plant(`src/${target}.ts`, "export const x = 1;\n");
		if (path !== "src/log.ts") plant("src/log.ts", "export const l = 1;\n");
		plant(path, text);
		const { status, output } = cruise();
		expect(output).toContain(`error ${rule}`);
		expect(status).not.toBe(0);
	});
});

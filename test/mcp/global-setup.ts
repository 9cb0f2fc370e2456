/** Boots image tiny once: every test's data folder starts as a copy of this one, with its boot snapshot. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { connect } from "./support.js";

declare module "vitest" {
	interface ProvidedContext {
		templateHome: string;
	}
}

export default async function setup(project: TestProject): Promise<() => void> {
	const templateHome = mkdtempSync(join(tmpdir(), "sandbox86-template-"));
	const client = await connect({ home: templateHome });
	await client.call("bash", { command: "true" });
	await client.close();
	project.provide("templateHome", templateHome);
	return () => rmSync(templateHome, { recursive: true, force: true });
}

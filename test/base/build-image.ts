/** Before the tests of image base: build it, in the data folder that is set or in the clone, unless it is there already. */

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { TestProject } from "vitest/node";

declare module "vitest" {
	interface ProvidedContext {
		/** The data folder that has image base. */
		home: string;
	}
}

const CLI_PATH = fileURLToPath(new URL("../../dist/cli.js", import.meta.url));
const HOME_PATH = fileURLToPath(new URL("../../.data", import.meta.url));

export default function setup(project: TestProject): void {
	const home = process.env.SANDBOX86_HOME ?? HOME_PATH;
	const image = (...args: string[]) =>
		execFileSync(process.execPath, [CLI_PATH, "image", ...args, "--home", home], { stdio: "inherit" });
	const listed = execFileSync(process.execPath, [CLI_PATH, "image", "list", "--home", home], { encoding: "utf8" });
	if (!/^base +built/m.test(listed)) image("build", "base");
	project.provide("home", home);
}

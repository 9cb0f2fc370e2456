/** The version of the installed v86 package; a saved state is only valid for the version that wrote it. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

let version: string | undefined;

export function emulatorVersion(): string {
	if (version === undefined) {
		const packagePath = join(dirname(dirname(createRequire(import.meta.url).resolve("v86"))), "package.json");
		version = String((JSON.parse(readFileSync(packagePath, "utf8")) as { version: unknown }).version);
	}
	return version;
}

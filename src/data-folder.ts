/** The folder of all data: made once, before anything else needs it. */

import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf, SandboxError } from "./errors.js";

/**
 * Makes the folder and its parents, one by one: Node's recursive mkdir never ends where a parent exists and yet nothing can
 * be made in it, as in /proc. Throws SandboxError("invalid-argument") that names the folder and the reason.
 */
export async function makeDataFolder(path: string): Promise<void> {
	try {
		await makeFolder(path);
	} catch (error) {
		throw new SandboxError(
			"invalid-argument",
			`the data folder ${path} can't be made: ${errnoOf(error) ?? String(error)}`,
			"choose another one with --home or SANDBOX86_HOME",
			{ cause: error },
		);
	}
}

async function makeFolder(path: string): Promise<void> {
	const found = await stat(path).catch((error: unknown) => {
		if (errnoOf(error) === "ENOENT") return undefined;
		throw error;
	});
	if (found?.isDirectory()) return;
	if (found === undefined && dirname(path) !== path) await makeFolder(dirname(path));
	try {
		await mkdir(path);
	} catch (error) {
		// Another process may have made it meanwhile.
		if (errnoOf(error) !== "EEXIST" || !(await stat(path)).isDirectory()) throw error;
	}
}

import { access, constants, mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";

/** A file that the relay writes, as the user named it. */
export interface OutputFile {
	readonly path: string;
	/** "audit log", say. */
	readonly what: string;
	readonly flag: string;
	/** Its folder is made where it is missing. */
	readonly makesFolder: boolean;
}

/** Makes sure that the file can be written later, and doesn't make it. Throws SandboxError("invalid-argument"). */
export async function checkWritable({ path, what, flag, makesFolder }: OutputFile): Promise<void> {
	try {
		if (makesFolder) await mkdir(dirname(path), { recursive: true });
		const found = await stat(path).catch(undefinedIfMissing);
		if (found?.isDirectory()) throw Object.assign(new Error(`${path} is a directory`), { code: "EISDIR" });
		if (found === undefined) await access(dirname(path), constants.W_OK | constants.X_OK);
		else await access(path, constants.W_OK);
	} catch (error) {
		throw new SandboxError(
			"invalid-argument",
			`the ${what} ${path} can't be written: ${errnoOf(error) ?? String(error)}`,
			`choose another one with ${flag}, or make its folder`,
			{ cause: error },
		);
	}
}

function undefinedIfMissing(error: unknown): undefined {
	if (errnoOf(error) !== "ENOENT") throw error;
}

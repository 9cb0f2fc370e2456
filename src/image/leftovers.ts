import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../errors.js";

/** Removes what a build or an import that was killed left in the folder of builds, whose lock must be held. */
export async function removeLeftovers(builds: string): Promise<void> {
	const names = await readdir(builds).catch((error: unknown) => {
		if (errnoOf(error) === "ENOENT") return [];
		throw error;
	});
	for (const name of names) {
		if (!name.startsWith("lock")) await rm(join(builds, name), { recursive: true, force: true });
	}
}

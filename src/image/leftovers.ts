import { rm } from "node:fs/promises";
import { join } from "node:path";
import { namesIn } from "./disk.js";

/** Removes what a build or an import that was killed left in the folder of builds, whose lock must be held. */
export async function removeLeftovers(builds: string): Promise<void> {
	for (const name of await namesIn(builds)) {
		if (!name.startsWith("lock")) await rm(join(builds, name), { recursive: true, force: true });
	}
}

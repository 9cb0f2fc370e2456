import { join } from "node:path";
import { acquireLock } from "./process-lock.js";

/** Runs `work` while no other process changes the images and contents of this data folder. Held briefly, never over a build. */
export async function withStoreLock<T>(home: string, work: () => Promise<T>): Promise<T> {
	const lock = await acquireLock(join(home, "images.lock"), "changing the image store");
	try {
		return await work();
	} finally {
		await lock.release();
	}
}

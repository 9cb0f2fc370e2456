/** One file for each server's serial console; only a few old ones are kept, so that errors can point to them. */

import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";

const NAME = /^console-\d+\.log$/;
const KEPT = 10;

/** The path for this process's console; removes all but the newest of the other files. */
export async function prepareConsoleLog(folder: string): Promise<string> {
	await mkdir(folder, { recursive: true });
	const mine = join(folder, `console-${process.pid}.log`);
	const others: { path: string; mtimeMs: number }[] = [];
	for (const name of await readdir(folder)) {
		const path = join(folder, name);
		if (!NAME.test(name) || path === mine) continue;
		const found = await stat(path).catch(() => undefined);
		if (found !== undefined) others.push({ path, mtimeMs: found.mtimeMs });
	}
	others.sort((a, b) => b.mtimeMs - a.mtimeMs);
	await Promise.all(others.slice(KEPT).map(({ path }) => rm(path, { force: true })));
	return mine;
}

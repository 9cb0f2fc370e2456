import { mkdir, statfs } from "node:fs/promises";
import { SandboxError } from "../errors.js";

/** Throws SandboxError("no-space") unless the disk of `folder`, which is made, has `neededBytes` free for `purpose`. */
export async function requireFreeSpace(folder: string, neededBytes: number, purpose: string): Promise<void> {
	await mkdir(folder, { recursive: true });
	const { bavail, bsize } = await statfs(folder);
	if (bavail * bsize >= neededBytes) return;
	const mib = (bytes: number) => Math.floor(bytes / 2 ** 20);
	throw new SandboxError(
		"no-space",
		`${folder} has ${mib(bavail * bsize)} MiB free, ${purpose} needs ${mib(neededBytes)}`,
		"make room or set SANDBOX86_HOME to a folder on another disk",
	);
}

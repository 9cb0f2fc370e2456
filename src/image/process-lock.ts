import { randomBytes } from "node:crypto";
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";
import { onDisk } from "./disk.js";

/** Who holds a lock; the text of the lock file. */
export interface LockOwner {
	readonly pid: number;
	/** When that process started, so that another one with its number is not taken for it; "" where it cannot be told. */
	readonly started: string;
	/** What it does, in words. */
	readonly purpose: string;
	/** Different for every lock taken. */
	readonly token: string;
}

export interface ProcessLock {
	release(): Promise<void>;
}

const POLL_MS = 200;

/**
 * Takes a lock file, in this process or another one held at most once. A lock whose process is gone (also after kill -9 or
 * a power cut) is taken over. `onWait` is called at every look while somebody else holds it.
 */
export async function acquireLock(
	path: string,
	purpose: string,
	options: { readonly signal?: AbortSignal; readonly onWait?: (owner: LockOwner) => void } = {},
): Promise<ProcessLock> {
	for (;;) {
		if (options.signal?.aborted === true) {
			throw new SandboxError("cancelled", "cancelled while waiting for another build");
		}
		const owner = await tryLock(path, purpose);
		if (owner === undefined) return { release: () => releaseLock(path) };
		options.onWait?.(owner);
		await new Promise((resolve) => setTimeout(resolve, POLL_MS));
	}
}

/** Who holds the lock now; undefined if nobody alive does. */
export async function lockOwner(path: string): Promise<LockOwner | undefined> {
	const owner = await readOwner(path);
	return owner !== undefined && (await isAlive(owner)) ? owner : undefined;
}

const mine = new Map<string, string>();

/** Takes the lock and returns undefined, or returns who holds it. */
async function tryLock(path: string, purpose: string): Promise<LockOwner | undefined> {
	await onDisk(path, () => mkdir(dirname(path), { recursive: true }));
	const owner: LockOwner = {
		pid: process.pid,
		started: await startOf(process.pid),
		purpose,
		token: randomBytes(8).toString("hex"),
	};
	// A link appears with its whole content at once, so that nobody ever reads half an owner.
	const draft = `${path}.${owner.token}`;
	try {
		await onDisk(path, () => writeFile(draft, JSON.stringify(owner)));
		await link(draft, path);
		mine.set(path, owner.token);
		return undefined;
	} catch (error) {
		if (errnoOf(error) !== "EEXIST") throw error;
	} finally {
		await rm(draft, { force: true });
	}
	const holder = await readOwner(path);
	if (holder !== undefined && (await isAlive(holder))) return holder;
	if (holder !== undefined) await removeStale(path, holder);
	return await tryLock(path, purpose);
}

/** Removes the lock of a process that is gone; gives back what it took if it was another one's meanwhile. */
async function removeStale(path: string, stale: LockOwner): Promise<void> {
	const aside = `${path}.stale-${randomBytes(8).toString("hex")}`;
	try {
		await rename(path, aside);
	} catch (error) {
		if (errnoOf(error) === "ENOENT") return;
		throw error;
	}
	if ((await readOwner(aside))?.token !== stale.token) await link(aside, path).catch(() => undefined);
	await rm(aside, { force: true });
}

async function releaseLock(path: string): Promise<void> {
	const token = mine.get(path);
	mine.delete(path);
	if (token !== undefined && (await readOwner(path))?.token === token) await rm(path, { force: true });
}

async function readOwner(path: string): Promise<LockOwner | undefined> {
	let text: string;
	try {
		text = await readFile(path, "utf8");
	} catch (error) {
		if (errnoOf(error) === "ENOENT") return undefined;
		throw error;
	}
	try {
		const value: unknown = JSON.parse(text);
		if (typeof value === "object" && value !== null && "pid" in value && typeof value.pid === "number") {
			return value as LockOwner;
		}
	} catch {
		// Not ours, or lost in a power cut: nobody holds it.
	}
	return { pid: 0, started: "", purpose: "unknown", token: "" };
}

async function isAlive(owner: LockOwner): Promise<boolean> {
	if (owner.pid <= 0) return false;
	try {
		process.kill(owner.pid, 0);
	} catch (error) {
		return errnoOf(error) === "EPERM";
	}
	const started = await startOf(owner.pid);
	return started === "" || owner.started === "" || started === owner.started;
}

/** Linux: the boot's id and the process's start in clock ticks since it (proc(5), stat field 22). Elsewhere "". */
async function startOf(pid: number): Promise<string> {
	try {
		const line = await readFile(`/proc/${pid}/stat`, "utf8");
		const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
		return `${boot} ${line.slice(line.lastIndexOf(")") + 2).split(" ")[19] ?? ""}`;
	} catch {
		return "";
	}
}

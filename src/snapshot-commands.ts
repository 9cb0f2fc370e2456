/** `sandbox86 snapshot …`: the snapshots on disk, for the person who pays for the disk. */

import { SandboxError } from "./errors.js";
import { escapeControls, type Log } from "./log.js";
import { formatTable } from "./text-table.js";
import { openSnapshotStore, type SnapshotStore } from "./vm/snapshot/store.js";

export const SNAPSHOT_USAGE = `usage: sandbox86 snapshot list          show all snapshots, newest first
       sandbox86 snapshot rm SNAPSHOT   remove one, by its name or id
`;

export interface SnapshotCommandContext {
	/** The folder of the snapshots. */
	readonly folder: string;
	readonly log: Log;
	readonly stdout: { write(text: string): unknown };
}

/** Runs one command; returns the process's exit code. Throws SandboxError. */
export async function runSnapshotCommand(args: readonly string[], context: SnapshotCommandContext): Promise<number> {
	if (args.length === 0 || args[0] === "help" || args.includes("--help") || args.includes("-h")) {
		context.stdout.write(SNAPSHOT_USAGE);
		return args.length === 0 ? 2 : 0;
	}
	const [verb, ...names] = args;
	const [name] = names;
	if (verb === "list" && names.length === 0) return withStore(context, (store) => list(store, context));
	if (verb === "rm" && name !== undefined && names.length === 1) {
		return withStore(context, (store) => remove(store, name, context));
	}
	throw new SandboxError(
		"invalid-argument",
		`sandbox86 snapshot does not know ${JSON.stringify(args.join(" ").slice(0, 100))}`,
		SNAPSHOT_USAGE.trim().replace(/\s*\n\s*/g, "; "),
	);
}

async function withStore(
	{ folder, log }: SnapshotCommandContext,
	work: (store: SnapshotStore) => Promise<void>,
): Promise<number> {
	const store = await openSnapshotStore(folder, log);
	try {
		await work(store);
	} finally {
		store.close();
	}
	return 0;
}

async function list(store: SnapshotStore, { stdout }: SnapshotCommandContext): Promise<void> {
	const rows = [["NAME", "ID", "CREATED", "IMAGE", "MEMORY", "SIZE", "DESCRIPTION"]];
	for (const { header, sizeBytes } of await store.list()) {
		rows.push([
			header.name ?? "-",
			header.id,
			header.created.slice(0, 16).replace("T", " "),
			escapeControls(header.imageName),
			`${header.memoryMiB} MiB`,
			mebibytes(sizeBytes),
			escapeControls(header.description ?? ""),
		]);
	}
	stdout.write(formatTable(rows));
}

async function remove(store: SnapshotStore, name: string, { stdout }: SnapshotCommandContext): Promise<void> {
	const { header, sizeBytes } = await store.find(name);
	await store.remove(name);
	stdout.write(`snapshot ${header.name ?? header.id} is removed: ${mebibytes(sizeBytes)}\n`);
}

function mebibytes(bytes: number): string {
	return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

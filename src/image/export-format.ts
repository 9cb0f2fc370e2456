/**
 * An exported image: a tar (POSIX ustar, gzip), its entries in exactly this order and each once:
 *
 * ```
 * sandbox86-image.json   what follows, by hash: ExportHeader
 * manifest.json          as in the image's folder
 * fs.json
 * boot/512mib.sbx86 …    boot snapshots, by memory size
 * files/<sha256> …       every content that the tree names, by name
 * ```
 */

import { z } from "zod";
import { SandboxError } from "../errors.js";
import { limits as snapshotLimits } from "../vm/snapshot/limits.js";
import { parseFsJson } from "./fs-json.js";
import { limits } from "./limits.js";
import { sha256Schema as sha256 } from "./sha256.js";
import { contentsOf, type Tree } from "./tree.js";

export const HEADER_ENTRY = "sandbox86-image.json";
export const MANIFEST_ENTRY = "manifest.json";
export const TREE_ENTRY = "fs.json";
const FORMAT_VERSION = 1;

const bytes = (max: number) => z.int().min(0).max(max);

const headerSchema = z.strictObject({
	format: z.literal(FORMAT_VERSION),
	name: z.string().max(64),
	/** The image's digest where it was exported: kernel, init and firmware of that program are part of it. */
	digest: sha256,
	manifest: z.strictObject({ sha256, bytes: bytes(limits.maxImageManifestBytes) }),
	tree: z.strictObject({ sha256, bytes: bytes(limits.maxTreeJsonBytes) }),
	/** By memory size, smallest first. */
	bootSnapshots: z
		.array(
			z.strictObject({
				memoryMiB: z.int().min(1).max(2048),
				sha256,
				bytes: bytes(snapshotLimits.maxStateBytes + snapshotLimits.maxHeaderBytes + 64),
			}),
		)
		.max(limits.maxBootSnapshots)
		.refine(
			(list) => list.every((item, at) => at === 0 || item.memoryMiB > (list[at - 1]?.memoryMiB ?? 0)),
			"not in the order of their memory sizes",
		),
	/** Different contents of the tree's files. */
	contents: z.strictObject({ files: bytes(limits.maxTreeEntries), bytes: bytes(limits.maxExportedBytes) }),
});

export type ExportHeader = z.infer<typeof headerSchema>;

/** Reads a header, and checks one that is about to be written. `refuse` makes the error. */
export function parseExportHeader(value: unknown, refuse: (reason: string) => SandboxError): ExportHeader {
	const format = typeof value === "object" && value !== null && "format" in value ? value.format : undefined;
	if (typeof format === "number" && format !== FORMAT_VERSION) {
		throw refuse(`its format is version ${format}, this program reads version ${FORMAT_VERSION}`);
	}
	const parsed = headerSchema.safeParse(value);
	if (parsed.success) return parsed.data;
	const issue = parsed.error.issues[0];
	throw refuse(`${HEADER_ENTRY} is wrong at ${issue?.path.join(".") || "the top"}: ${issue?.message ?? "unknown"}`);
}

/** The contents of a tree in the order of the archive: by name. */
export function sortedContents(tree: Tree): { sha256: string; bytes: number }[] {
	return [...contentsOf(tree)].sort(([a], [b]) => (a < b ? -1 : 1)).map(([sha256, bytes]) => ({ sha256, bytes }));
}

/**
 * Reads an fs.json that may be anyone's, with the bounds that a tar layer has: beside those of parseFsJson the paths, the
 * attributes, and the number of entries before they are made. A content has one size. Throws SandboxError("corrupt").
 */
export function parseForeignTree(json: Buffer, source: string): Tree {
	const refuse = (reason: string) => new SandboxError("corrupt", `${source}: ${reason}`);
	// Told by its marks before it is parsed, for parsing costs many times its size.
	if (countMarks(json) > limits.maxTreeEntries * 12) throw refuse(`more than ${limits.maxTreeEntries} entries`);
	const tree = parseFsJson(json.toString("utf8"), source);
	const sizes = new Map<string, number>();
	for (const [path, node] of tree.entries()) {
		const shown = JSON.stringify(path.length > 120 ? `${path.slice(0, 120)}…` : path);
		if (Buffer.byteLength(path) > limits.maxPathBytes) throw refuse(`a path that is too long: ${shown}`);
		for (const value of [node.mtime, node.uid, node.gid]) {
			if (!Number.isInteger(value) || value < 0 || value >= 2 ** 32)
				throw refuse(`${shown}: not an attribute: ${value}`);
		}
		if (node.kind === "file") {
			if ((sizes.get(node.sha256) ?? node.sizeBytes) !== node.sizeBytes)
				throw refuse(`${shown}: one content of two sizes`);
			sizes.set(node.sha256, node.sizeBytes);
		}
	}
	return tree;
}

/** Opening brackets and commas: an entry has about seven. */
function countMarks(json: Buffer): number {
	let marks = 0;
	for (const byte of json) if (byte === 0x5b || byte === 0x2c) marks++;
	return marks;
}

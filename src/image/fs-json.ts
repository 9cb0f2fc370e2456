// v86's filesystem JSON, version 3 (its tools/fs2json.py and lib/filesystem.js, LoadRecursive):
// { version: 3, size, fsroot: [entry…] }, entry = [name, size, mtime, mode, uid, gid, sha256 | target | children]

import { SandboxError } from "../errors.js";
import { escapeControls } from "../log.js";
import { limits } from "./limits.js";
import { type Attributes, type DirectoryNode, directory, sortedChildren, Tree, type TreeNode } from "./tree.js";

const VERSION = 3;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
/** v86's size of a folder and of a link. */
const DIRECTORY_SIZE = 4096;

/** Components of the longest path: each has a byte and a slash. */
const MAX_DEPTH = Math.ceil(limits.maxPathBytes / 2);

type JsonEntry = [string, number, number, number, number, number, (string | JsonEntry[])?];

/** The tree as v86 loads it. The same tree gives the same text. The root's own attributes are v86's (0755, root). */
export function serializeFsJson(tree: Tree): string {
	let size = 0;
	const convert = (name: string, node: TreeNode): JsonEntry => {
		const { mode, uid, gid, mtime } = node;
		switch (node.kind) {
			case "directory":
				size += DIRECTORY_SIZE;
				return [name, DIRECTORY_SIZE, mtime, S_IFDIR | mode, uid, gid, children(node)];
			case "file":
				size += node.sizeBytes;
				return [name, node.sizeBytes, mtime, S_IFREG | mode, uid, gid, node.sha256];
			case "symlink":
				size += DIRECTORY_SIZE;
				return [name, Buffer.byteLength(node.target), mtime, S_IFLNK | 0o777, uid, gid, node.target];
		}
	};
	const children = (folder: DirectoryNode) => sortedChildren(folder).map(([name, node]) => convert(name, node));
	const fsroot = children(tree.root);
	return JSON.stringify({ version: VERSION, size, fsroot });
}

/** A file's content in our own trees, and in those of v86's tools: 8 digits of its SHA-256 and a suffix (HASH_LENGTH in fs2json.py). */
const OUR_CONTENT = /^[0-9a-f]{64}$/;
const V86_CONTENT = /^[0-9a-f]{8,64}(\.bin(\.zst)?)?$/;

/** Reads what serializeFsJson wrote. Throws SandboxError("corrupt") on anything else. */
export function parseFsJson(text: string, source: string): Tree {
	return parseTree(text, source, OUR_CONTENT, undefined);
}

/**
 * Reads what v86's tools/fs2json.py wrote; `sha256` of its files is the name in the folder of files. Devices, FIFOs and sockets, which have
 * no content there, are left out and told in `skipped`.
 */
export function parseV86FsJson(text: string, source: string): { tree: Tree; skipped: readonly string[] } {
	const skipped: string[] = [];
	return { tree: parseTree(text, source, V86_CONTENT, skipped), skipped };
}

function parseTree(text: string, source: string, contentName: RegExp, skipped: string[] | undefined): Tree {
	const corrupt = (what: string) => {
		const shown = escapeControls(what.length > 300 ? `…${what.slice(-300)}` : what);
		return new SandboxError("corrupt", `${source}: ${shown}`, "build the image again");
	};
	let parsed: unknown;
	try {
		parsed = JSON.parse(text);
	} catch (error) {
		throw corrupt(`no filesystem JSON (${error instanceof Error ? error.message : String(error)})`);
	}
	if (typeof parsed !== "object" || parsed === null || !("version" in parsed) || !("fsroot" in parsed)) {
		throw corrupt("no filesystem JSON");
	}
	if (parsed.version !== VERSION) throw corrupt(`version ${String(parsed.version)} instead of ${VERSION}`);
	let entries = 0;
	const fill = (folder: DirectoryNode, list: unknown, path: string, depth: number) => {
		if (!Array.isArray(list)) throw corrupt(`${path}: not a list of entries`);
		if (depth > MAX_DEPTH) throw corrupt(`${path}: too deep`);
		for (const item of list as unknown[]) {
			if (++entries > limits.maxTreeEntries) throw corrupt(`more than ${limits.maxTreeEntries} entries`);
			if (!Array.isArray(item)) throw corrupt(`${path}: not an entry`);
			const [name, size, mtime, mode, uid, gid, content] = item as unknown[];
			if (typeof name !== "string" || name === "" || name === "." || name === ".." || /[/\0]/.test(name)) {
				throw corrupt(`${path}: not a file name: ${JSON.stringify(name)}`);
			}
			const at = `${path}/${name}`;
			if (!isCount(size) || !isCount(mode) || !isCount(uid) || !isCount(gid) || typeof mtime !== "number") {
				throw corrupt(`${at}: attributes are no numbers`);
			}
			if (folder.children.has(name)) throw corrupt(`${at}: occurs twice`);
			const attributes: Attributes = { mode: mode & 0o7777, uid, gid, mtime: Math.max(0, Math.trunc(mtime)) };
			switch (mode & S_IFMT) {
				case S_IFDIR: {
					const made = directory(attributes);
					fill(made, content ?? [], at, depth + 1);
					folder.children.set(name, made);
					break;
				}
				case S_IFREG:
					if (typeof content !== "string" || !contentName.test(content)) {
						throw corrupt(`${at}: no content`);
					}
					folder.children.set(name, { kind: "file", ...attributes, sizeBytes: size, sha256: content });
					break;
				case S_IFLNK:
					if (typeof content !== "string") throw corrupt(`${at}: no target`);
					folder.children.set(name, { kind: "symlink", ...attributes, target: content });
					break;
				default:
					if (skipped === undefined) throw corrupt(`${at}: neither folder, file nor link`);
					skipped.push(at);
			}
		}
	};
	const root = directory({ mode: 0o755, uid: 0, gid: 0, mtime: 0 });
	fill(root, parsed.fsroot, "", 0);
	return new Tree(root);
}

function isCount(value: unknown): value is number {
	return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

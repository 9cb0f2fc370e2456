// v86's filesystem JSON, version 3 (its tools/fs2json.py and lib/filesystem.js, LoadRecursive):
// { version: 3, size, fsroot: [entry…] }, entry = [name, size, mtime, mode, uid, gid, file name | target | children].
// The file name of our own trees is the content's SHA-256; that of v86's tools is its first 8 digits and a suffix.

import { SandboxError } from "../errors.js";
import { escapeControls } from "../log.js";
import { limits } from "./limits.js";
import { SHA256_HEX } from "./sha256.js";
import {
	type Attributes,
	type DirectoryNode,
	directory,
	type FileNode,
	sortedChildren,
	Tree,
	type TreeNode,
} from "./tree.js";

const VERSION = 3;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
/** v86's size of a folder and of a link. */
const DIRECTORY_SIZE = 4096;

/** HASH_LENGTH is 8 in v86's tools; with --zstd each file is compressed for itself. */
const V86_CONTENT_NAME = /^[0-9a-f]{8,64}\.bin(\.zst)?$/;

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

/** Reads what serializeFsJson wrote. Throws SandboxError("corrupt") on anything else. */
export function parseFsJson(text: string, source: string): Tree {
	const files = (folder: DirectoryNode, entry: FileEntry) => {
		if (!SHA256_HEX.test(entry.content)) throw entry.corrupt("no content");
		folder.children.set(entry.name, fileNode(entry, entry.content));
	};
	return parse(text, source, "build the image again", files, ({ corrupt }) => {
		throw corrupt("neither folder, file nor link");
	});
}

/** A file of a tree that v86's tools wrote, which is still to be put into it. */
export interface NamedFile {
	/** In the guest, with its leading slash. */
	readonly path: string;
	/** What v86 asks its server for: 8 digits of the content's SHA-256, and a suffix. */
	readonly contentName: string;
	/** Of the content, not of a compressed file. */
	readonly sizeBytes: number;
	/** Puts the file in its place. */
	place(sha256: string): void;
}

export interface NamedTree {
	/** Folders and symbolic links. */
	readonly tree: Tree;
	readonly files: readonly NamedFile[];
	/** Paths of devices, FIFOs and sockets, which are left out: a guest makes its own. */
	readonly skipped: readonly string[];
}

/** Reads what v86's tools/fs2json.py wrote. Throws SandboxError("corrupt") on anything else. */
export function parseV86FsJson(text: string, source: string): NamedTree {
	const files: NamedFile[] = [];
	const skipped: string[] = [];
	const onFile = (folder: DirectoryNode, entry: FileEntry) => {
		const { path, name, content, sizeBytes } = entry;
		if (!V86_CONTENT_NAME.test(content)) {
			throw entry.corrupt(
				`its content is called ${JSON.stringify(content.slice(0, 80))}, which no tool of v86's writes`,
			);
		}
		// A place is kept, so that a name which comes twice is seen.
		folder.children.set(name, fileNode(entry, ""));
		const place = (sha256: string) => void folder.children.set(name, fileNode(entry, sha256));
		files.push({ path, contentName: content, sizeBytes, place });
	};
	const hint = "make it again with v86's tools/fs2json.py";
	const tree = parse(text, source, hint, onFile, ({ path }) => skipped.push(path));
	return { tree, files, skipped };
}

interface Entry {
	readonly path: string;
	readonly name: string;
	readonly corrupt: (what: string) => SandboxError;
}

interface FileEntry extends Entry {
	readonly attributes: Attributes;
	readonly sizeBytes: number;
	readonly content: string;
}

function fileNode({ attributes, sizeBytes }: FileEntry, sha256: string): FileNode {
	return { kind: "file", ...attributes, sizeBytes, sha256 };
}

function parse(
	text: string,
	source: string,
	hint: string,
	onFile: (folder: DirectoryNode, entry: FileEntry) => void,
	onSpecial: (entry: Entry) => void,
): Tree {
	const corrupt = (what: string) => {
		const shown = escapeControls(what.length > 300 ? `…${what.slice(-300)}` : what);
		return new SandboxError("corrupt", `${source}: ${shown}`, hint);
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
		if (depth > limits.maxTreeDepth) throw corrupt(`${path}: too deep`);
		for (const item of list as unknown[]) {
			if (++entries > limits.maxTreeEntries) throw corrupt(`more than ${limits.maxTreeEntries} entries`);
			if (!Array.isArray(item)) throw corrupt(`${path}: not an entry`);
			const [name, size, mtime, mode, uid, gid, content] = item as unknown[];
			if (typeof name !== "string" || name === "" || name === "." || name === ".." || /[/\0]/.test(name)) {
				throw corrupt(`${path}: not a file name: ${JSON.stringify(name)}`);
			}
			if (name.length > limits.maxNameBytes || Buffer.byteLength(name) > limits.maxNameBytes) {
				throw corrupt(`${path}: a name longer than ${limits.maxNameBytes} bytes: ${name.slice(0, 80)}`);
			}
			const at = `${path}/${name}`;
			if (!isCount(size) || !isCount(mode) || !isCount(uid) || !isCount(gid) || typeof mtime !== "number") {
				throw corrupt(`${at}: attributes are no numbers`);
			}
			if (folder.children.has(name)) throw corrupt(`${at}: occurs twice`);
			// v86's tool writes times of some archives with a fraction.
			const attributes: Attributes = { mode: mode & 0o7777, uid, gid, mtime: Math.trunc(mtime) };
			const entry = { path: at, name, corrupt: (what: string) => corrupt(`${at}: ${what}`) };
			switch (mode & S_IFMT) {
				case S_IFDIR: {
					const made = directory(attributes);
					fill(made, content ?? [], at, depth + 1);
					folder.children.set(name, made);
					break;
				}
				case S_IFREG:
					if (typeof content !== "string") throw corrupt(`${at}: no content`);
					onFile(folder, { ...entry, attributes, sizeBytes: size, content });
					break;
				case S_IFLNK:
					if (typeof content !== "string" || content === "" || content.includes("\0"))
						throw corrupt(`${at}: no target`);
					if (Buffer.byteLength(content) > limits.maxPathBytes) throw corrupt(`${at}: a target that is too long`);
					folder.children.set(name, { kind: "symlink", ...attributes, target: content });
					break;
				default:
					onSpecial(entry);
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

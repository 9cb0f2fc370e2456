/**
 * A file tree in memory: what an image's root holds. Names and attributes are here, contents are in a content store under
 * their SHA-256. Nothing in it touches the host's file system, so no path of it can lead out of it.
 */

import { SandboxError } from "../errors.js";
import { limits } from "./limits.js";

export interface Attributes {
	/** Permission bits with setuid, setgid and sticky: 0..0o7777. */
	readonly mode: number;
	readonly uid: number;
	readonly gid: number;
	/** Seconds since 1970. */
	readonly mtime: number;
}

export interface DirectoryNode extends Attributes {
	readonly kind: "directory";
	readonly children: Map<string, TreeNode>;
}

export interface FileNode extends Attributes {
	readonly kind: "file";
	readonly sizeBytes: number;
	/** 64 hex digits. */
	readonly sha256: string;
}

export interface SymlinkNode extends Attributes {
	readonly kind: "symlink";
	readonly target: string;
}

export type TreeNode = DirectoryNode | FileNode | SymlinkNode;

/** What a new parent folder gets where nothing says otherwise. */
const PLAIN_DIRECTORY: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

export class Tree {
	readonly root: DirectoryNode;
	/** Folders that were made because an entry below them needs them. */
	#made = 0;
	/** Components of all links that were followed. */
	#linkSteps = 0;

	constructor(root: DirectoryNode = directory(PLAIN_DIRECTORY)) {
		this.root = root;
	}

	/** The entry at a path, its last component not followed; undefined where there is none. */
	get(path: string): TreeNode | undefined {
		const parts = splitPath(path);
		const name = parts.pop();
		if (name === undefined) return this.root;
		return this.#walk(parts, false)?.children.get(name);
	}

	/** The entry at a path with all symbolic links followed inside the tree. */
	resolve(path: string): TreeNode | undefined {
		const parts = splitPath(path);
		return this.#follow(parts, false).node;
	}

	/** The folder at a path, links followed inside the tree, missing ones made. Throws where a file is in the way. */
	makeDirectory(path: string, attributes: Attributes = PLAIN_DIRECTORY): DirectoryNode {
		const made = this.#walk(splitPath(path), true, attributes);
		if (made === undefined) throw new SandboxError("corrupt", `${path}: a file is where a folder is needed`);
		return made;
	}

	/** Puts an entry at a path in place of whatever is there. Its parents are made, and followed where they are links. */
	set(path: string, node: TreeNode): void {
		const parts = splitPath(path);
		const name = parts.pop();
		if (name === undefined) throw new SandboxError("invalid-argument", "the root of a tree cannot be replaced");
		const parent = this.makeDirectory(parts.join("/"));
		parent.children.set(name, node);
	}

	/** Changes the attributes of a folder (also of the root) and keeps what is in it. */
	setDirectoryAttributes(path: string, attributes: Attributes): void {
		Object.assign(this.makeDirectory(path), attributes);
	}

	/** Removes the entry and all below it; false where there is none. */
	remove(path: string): boolean {
		const parts = splitPath(path);
		const name = parts.pop();
		if (name === undefined) throw new SandboxError("invalid-argument", "the root of a tree cannot be removed");
		return this.#walk(parts, false)?.children.delete(name) ?? false;
	}

	/** All entries below a folder with their paths from there (no leading slash), parents first, in the order of their names. */
	*entries(below: DirectoryNode = this.root): Generator<[path: string, node: TreeNode]> {
		const open = [{ prefix: "", children: sortedChildren(below), next: 0 }];
		for (let at = open.at(-1); at !== undefined; at = open.at(-1)) {
			const child = at.children[at.next++];
			if (child === undefined) {
				open.pop();
				continue;
			}
			const [name, node] = child;
			const path = at.prefix + name;
			yield [path, node];
			if (node.kind === "directory") open.push({ prefix: `${path}/`, children: sortedChildren(node), next: 0 });
		}
	}

	#walk(parts: readonly string[], make: boolean, attributes?: Attributes): DirectoryNode | undefined {
		const { node } = this.#follow(parts, make, attributes);
		return node?.kind === "directory" ? node : undefined;
	}

	/** Walks `parts` from the root; ".." above the root stays at the root, as in a chroot. */
	#follow(parts: readonly string[], make: boolean, attributes?: Attributes): { node?: TreeNode } {
		const stack: DirectoryNode[] = [this.root];
		const names: string[] = [];
		/** The last one is next. */
		const todo = [...parts].reverse();
		let links = 0;
		for (;;) {
			const name = todo.pop();
			if (name === undefined) return { node: stack[stack.length - 1] ?? this.root };
			if (name === "" || name === ".") continue;
			const at = stack[stack.length - 1] ?? this.root;
			if (name === "..") {
				if (stack.length > 1) {
					stack.pop();
					names.pop();
				}
				continue;
			}
			let next = at.children.get(name);
			if (next === undefined) {
				if (!make) return {};
				if (++this.#made > limits.maxTreeEntries) {
					throw new SandboxError("corrupt", `more than ${limits.maxTreeEntries} folders`);
				}
				next = directory(todo.length === 0 && attributes ? attributes : PLAIN_DIRECTORY);
				at.children.set(name, next);
			}
			if (next.kind === "symlink") {
				if (++links > limits.maxSymlinks) {
					throw new SandboxError("corrupt", `${[...names, name].join("/")}: more than ${limits.maxSymlinks} links`);
				}
				const target = next.target.split("/");
				this.#linkSteps += target.length;
				if (this.#linkSteps > limits.maxLinkSteps) {
					throw new SandboxError("corrupt", `its links lead over more than ${limits.maxLinkSteps} folders in all`);
				}
				todo.push(...target.reverse());
				if (next.target.startsWith("/")) {
					stack.length = 1;
					names.length = 0;
				}
				continue;
			}
			if (next.kind === "file") return todo.some((part) => part !== "" && part !== ".") ? {} : { node: next };
			if (make && stack.length > limits.maxTreeDepth) {
				throw new SandboxError(
					"corrupt",
					`${names.slice(0, 8).join("/")}/…: more than ${limits.maxTreeDepth} folders deep`,
				);
			}
			stack.push(next);
			names.push(name);
		}
	}
}

export function directory(attributes: Attributes): DirectoryNode {
	return { kind: "directory", ...pick(attributes), children: new Map() };
}

/** Only the attributes of a node. */
export function pick({ mode, uid, gid, mtime }: Attributes): Attributes {
	return { mode, uid, gid, mtime };
}

/** The newest time of any entry that a 32-bit clock can show, seconds since 1970; 0 for an empty tree. */
export function newestTime(tree: Tree): number {
	let newest = 0;
	for (const [, { mtime }] of tree.entries()) if (mtime > newest && mtime < 2 ** 31) newest = mtime;
	return newest;
}

/** Sizes of all different contents of a tree's files, by SHA-256. */
export function contentsOf(tree: Tree): Map<string, number> {
	const contents = new Map<string, number>();
	for (const [, node] of tree.entries()) if (node.kind === "file") contents.set(node.sha256, node.sizeBytes);
	return contents;
}

export function sortedChildren(folder: DirectoryNode): [string, TreeNode][] {
	return [...folder.children].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Components of a path without empty ones and "."; "/" and "" give none. */
export function splitPath(path: string): string[] {
	return path.split("/").filter((part) => part !== "" && part !== ".");
}

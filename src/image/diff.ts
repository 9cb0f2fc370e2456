/** What differs between the trees of two images. */

import { loadImage, readTree } from "./store.js";
import type { TreeNode } from "./tree.js";

export type PathChange =
	| {
			readonly change: "added" | "removed";
			readonly path: string;
			readonly kind: TreeNode["kind"];
			readonly bytes: number;
	  }
	| {
			readonly change: "changed";
			readonly path: string;
			/** "kind file → symlink", "size 3 → 5", "mode 0644 → 0755", "owner 0:0 → 1:1", "target a → b", "content". */
			readonly what: readonly string[];
	  };

export interface ImageDiff {
	/** In the order of the paths. */
	readonly changes: readonly PathChange[];
	/** Paths that differ in nothing but their time. */
	readonly timesOnly: number;
}

export async function diffImages(home: string, before: string, after: string): Promise<ImageDiff> {
	const [a, b] = [await treeOf(home, before), await treeOf(home, after)];
	const changes: PathChange[] = [];
	let timesOnly = 0;
	for (const path of [...new Set([...a.keys(), ...b.keys()])].sort()) {
		const [old, now] = [a.get(path), b.get(path)];
		if (old === undefined && now !== undefined) changes.push(whole("added", path, now));
		else if (now === undefined && old !== undefined) changes.push(whole("removed", path, old));
		else if (old !== undefined && now !== undefined) {
			const what = differences(old, now);
			if (what.length > 0) changes.push({ change: "changed", path, what });
			else if (old.mtime !== now.mtime) timesOnly++;
		}
	}
	return { changes, timesOnly };
}

async function treeOf(home: string, name: string): Promise<Map<string, TreeNode>> {
	const tree = await readTree(await loadImage(home, name));
	return new Map([...tree.entries()].map(([path, node]) => [`/${path}`, node]));
}

function whole(change: "added" | "removed", path: string, node: TreeNode): PathChange {
	return { change, path, kind: node.kind, bytes: node.kind === "file" ? node.sizeBytes : 0 };
}

function differences(old: TreeNode, now: TreeNode): string[] {
	const what: string[] = [];
	const add = (name: string, from: string | number, to: string | number) => {
		if (from !== to) what.push(`${name} ${from} → ${to}`);
	};
	add("kind", old.kind, now.kind);
	if (old.kind === "file" && now.kind === "file") {
		add("size", old.sizeBytes, now.sizeBytes);
		if (old.sizeBytes === now.sizeBytes && old.sha256 !== now.sha256) what.push("content");
	}
	if (old.kind === "symlink" && now.kind === "symlink") add("target", old.target, now.target);
	// A link has no mode of its own.
	if (old.kind !== "symlink" && now.kind !== "symlink") add("mode", octal(old.mode), octal(now.mode));
	add("owner", `${old.uid}:${old.gid}`, `${now.uid}:${now.gid}`);
	return what;
}

function octal(mode: number): string {
	return mode.toString(8).padStart(4, "0");
}

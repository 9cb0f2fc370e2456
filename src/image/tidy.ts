import { type Attributes, directory, type Tree } from "./tree.js";

/** Empties what only a running system fills, makes what a booting one needs, and makes no file younger than `epoch`. */
export function tidy(tree: Tree, epoch: number): void {
	const root = { uid: 0, gid: 0, mtime: epoch };
	const folders: [string, number][] = [
		["dev", 0o755],
		["proc", 0o555],
		["run", 0o755],
		["sys", 0o555],
		["tmp", 0o1777],
		["var/tmp", 0o1777],
	];
	for (const [path, mode] of folders) tree.set(path, directory({ ...root, mode }));
	tree.makeDirectory("run/lock", { ...root, mode: 0o1777 });
	for (const [, node] of tree.entries()) {
		if (node.mtime > epoch) Object.assign(node, { mtime: epoch } satisfies Partial<Attributes>);
	}
}

/** Everything that is known about one image. */

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { SandboxError } from "../errors.js";
import { isBootSnapshotOf } from "../vm/boot-snapshot.js";
import { readSnapshotHeader } from "../vm/snapshot/file.js";
import { readManifest } from "./manifest.js";
import { imageFolders, loadImage, readTree } from "./store.js";
import type { DirectoryNode } from "./tree.js";
import { type ImageUsage, imageUsage } from "./usage.js";

/** Folders that are told, and how deep they are looked for. */
const FOLDERS = 10;
const FOLDER_DEPTH = 3;

export interface ImageDetails extends ImageUsage {
	readonly name: string;
	readonly digest: string;
	/** Of its manifest; undefined for tiny, which has none. */
	readonly from: string | undefined;
	readonly created: string | undefined;
	readonly builtBy: string | undefined;
	readonly packages: readonly { readonly name: string; readonly version: string }[];
	readonly warmCommands: readonly string[];
	/** Files, folders and links of the tree. */
	readonly entries: number;
	readonly bootSnapshots: readonly BootSnapshotDetails[];
	/** Folders with the most bytes in and below them, biggest first; what lies in two places counts twice. */
	readonly biggestFolders: readonly { readonly path: string; readonly bytes: number }[];
}

export interface BootSnapshotDetails {
	readonly memoryMiB: number;
	/** Of the file. */
	readonly bytes: number;
	/** False for one of another build, which is made again when a machine of its size starts. */
	readonly fits: boolean;
}

export async function inspectImage(home: string, name: string): Promise<ImageDetails> {
	const image = await loadImage(home, name);
	const manifest = await readManifest(join(imageFolders(home).images, name, "manifest.json"));
	const tree = await readTree(image);
	const usage = (await imageUsage(home)).get(name);
	if (usage === undefined) throw new SandboxError("not-found", `the image ${name} was removed meanwhile`);
	let entries = 0;
	for (const _ of tree.entries()) entries++;
	return {
		name,
		digest: image.digest,
		from: manifest === undefined ? undefined : manifest.recipe.from,
		created: manifest?.created,
		builtBy: manifest?.builtBy,
		packages: manifest?.packages ?? [],
		warmCommands: image.warmCommands,
		entries,
		...usage,
		bootSnapshots: await bootSnapshotsIn(image.bootSnapshotsPath, image.digest),
		biggestFolders: biggestFolders(tree.root),
	};
}

async function bootSnapshotsIn(folder: string, digest: string): Promise<BootSnapshotDetails[]> {
	const found: BootSnapshotDetails[] = [];
	for (const name of await readdir(folder).catch(() => [])) {
		if (!name.endsWith(".sbx86")) continue;
		const path = join(folder, name);
		try {
			const { header } = await readSnapshotHeader(path);
			const fits = isBootSnapshotOf(header, digest);
			found.push({ memoryMiB: header.memoryMiB, bytes: (await stat(path)).size, fits });
		} catch (error) {
			// A damaged one is made again at the next start.
			if (!(error instanceof SandboxError)) throw error;
		}
	}
	return found.sort((a, b) => a.memoryMiB - b.memoryMiB);
}

function biggestFolders(root: DirectoryNode): { path: string; bytes: number }[] {
	const folders: { path: string; bytes: number }[] = [];
	const add = (folder: DirectoryNode, path: string, depth: number): number => {
		let bytes = 0;
		for (const [name, node] of folder.children) {
			if (node.kind === "file") bytes += node.sizeBytes;
			if (node.kind === "directory") bytes += add(node, `${path}/${name}`, depth + 1);
		}
		if (bytes > 0 && depth > 0 && depth <= FOLDER_DEPTH) folders.push({ path, bytes });
		return bytes;
	};
	add(root, "", 0);
	return folders.sort((a, b) => b.bytes - a.bytes || (a.path < b.path ? -1 : 1)).slice(0, FOLDERS);
}

/** What the images of a data folder take on the disk, and what they share. */

import { SandboxError } from "../errors.js";
import { listImages, loadImage, readTree, TINY } from "./store.js";
import { contentsOf } from "./tree.js";

export interface ImageUsage {
	/** Different contents of its files, and their bytes. */
	readonly files: number;
	readonly bytes: number;
	/** Those that no other image has: what removing it frees, beside its boot snapshots. */
	readonly ownFiles: number;
	readonly ownBytes: number;
	/** Images that have contents of it, most bytes first. */
	readonly sharedWith: readonly { readonly name: string; readonly files: number; readonly bytes: number }[];
}

/** The usage of every image whose tree can be read, by name. */
export async function imageUsage(home: string): Promise<ReadonlyMap<string, ImageUsage>> {
	const contents = new Map<string, ReadonlyMap<string, number>>();
	for (const { name, state } of await listImages(home)) {
		if (state === "missing" || state === "damaged") continue;
		const found = await contentsOfImage(home, name);
		if (found !== undefined) contents.set(name, found);
	}
	const owners = new Map<string, string[]>();
	for (const [name, found] of contents) {
		// The contents of tiny lie in the package: it has nothing in common with what lies in the data folder.
		if (name === TINY) continue;
		for (const sha256 of found.keys()) {
			const known = owners.get(sha256);
			if (known === undefined) owners.set(sha256, [name]);
			else known.push(name);
		}
	}
	return new Map([...contents].map(([name, found]) => [name, usageOf(name, found, owners)]));
}

function usageOf(
	name: string,
	contents: ReadonlyMap<string, number>,
	owners: ReadonlyMap<string, readonly string[]>,
): ImageUsage {
	let bytes = 0;
	let ownFiles = 0;
	let ownBytes = 0;
	const shared = new Map<string, { files: number; bytes: number }>();
	for (const [sha256, sizeBytes] of contents) {
		bytes += sizeBytes;
		const others = name === TINY ? [] : (owners.get(sha256) ?? []).filter((other) => other !== name);
		if (others.length === 0) {
			ownFiles++;
			ownBytes += sizeBytes;
		}
		for (const other of others) {
			const sum = shared.get(other) ?? { files: 0, bytes: 0 };
			shared.set(other, { files: sum.files + 1, bytes: sum.bytes + sizeBytes });
		}
	}
	const sharedWith = [...shared]
		.map(([other, sum]) => ({ name: other, ...sum }))
		.sort((a, b) => b.bytes - a.bytes || (a.name < b.name ? -1 : 1));
	return { files: contents.size, bytes, ownFiles, ownBytes, sharedWith };
}

/** Sizes of an image's contents by SHA-256; undefined where its tree is damaged or was removed meanwhile. */
async function contentsOfImage(home: string, name: string): Promise<ReadonlyMap<string, number> | undefined> {
	try {
		return contentsOf(await readTree(await loadImage(home, name)));
	} catch (error) {
		if (error instanceof SandboxError) return undefined;
		throw error;
	}
}

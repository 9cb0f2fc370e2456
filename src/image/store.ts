/**
 * The images of a data folder:
 *   HOME/images/NAME/{manifest.json, fs.json, boot/}   one folder for each image, complete or absent
 *   HOME/files/<sha256>                                 contents that the images share
 *   HOME/steps/                                         trees that the steps of builds made, see StepCache
 *   HOME/downloads/                                     what builds fetched, see Downloader
 *   HOME/builds/                                        builds under way, see build.ts
 */

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";
import type { MachineImage } from "../vm/machine-image.js";
import { ContentStore, hashFile } from "./content-store.js";
import { parseFsJson } from "./fs-json.js";
import { checkImageName, IMAGE_NAME } from "./image-name.js";
import { type ImageManifest, readManifest } from "./manifest.js";
import { packageFile } from "./package-files.js";
import { lockOwner } from "./process-lock.js";
import { recipeNames } from "./recipe.js";
import { StepCache } from "./step-cache.js";
import { withStoreLock } from "./store-lock.js";
import type { Tree } from "./tree.js";

/** The image that comes with the package. */
export const TINY = "tiny";
const TINY_MEMORY_MIB = 512;

export interface ImageFolders {
	readonly images: string;
	readonly files: string;
	readonly steps: string;
	readonly downloads: string;
	readonly builds: string;
}

export function imageFolders(home: string): ImageFolders {
	return {
		images: join(home, "images"),
		files: join(home, "files"),
		steps: join(home, "steps"),
		downloads: join(home, "downloads"),
		builds: join(home, "builds"),
	};
}

/** Our own part of every image: the paths of kernel, init and firmware. */
export const machineFiles = {
	kernelPath: packageFile("images/kernel/bzImage"),
	initramfsPath: packageFile("images/init/initramfs.cpio"),
	biosPath: packageFile("bios/bios.bin"),
	vgaBiosPath: packageFile("bios/vgabios-stdvga.bin"),
} as const;

/** SHA-256 over kernel, init, firmware and the tree (`treeSha256` is that of its fs.json). */
export async function imageDigest(treeSha256: string): Promise<string> {
	const hash = createHash("sha256");
	for (const path of Object.values(machineFiles)) hash.update(`${await hashFile(path)}\n`);
	return hash.update(`${treeSha256}\n`).digest("hex");
}

/**
 * What a machine needs to boot the image. Throws SandboxError("image-missing") where it is not built, "not-found" where no
 * image can have that name, "corrupt" where its tree is damaged (the files are checked when they are read).
 */
export async function loadImage(home: string, name: string): Promise<MachineImage> {
	checkImageName(name);
	const folder = join(imageFolders(home).images, name);
	if (name === TINY) {
		const treePath = packageFile("images/tiny/fs.json");
		return {
			name,
			digest: await imageDigest(await hashFile(treePath)),
			...machineFiles,
			treePath,
			filesPath: packageFile("images/tiny/files"),
			bootSnapshotsPath: join(folder, "boot"),
			warmCommands: [],
			memoryMiB: TINY_MEMORY_MIB,
		};
	}
	const manifest = await readManifest(join(folder, "manifest.json"));
	if (manifest === undefined) throw await missingImage(name);
	const treePath = join(folder, "fs.json");
	const treeSha256 = await hashFile(treePath);
	if (treeSha256 !== manifest.treeSha256) {
		throw new SandboxError(
			"corrupt",
			`${treePath} is damaged: its SHA-256 is ${treeSha256} instead of ${manifest.treeSha256}`,
			`build it again with: sandbox86 image build ${name}`,
		);
	}
	return {
		name,
		digest: await imageDigest(treeSha256),
		...machineFiles,
		treePath,
		filesPath: imageFolders(home).files,
		bootSnapshotsPath: join(folder, "boot"),
		warmCommands: manifest.recipe.warm,
		memoryMiB: manifest.recipe.memory_mib,
	};
}

/** The tree of an image that was loaded. */
export async function readTree({ treePath }: Pick<MachineImage, "treePath">): Promise<Tree> {
	return parseFsJson(await readFile(treePath, "utf8"), treePath);
}

async function missingImage(name: string): Promise<SandboxError> {
	const known = await recipeNames();
	if (known.includes(name)) {
		return new SandboxError(
			"image-missing",
			`the image ${name} is not built yet`,
			`build it with: sandbox86 image build ${name}`,
		);
	}
	return new SandboxError("not-found", `there is no image ${name}`, `images that can be built: ${known.join(", ")}`);
}

export interface ListedImage {
	readonly name: string;
	/** "built", "damaged" (see `problem`), "missing" (can be built) or "bundled" (part of the package). */
	readonly state: "built" | "damaged" | "missing" | "bundled";
	readonly manifest: ImageManifest | undefined;
	readonly problem: string | undefined;
	/** Bytes of its boot snapshots. */
	readonly bootSnapshotBytes: number;
}

/** All images of the data folder and all that could be built, in the order of their names. */
export async function listImages(home: string): Promise<ListedImage[]> {
	const { images } = imageFolders(home);
	const names = new Set([
		...(await foldersIn(images)).filter((name) => IMAGE_NAME.test(name)),
		TINY,
		...(await recipeNames()),
	]);
	const listed: ListedImage[] = [];
	for (const name of [...names].sort()) {
		const bootSnapshotBytes = await sizeOfFolder(join(images, name, "boot"));
		try {
			const manifest = await readManifest(join(images, name, "manifest.json"));
			const state = name === TINY ? "bundled" : manifest === undefined ? "missing" : "built";
			listed.push({ name, state, manifest, problem: undefined, bootSnapshotBytes });
		} catch (error) {
			if (!(error instanceof SandboxError)) throw error;
			listed.push({ name, state: "damaged", manifest: undefined, problem: error.message, bootSnapshotBytes });
		}
	}
	return listed;
}

export interface ImageProblem {
	/** The file on the host. */
	readonly file: string;
	/** Where it is seen in the guest; undefined for the image's own files. */
	readonly guestPath: string | undefined;
	readonly kind: "missing" | "truncated" | "changed" | "unreadable";
	readonly detail: string;
}

/** Reads every file of an image and compares it with its hash; an empty list says that all is well. */
export async function verifyImage(
	home: string,
	name: string,
	onProgress: (fraction: number) => void = () => {},
): Promise<ImageProblem[]> {
	const problems: ImageProblem[] = [];
	let treePath: string;
	let filesPath: string;
	try {
		({ treePath, filesPath } = await loadImage(home, name));
	} catch (error) {
		if (!(error instanceof SandboxError) || error.code !== "corrupt") throw error;
		const file = join(imageFolders(home).images, name);
		return [{ file, guestPath: undefined, kind: "changed", detail: error.message }];
	}
	const tree = await readTree({ treePath });
	const files = new Map<string, { sizeBytes: number; guestPath: string }>();
	for (const [path, node] of tree.entries()) {
		if (node.kind === "file" && !files.has(node.sha256)) {
			files.set(node.sha256, { sizeBytes: node.sizeBytes, guestPath: `/${path}` });
		}
	}
	let done = 0;
	for (const [sha256, { sizeBytes, guestPath }] of files) {
		const file = join(filesPath, sha256);
		const problem = await checkFile(file, sha256, sizeBytes);
		if (problem !== undefined) problems.push({ file, guestPath, ...problem });
		onProgress(++done / files.size);
	}
	return problems;
}

async function checkFile(
	file: string,
	sha256: string,
	sizeBytes: number,
): Promise<Pick<ImageProblem, "kind" | "detail"> | undefined> {
	try {
		const { size } = await stat(file);
		if (size < sizeBytes) return { kind: "truncated", detail: `${size} of ${sizeBytes} bytes` };
		if (size > sizeBytes) return { kind: "changed", detail: `${size} instead of ${sizeBytes} bytes` };
		const found = await hashFile(file);
		return found === sha256 ? undefined : { kind: "changed", detail: `its SHA-256 is ${found}` };
	} catch (error) {
		if (errnoOf(error) === "ENOENT") return { kind: "missing", detail: "it does not exist" };
		return { kind: "unreadable", detail: error instanceof Error ? error.message : String(error) };
	}
}

export interface RemovedImage {
	/** Files that no other image uses, and their bytes. */
	readonly files: number;
	readonly bytes: number;
}

/** Removes an image and every content that no other image uses. */
export async function removeImage(home: string, name: string): Promise<RemovedImage> {
	checkImageName(name);
	if (name === TINY) {
		throw new SandboxError("invalid-argument", "the image tiny is part of the package and cannot be removed");
	}
	const { images, steps } = imageFolders(home);
	return await withStoreLock(home, async () => {
		const folder = join(images, name);
		if (!(await foldersIn(images)).includes(name)) throw new SandboxError("not-found", `there is no image ${name}`);
		// The manifest goes first: from then on the image is not there, wherever this is interrupted.
		await rm(join(folder, "manifest.json"), { force: true });
		await rm(folder, { recursive: true, force: true });
		await new StepCache(steps).forget(name);
		return await collectGarbage(home);
	});
}

/**
 * Puts a complete image folder in the place of `name`. Its contents are in the common store already, or in `contents`, which is
 * emptied into it. All are on the disk of `home`.
 */
export async function commitImage(home: string, name: string, folder: string, contents?: ContentStore): Promise<void> {
	const { images, files } = imageFolders(home);
	await withStoreLock(home, async () => {
		await mkdir(images, { recursive: true });
		await contents?.moveInto(new ContentStore(files));
		const target = join(images, name);
		const old = join(images, `${name}.old`);
		await rm(old, { recursive: true, force: true });
		const replaced = await rename(target, old).then(
			() => true,
			(error: unknown) => {
				if (errnoOf(error) === "ENOENT") return false;
				throw error;
			},
		);
		try {
			await rename(folder, target);
		} catch (error) {
			if (replaced) await rename(old, target);
			throw error;
		}
		if (replaced) {
			await rm(old, { recursive: true, force: true });
			await collectGarbage(home);
		}
	});
}

/** Removes contents that neither an image nor a step names. */
export async function removeUnused(home: string): Promise<RemovedImage> {
	return await withStoreLock(home, () => collectGarbage(home));
}

/**
 * Removes contents that neither an image nor a step names. The store's lock must be held. While another process builds,
 * nothing is removed: its contents have no name yet, and it cleans up itself when it ends.
 */
async function collectGarbage(home: string): Promise<RemovedImage> {
	const { images, files, steps, builds } = imageFolders(home);
	const builder = await lockOwner(join(builds, "lock"));
	if (builder !== undefined && builder.pid !== process.pid) return { files: 0, bytes: 0 };
	const used = new Set<string>();
	// Names are found in the text, so that not even a damaged tree loses its files.
	const keep = (text: string) => {
		for (const [sha256] of text.matchAll(/\b[0-9a-f]{64}\b/g)) used.add(sha256);
	};
	for (const name of await foldersIn(images)) {
		try {
			keep(await readFile(join(images, name, "fs.json"), "utf8"));
		} catch (error) {
			if (errnoOf(error) !== "ENOENT") throw error;
		}
	}
	const cache = new StepCache(steps);
	for (const key of await cache.keys()) keep(await cache.text(key));
	const store = new ContentStore(files);
	await store.removeTemporary();
	let removed = 0;
	let bytes = 0;
	for (const sha256 of await store.list()) {
		if (used.has(sha256)) continue;
		bytes += (await stat(store.path(sha256))).size;
		await store.remove(sha256);
		removed++;
	}
	return { files: removed, bytes };
}

async function foldersIn(path: string): Promise<string[]> {
	try {
		return (await readdir(path, { withFileTypes: true })).filter((e) => e.isDirectory()).map((e) => e.name);
	} catch (error) {
		if (errnoOf(error) === "ENOENT") return [];
		throw error;
	}
}

async function sizeOfFolder(path: string): Promise<number> {
	let bytes = 0;
	for (const name of await readdir(path).catch(() => [])) bytes += (await stat(join(path, name))).size;
	return bytes;
}

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir, readdir, rename, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeError, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { createMachine } from "../vm/guest-machine.js";
import type { MachineImage } from "../vm/machine-image.js";
import { configureInGuest } from "./configure.js";
import { ContentStore } from "./content-store.js";
import { diskError, writeFileAtomically } from "./disk.js";
import { Downloader } from "./download.js";
import { serializeFsJson } from "./fs-json.js";
import { type ImageManifest, readManifest } from "./manifest.js";
import { packageFile } from "./package-files.js";
import { acquireLock, lockOwner } from "./process-lock.js";
import { type BuildProgress, ProgressTracker, readProgressFile } from "./progress.js";
import { type Recipe, readRecipe } from "./recipe.js";
import { makeDebianTree } from "./sources/debian/debian.js";
import {
	CLEAN,
	COMPILE_PIP,
	COMPILE_PYTHON,
	configureScript,
	guestFiles,
	INDEX_APT,
} from "./sources/debian/guest-script.js";
import { standInsFor } from "./sources/debian/stand-ins.js";
import { checkImageName, commitImage, imageDigest, imageFolders, loadImage, machineFiles, TINY } from "./store.js";
import { type Attributes, directory, type Tree } from "./tree.js";

export type { BuildProgress } from "./progress.js";

export interface BuildOptions {
	readonly log: Log;
	/** URL of the Debian archive to fetch from and to set the guest's apt up for. */
	readonly mirror?: string;
	/** Memory of the machine that the boot snapshot is made for, MiB. */
	readonly memoryMiB?: number;
	readonly signal?: AbortSignal;
	readonly onProgress?: (progress: BuildProgress) => void;
}

const DEFAULT_MEMORY_MIB = 512;
/** Free space that a build needs beside what is downloaded already, bytes. */
const NEEDED_BYTES = 700 * 1024 * 1024;
const PROGRESS_FILE_MS = 500;

/**
 * Builds an image, or waits for the build that is under way in this or another process and takes its result. The image
 * appears complete or not at all; an image of the same name stays until then. What was downloaded is kept for the next try.
 */
export async function buildImage(home: string, name: string, options: BuildOptions): Promise<MachineImage> {
	checkImageName(name);
	if (name === TINY)
		throw new SandboxError("invalid-argument", "the image tiny is part of the package; nothing to build");
	const recipe = await readRecipe(name);
	const folders = imageFolders(home);
	const manifestPath = join(folders.images, name, "manifest.json");
	const before = await readManifest(manifestPath).catch(() => undefined);
	const lock = await acquireLock(join(folders.builds, "lock"), name, {
		...(options.signal === undefined ? {} : { signal: options.signal }),
		onWait: () => void forwardProgress(home, options),
	});
	try {
		const meanwhile = await readManifest(manifestPath).catch(() => undefined);
		if (meanwhile !== undefined && meanwhile.created !== before?.created) return await loadImage(home, name);
		await removeLeftovers(folders.builds);
		return await build(home, recipe, options);
	} catch (error) {
		throw diskError(home, error);
	} finally {
		await lock.release();
	}
}

/** How far the build under way is, in whatever process; undefined if there is none. */
export async function readBuildProgress(
	home: string,
): Promise<(BuildProgress & { readonly name: string }) | undefined> {
	const { builds } = imageFolders(home);
	const owner = await lockOwner(join(builds, "lock"));
	if (owner === undefined) return undefined;
	const progress = await readProgressFile(join(builds, "progress.json"));
	return progress === undefined ? undefined : { ...progress, name: owner.purpose };
}

async function forwardProgress(home: string, { onProgress }: BuildOptions): Promise<void> {
	const progress = await readBuildProgress(home).catch(() => undefined);
	if (progress === undefined) return;
	onProgress?.({ ...progress, phase: "waiting", stage: `another process builds ${progress.name}: ${progress.stage}` });
}

/** The lock is held, so whatever else lies here is of a build that was broken off. */
async function removeLeftovers(builds: string): Promise<void> {
	for (const entry of await readdir(builds)) {
		if (!entry.startsWith("lock")) await rm(join(builds, entry), { recursive: true, force: true });
	}
}

async function build(home: string, recipe: Recipe, options: BuildOptions): Promise<MachineImage> {
	const { log, signal } = options;
	const { name } = recipe;
	const folders = imageFolders(home);
	const started = performance.now();
	const staging = join(folders.builds, name);
	await requireSpace(home);
	await mkdir(join(staging, "image"), { recursive: true });
	const report = progressReporter(join(folders.builds, "progress.json"), options);
	const progress = new ProgressTracker(report.update);
	const consoleLogPath = join(home, `build-${name}-console.log`);
	const store = new ContentStore(join(staging, "files"));
	try {
		const downloader = new Downloader({
			folder: folders.downloads,
			log,
			...(signal === undefined ? {} : { signal }),
			onBytes: (bytes) => progress.received(bytes),
		});
		const debian = await makeDebianTree({ recipe, store, downloader, mirror: options.mirror, progress, log, signal });
		const { tree, packages, epoch } = debian;
		const treePath = join(staging, "image", "fs.json");
		const image: MachineImage = {
			name,
			digest: debian.inputsDigest,
			...machineFiles,
			treePath,
			filesPath: store.folder,
			bootSnapshotsPath: join(staging, "image", "boot"),
			warmCommands: [],
		};
		await writeFileAtomically(treePath, serializeFsJson(tree));
		const standIns = standInsFor(tree);
		const toConfigure = packages.filter(({ state }) => state === "unpacked").length;
		const withPreinst = packages.filter(({ control }) => control.files.has("preinst")).length;
		await configureInGuest(tree, store, {
			image,
			memoryMiB: recipe.memory_mib,
			consoleLogPath,
			log,
			signal,
			progress,
			files: guestFiles(packages, standIns),
			steps: [
				{
					title: "setting up packages",
					script: configureScript(packages, standIns),
					weight: 70,
					expected: toConfigure + withPreinst,
					counts: /^(Setting up|Preparing) /,
				},
				{ title: "compiling Python modules", script: COMPILE_PYTHON, weight: 20 },
				{ title: "compiling pip", script: COMPILE_PIP, weight: 20 },
				{ title: "indexing packages for apt", script: INDEX_APT, weight: 60 },
				...recipe.run.map((script) => ({ title: `running ${script.slice(0, 40)}`, script, weight: 10 })),
				{ title: "cleaning up", script: CLEAN, weight: 5 },
			],
		});
		tidy(tree, epoch);

		progress.update("commit", 0, "writing the image");
		const treeText = serializeFsJson(tree);
		const treeSha256 = createHash("sha256").update(treeText).digest("hex");
		await writeFileAtomically(treePath, treeText);
		const { entries, fileBytes } = await prune(tree, store);
		const finished: MachineImage = { ...image, digest: await imageDigest(treeSha256), warmCommands: recipe.warm };

		progress.update("snapshot", 0, "booting it once for the boot snapshot");
		await makeBootSnapshot(finished, consoleLogPath, options);
		const manifest: ImageManifest = {
			format: 1,
			name,
			created: new Date().toISOString(),
			builtBy: packageVersion(),
			inputsDigest: debian.inputsDigest,
			source: debian.source,
			packages: packages.map((found) => ({ name: found.name, version: found.version })),
			treeSha256,
			entries,
			fileBytes,
			packageBytes: debian.packageBytes,
			buildMs: Math.round(performance.now() - started),
			warmCommands: [...recipe.warm],
		};
		await writeFileAtomically(
			join(staging, "image", "manifest.json"),
			`${JSON.stringify(manifest, undefined, "\t")}\n`,
		);
		await commitImage(home, name, join(staging, "image"), store);
		progress.update("snapshot", 1, "done");
		await rm(consoleLogPath, { force: true });
		return await loadImage(home, name);
	} finally {
		await rm(staging, { recursive: true, force: true });
		await report.end();
	}
}

async function makeBootSnapshot(image: MachineImage, consoleLogPath: string, options: BuildOptions): Promise<void> {
	const machine = createMachine({
		image,
		memoryMiB: options.memoryMiB ?? DEFAULT_MEMORY_MIB,
		log: options.log,
		consoleLogPath,
	});
	const onAbort = () => void machine.stop();
	options.signal?.addEventListener("abort", onAbort, { once: true });
	try {
		await machine.start();
		const proof = await machine.run("dpkg --audit && exit 0", { timeoutMs: 120_000 });
		if (proof.exitCode !== 0) throw new SandboxError("build-failed", "the finished image does not run its own dpkg");
	} catch (error) {
		if (options.signal?.aborted === true) throw new SandboxError("cancelled", "the build was cancelled");
		throw error;
	} finally {
		options.signal?.removeEventListener("abort", onAbort);
		await machine.stop();
	}
}

/** Empties what only a running system fills, and makes no file younger than the signed indices. */
function tidy(tree: Tree, epoch: number): void {
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

/** Removes contents that the tree no longer names; returns what it holds. */
async function prune(tree: Tree, store: ContentStore): Promise<{ entries: number; fileBytes: number }> {
	const used = new Map<string, number>();
	let entries = 0;
	for (const [, node] of tree.entries()) {
		entries++;
		if (node.kind === "file") used.set(node.sha256, node.sizeBytes);
	}
	for (const sha256 of await store.list()) if (!used.has(sha256)) await store.remove(sha256);
	return { entries, fileBytes: [...used.values()].reduce((sum, bytes) => sum + bytes, 0) };
}

async function requireSpace(home: string): Promise<void> {
	await mkdir(home, { recursive: true });
	const { bavail, bsize } = await statfs(home);
	if (bavail * bsize >= NEEDED_BYTES) return;
	const mib = (bytes: number) => Math.floor(bytes / 1024 / 1024);
	throw new SandboxError(
		"no-space",
		`${home} has ${mib(bavail * bsize)} MiB free, a build needs ${mib(NEEDED_BYTES)}`,
		"make room or set SANDBOX86_HOME to a folder on another disk",
	);
}

/** Hands progress to the caller and, at most twice a second, to a file for other processes. */
function progressReporter(
	path: string,
	{ onProgress, log }: BuildOptions,
): { update: (progress: BuildProgress) => void; end: () => Promise<void> } {
	let writtenMs = Number.NEGATIVE_INFINITY;
	let writing: Promise<void> = Promise.resolve();
	return {
		update(progress) {
			onProgress?.(progress);
			const nowMs = performance.now();
			if (nowMs - writtenMs < PROGRESS_FILE_MS) return;
			writtenMs = nowMs;
			writing = writing.then(async () => {
				try {
					await writeFile(`${path}.new`, JSON.stringify(progress));
					await rename(`${path}.new`, path);
				} catch (error) {
					// Only a courtesy to other processes.
					log.debug(`progress is not written: ${describeError(error)}`);
				}
			});
		},
		async end() {
			await writing;
			await rm(path, { force: true });
		},
	};
}

function packageVersion(): string {
	const value: unknown = JSON.parse(readFileSync(packageFile("package.json"), "utf8"));
	return typeof value === "object" && value !== null && "version" in value ? String(value.version) : "unknown";
}

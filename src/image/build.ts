/** Builds an image: its tree step by step, then its boot snapshot. */

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { describeError, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { packageVersion } from "../package-version.js";
import { createMachine } from "../vm/guest-machine.js";
import type { MachineNetwork } from "../vm/machine.js";
import type { MachineImage } from "../vm/machine-image.js";
import { ContentStore } from "./content-store.js";
import { diskError, writeFileAtomically } from "./disk.js";
import { Downloader } from "./download.js";
import { requireFreeSpace } from "./free-space.js";
import { serializeFsJson } from "./fs-json.js";
import { type GuestWork, workInGuest } from "./guest-work.js";
import { removeLeftovers } from "./leftovers.js";
import { lockFilePath, readLockFile, writeLockFile } from "./lock-file.js";
import { makeTree } from "./make-tree.js";
import { type ImageManifest, readManifest } from "./manifest.js";
import { acquireLock, lockOwner } from "./process-lock.js";
import { type BuildProgress, type Progress, ProgressTracker } from "./progress.js";
import { ProgressFile, readProgressFile } from "./progress-file.js";
import { type Recipe, type RecipeFile, readRecipe } from "./recipe.js";
import { sha256Of } from "./sha256.js";
import type { SourceContext } from "./source.js";
import { StepCache } from "./step-cache.js";
import { commitImage, imageDigest, imageFolders, loadImage, machineFiles, removeUnused, TINY } from "./store.js";
import { contentsOf, type Tree } from "./tree.js";

export type { BuildProgress } from "./progress.js";

/** The network of the machines that a build works in. */
export interface BuildNetwork extends MachineNetwork {
	close(): Promise<void>;
}

export interface BuildOptions {
	readonly log: Log;
	/** URL of the Debian archive to fetch from and to set the guest's apt up for. */
	readonly mirror?: string;
	/** Memory of the machine that the boot snapshot is made for, MiB; default: the recipe's. */
	readonly memoryMiB?: number;
	/** The network of recipes' packages and commands; they have none without it. */
	readonly openNetwork?: () => Promise<BuildNetwork>;
	/** Find out anew what the recipe's source is, whatever the lock file says, and write a new one. */
	readonly update?: boolean;
	/** Do every step anew. */
	readonly fresh?: boolean;
	readonly signal?: AbortSignal;
	readonly onProgress?: (progress: BuildProgress) => void;
	/** Gets what the recipe's packages and commands print, and the title of each step. */
	readonly onLine?: (line: string) => void;
}

/** Free space that a build needs beside what is downloaded already, bytes. */
const NEEDED_BYTES = 700 * 1024 * 1024;
/** What a recipe's step in the guest is expected to take, seconds. */
const STEP_SECONDS = 60;

/**
 * Builds the image of a recipe of the package (its name) or of a file (its path), or waits for the build that is under way
 * in this or another process and takes its result. The image appears complete or not at all; an image of the same name
 * stays until then. What was downloaded, and the steps that were done, are kept for the next try.
 */
export async function buildImage(home: string, which: string, options: BuildOptions): Promise<MachineImage> {
	if (which === TINY) throw tinyIsTaken();
	const recipe = await readRecipe(which);
	const { name } = recipe.recipe;
	if (name === TINY) throw tinyIsTaken();
	const folders = imageFolders(home);
	const manifestPath = join(folders.images, name, "manifest.json");
	const before = await readManifest(manifestPath).catch(() => undefined);
	const lock = await acquireLock(join(folders.builds, "lock"), name, {
		...(options.signal === undefined ? {} : { signal: options.signal }),
		onWait: () => void forwardProgress(home, options),
	});
	try {
		const meanwhile = await readManifest(manifestPath).catch(() => undefined);
		const isOurs = JSON.stringify(meanwhile?.recipe) === JSON.stringify(recipe.recipe);
		if (meanwhile !== undefined && meanwhile.created !== before?.created && isOurs) return await loadImage(home, name);
		await removeLeftovers(folders.builds);
		return await build(home, recipe, options);
	} catch (error) {
		throw diskError(home, error);
	} finally {
		// Contents of steps that failed are of no use to anybody.
		await removeUnused(home).catch((error: unknown) => options.log.warn(`clean-up: ${describeError(error)}`));
		await lock.release();
	}
}

function tinyIsTaken(): SandboxError {
	return new SandboxError(
		"invalid-argument",
		"the image tiny is part of the package and is not built",
		"give the image another name",
	);
}

/** How far the build under way is, in whatever process; undefined if there is none. */
export async function readBuildProgress(home: string): Promise<(Progress & { readonly name: string }) | undefined> {
	const { builds } = imageFolders(home);
	const owner = await lockOwner(join(builds, "lock"));
	if (owner === undefined) return undefined;
	const progress = await readProgressFile(builds);
	return progress === undefined ? undefined : { ...progress, name: owner.purpose };
}

async function forwardProgress(home: string, { onProgress }: BuildOptions): Promise<void> {
	const progress = await readBuildProgress(home).catch(() => undefined);
	if (progress === undefined) return;
	onProgress?.({ ...progress, phase: "waiting", stage: `another process makes ${progress.name}: ${progress.stage}` });
}

async function build(home: string, recipeFile: RecipeFile, options: BuildOptions): Promise<MachineImage> {
	const { log, signal } = options;
	const { recipe } = recipeFile;
	const { name } = recipe;
	const folders = imageFolders(home);
	const started = performance.now();
	const staging = join(folders.builds, name);
	await requireFreeSpace(home, NEEDED_BYTES, "a build");
	await mkdir(join(staging, "image"), { recursive: true });
	const progressFile = new ProgressFile(folders.builds, log);
	const progress = new ProgressTracker((now) => {
		options.onProgress?.(now);
		progressFile.update(now);
	}, expectedSeconds(recipe));
	const consoleLogPath = join(home, `build-${name}-console.log`);
	const store = new ContentStore(folders.files);
	const cache = new StepCache(folders.steps);
	const lockPath = recipeFile.path === undefined ? undefined : lockFilePath(recipeFile.path);
	const lock = lockPath === undefined || options.update === true ? undefined : await readLockFile(lockPath);
	const version = packageVersion();
	let network: Promise<BuildNetwork> | undefined;

	const machineImage = (treePath: string, digest: string): MachineImage => ({
		name,
		digest,
		...machineFiles,
		treePath,
		filesPath: store.folder,
		bootSnapshotsPath: join(staging, "image", "boot"),
		warmCommands: [],
		memoryMiB: recipe.memory_mib,
	});
	const work = async (
		tree: Tree,
		guestWork: GuestWork,
		how: Pick<Parameters<typeof workInGuest>[2], "network" | "onProgress" | "onLine">,
	) => {
		const treePath = join(staging, "step.json");
		const text = serializeFsJson(tree);
		await writeFileAtomically(treePath, text);
		const image = machineImage(treePath, sha256Of(text));
		await workInGuest(tree, store, {
			...guestWork,
			...how,
			image,
			memoryMiB: recipe.memory_mib,
			consoleLogPath,
			log,
			signal,
		});
	};

	try {
		const context: SourceContext = {
			store,
			downloader: new Downloader({
				folder: folders.downloads,
				log,
				...(signal === undefined ? {} : { signal }),
				onBytes: (bytes) => progress.received(bytes),
			}),
			home,
			recipeFolder: recipeFile.folder,
			packages: recipe.packages,
			mirror: options.mirror,
			workInGuest: (tree, guestWork) =>
				work(tree, guestWork, {
					network: undefined,
					onProgress: (fraction, stage) => progress.update("configure", fraction, stage),
				}),
			progress,
			log,
			signal,
		};
		const made = await makeTree({
			recipe: recipeFile,
			context,
			cache,
			fresh: options.fresh === true,
			lock,
			version,
			runStep: async (tree, script, title, at, of) => {
				network ??= options.openNetwork?.();
				const steps = [{ title, script, weight: 1 }];
				await work(
					tree,
					{ files: new Map(), steps },
					{
						network: await network,
						onProgress: (fraction, stage) => progress.update("steps", (at + fraction) / of, stage),
						onLine: options.onLine,
					},
				);
			},
			onStep: (title, isCached) => options.onLine?.(`==> ${title}${isCached ? " (done before)" : ""}`),
		});

		progress.update("commit", 0, "writing the image");
		const treePath = join(staging, "image", "fs.json");
		const treeText = serializeFsJson(made.tree);
		const treeSha256 = sha256Of(treeText);
		await writeFileAtomically(treePath, treeText);
		const finished: MachineImage = {
			...machineImage(treePath, await imageDigest(treeSha256)),
			warmCommands: recipe.warm,
		};
		progress.update("snapshot", 0, "booting it once for the boot snapshot");
		await makeBootSnapshot(finished, consoleLogPath, options);
		const manifest: ImageManifest = {
			format: 2,
			name,
			created: new Date().toISOString(),
			builtBy: version,
			recipe,
			lock: made.lock,
			inputsDigest: sha256Of(JSON.stringify([recipe, made.lock])),
			packages: [...made.packages],
			treeSha256,
			...measure(made.tree),
			buildMs: Math.round(performance.now() - started),
		};
		await writeFileAtomically(
			join(staging, "image", "manifest.json"),
			`${JSON.stringify(manifest, undefined, "\t")}\n`,
		);
		await commitImage(home, name, join(staging, "image"));
		if (lockPath !== undefined && lock === undefined) await writeLockFile(lockPath, made.lock);
		await cache.forget(name, made.steps);
		progress.update("snapshot", 1, "done");
		await rm(consoleLogPath, { force: true });
		return await loadImage(home, name);
	} finally {
		await (await network?.catch(() => undefined))?.close();
		await rm(staging, { recursive: true, force: true });
		await progressFile.end();
	}
}

/** Only the time left hangs on it. */
function expectedSeconds({ from, packages, run }: Recipe): ConstructorParameters<typeof ProgressTracker>[1] {
	if (from.startsWith("debian:")) return { steps: STEP_SECONDS * run.length };
	return { configure: 0, steps: STEP_SECONDS * (run.length + (packages.length > 0 ? 1 : 0)) };
}

async function makeBootSnapshot(image: MachineImage, consoleLogPath: string, options: BuildOptions): Promise<void> {
	const machine = createMachine({
		image,
		memoryMiB: options.memoryMiB ?? image.memoryMiB,
		log: options.log,
		consoleLogPath,
	});
	const onAbort = () => void machine.stop();
	options.signal?.addEventListener("abort", onAbort, { once: true });
	try {
		await machine.start();
		const proof = await machine.run("exit 0", { timeoutMs: 120_000 });
		if (proof.exitCode !== 0) throw new SandboxError("build-failed", "the finished image does not run its own shell");
	} catch (error) {
		if (options.signal?.aborted === true) throw new SandboxError("cancelled", "the build was cancelled");
		throw error;
	} finally {
		options.signal?.removeEventListener("abort", onAbort);
		await machine.stop();
	}
}

/** Entries of a tree, and the bytes of all its different files. */
function measure(tree: Tree): { entries: number; fileBytes: number } {
	const fileBytes = [...contentsOf(tree).values()].reduce((sum, bytes) => sum + bytes, 0);
	return { entries: [...tree.entries()].length, fileBytes };
}

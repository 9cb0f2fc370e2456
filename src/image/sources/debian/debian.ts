/** A Debian userland on the host: index → packages → tree, everything unpacked and nothing configured. */

import { createHash } from "node:crypto";
import { SandboxError } from "../../../errors.js";
import type { Log } from "../../../log.js";
import type { ContentStore } from "../../content-store.js";
import { type Downloader, forEachParallel } from "../../download.js";
import { limits } from "../../limits.js";
import type { ImageManifest } from "../../manifest.js";
import { formatBytes, type ProgressTracker } from "../../progress.js";
import type { Recipe } from "../../recipe.js";
import { Tree } from "../../tree.js";
import { guestMirror, setUpApt } from "./apt-setup.js";
import { settleCaCertificates } from "./ca-certificates.js";
import { type UnpackedPackage, writeDpkgDatabase } from "./dpkg-database.js";
import { chooseMirrors } from "./mirror.js";
import type { DebianPackage } from "./package-index.js";
import { readArchiveKeys } from "./release.js";
import { ARCHITECTURE, openRepository, packageFileOf, type Repository } from "./repository.js";
import { resolvePackages } from "./resolve.js";
import { makeMergedUsr, unpackPackage } from "./unpack.js";

export interface DebianOptions {
	readonly recipe: Recipe;
	readonly store: ContentStore;
	readonly downloader: Downloader;
	/** The archive's URL as the user gave it. */
	readonly mirror: string | undefined;
	readonly progress: ProgressTracker;
	readonly log: Log;
	readonly signal: AbortSignal | undefined;
}

export interface DebianTree {
	readonly tree: Tree;
	readonly packages: readonly UnpackedPackage[];
	/** Newest date of the signed indices, seconds since 1970: no file of the image is younger. */
	readonly epoch: number;
	readonly source: ImageManifest["source"];
	readonly packageBytes: number;
	/** SHA-256 over the recipe and all packages. */
	readonly inputsDigest: string;
}

/** Packages whose postinst is done on the host; see settleCaCertificates. */
const SETTLED_ON_HOST: ReadonlySet<string> = new Set(["ca-certificates"]);

export async function makeDebianTree(options: DebianOptions): Promise<DebianTree> {
	const { recipe, store, downloader, mirror, progress, log } = options;
	const codename = recipe.from.slice("debian:".length);
	progress.update("index", 0, "fetching the package index");
	const repository = await openRepository({
		downloader,
		mirrors: await chooseMirrors(mirror),
		codename,
		keys: await readArchiveKeys(),
		log,
		nowMs: Date.now(),
	});
	const required = [...repository.index].filter(({ priority }) => priority === "required").map(({ name }) => name);
	const selected = resolvePackages(repository.index, [...recipe.packages, ...required]);
	const epoch = Math.floor(Math.max(...repository.suites.map(({ release }) => release.dateMs)) / 1000);
	progress.update("index", 1, `${selected.length} packages chosen`);

	const tree = new Tree();
	makeMergedUsr(tree, epoch);
	const packages = await unpackAll(options, repository, selected, tree);

	progress.update("tree", 0, "writing the package database");
	await writeDpkgDatabase(tree, store, packages, epoch);
	if (selected.some(({ name }) => name === "ca-certificates")) await settleCaCertificates(tree, store, epoch);
	await setUpApt({ tree, store, repository, codename, mirror, mtime: epoch });
	const inputs = { recipe, packages: selected.map(({ name, version, sha256 }) => [name, version, sha256]) };
	return {
		tree,
		packages,
		epoch,
		source: {
			kind: "debian",
			architecture: ARCHITECTURE,
			suites: repository.suites.map(({ name, release }) => ({ name, date: new Date(release.dateMs).toISOString() })),
			guestMirror: guestMirror(mirror),
		},
		packageBytes: selected.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
		inputsDigest: createHash("sha256").update(JSON.stringify(inputs)).digest("hex"),
	};
}

/** Downloads in parallel and unpacks, in order, whatever has arrived. */
async function unpackAll(
	{ downloader, store, progress, signal }: DebianOptions,
	repository: Repository,
	selected: readonly DebianPackage[],
	tree: Tree,
): Promise<UnpackedPackage[]> {
	const total = selected.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
	// base-files brings the root's folders, which all others are laid into.
	const ordered = [...selected].sort((a, b) => Number(b.name === "base-files") - Number(a.name === "base-files"));
	const arrivals = new Map<DebianPackage, { resolve: (path: string) => void; promise: Promise<string> }>();
	for (const found of ordered) {
		let resolve: (path: string) => void = () => {};
		const promise = new Promise<string>((fulfil) => {
			resolve = fulfil;
		});
		arrivals.set(found, { resolve, promise });
	}
	let fetched = 0;
	let unpacked = 0;
	const report = (doing: string) => {
		const fraction = (0.5 * (fetched + unpacked)) / total;
		progress.update("packages", fraction, `${doing}, ${formatBytes(fetched)} of ${formatBytes(total)} here`);
	};
	const downloading = forEachParallel(ordered, limits.parallelDownloads, async (found) => {
		const path = await downloader.fetch(repository.mirrors[found.archive], packageFileOf(found));
		fetched += found.sizeBytes;
		report("downloading packages");
		arrivals.get(found)?.resolve(path);
	});
	const failed = downloading.then(() => new Promise<never>(() => {}));
	failed.catch(() => undefined);
	const packages: UnpackedPackage[] = [];
	for (const found of ordered) {
		const path = await Promise.race([arrivals.get(found)?.promise, failed]);
		if (path === undefined) continue;
		if (signal?.aborted === true) throw new SandboxError("cancelled", "the build was cancelled");
		const done = await unpackPackage(tree, store, found, path);
		const isSettled = !done.control.files.has("postinst") || SETTLED_ON_HOST.has(found.name);
		packages.push(isSettled ? { ...done, state: "installed" } : done);
		unpacked += found.sizeBytes;
		report(fetched < total ? "downloading packages" : `unpacking ${found.name}`);
	}
	await downloading;
	return packages.sort((a, b) => (a.name < b.name ? -1 : 1));
}

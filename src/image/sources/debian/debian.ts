/** A Debian userland on the host: index → packages → tree, everything unpacked and nothing configured. */

import { z } from "zod";
import { SandboxError } from "../../../errors.js";
import { forEachParallel } from "../../download.js";
import { limits } from "../../limits.js";
import { formatBytes } from "../../progress.js";
import { sha256Schema as sha256, sha256Of } from "../../sha256.js";
import type { Source, SourceContext } from "../../source.js";
import { Tree } from "../../tree.js";
import { guestMirror, setUpApt } from "./apt-setup.js";
import { settleCaCertificates } from "./ca-certificates.js";
import { configureTree } from "./configure-tree.js";
import { type UnpackedPackage, writeDpkgDatabase } from "./dpkg-database.js";
import { chooseMirrors } from "./mirror.js";
import type { DebianPackage } from "./package-index.js";
import { readArchiveKeys } from "./release.js";
import { ARCHITECTURE, openRepository, packageFileOf, type Repository } from "./repository.js";
import { resolvePackages } from "./resolve.js";
import { makeMergedUsr, unpackPackage } from "./unpack.js";

const lockSchema = z.strictObject({
	codename: z.string().regex(/^[a-z]+$/),
	architecture: z.literal(ARCHITECTURE),
	/** The signed indices: what they are called, when they were made, the SHA-256 of InRelease (or Release). */
	suites: z.array(z.strictObject({ name: z.string(), date: z.iso.datetime(), sha256 })).max(8),
	/** The archive that the guest's apt is set up for. */
	guestMirror: z.string(),
	packages: z.array(z.strictObject({ name: z.string(), version: z.string(), sha256 })).max(limits.maxPackages),
});

type DebianLock = z.infer<typeof lockSchema>;

/** Packages whose postinst is done on the host; see settleCaCertificates. */
const SETTLED_ON_HOST: ReadonlySet<string> = new Set(["ca-certificates"]);

/** What `resolve` read, for `make` of the same build: the indices are large. */
const opened = new WeakMap<SourceContext, Repository>();

/** `debian:SUITE`. */
export const debianSource: Source<DebianLock> = {
	scheme: "debian",
	lockSchema,
	installsPackages: true,

	async resolve(codename, context) {
		if (!/^[a-z]+$/.test(codename)) {
			throw new SandboxError(
				"invalid-argument",
				`debian:${codename} names no Debian release`,
				"give its code name, as in debian:trixie",
			);
		}
		context.progress.update("index", 0, "fetching the package index");
		const repository = await open(codename, context);
		opened.set(context, repository);
		const packages = select(repository, context.packages);
		context.progress.update("index", 1, `${packages.length} packages chosen`);
		return {
			codename,
			architecture: ARCHITECTURE,
			suites: repository.suites.map(({ name, release }) => ({
				name,
				date: new Date(release.dateMs).toISOString(),
				sha256: sha256Of(release.text),
			})),
			guestMirror: guestMirror(context.mirror),
			packages: packages.map((found) => ({ name: found.name, version: found.version, sha256: found.sha256 })),
		};
	},

	async make(lock, context) {
		const repository = opened.get(context) ?? (await open(lock.codename, context, lock));
		const selected = select(repository, context.packages);
		checkLocked(lock, selected);
		const epoch = Math.floor(Math.max(...lock.suites.map(({ date }) => Date.parse(date))) / 1000);
		const tree = await unpackTree(context, repository, lock, selected, epoch);
		return { tree, epoch, env: {} };
	},
};

async function open(codename: string, context: SourceContext, lock?: DebianLock): Promise<Repository> {
	return await openRepository({
		downloader: context.downloader,
		mirrors: await chooseMirrors(context.mirror),
		codename,
		keys: await readArchiveKeys(),
		log: context.log,
		nowMs: Date.now(),
		...(lock === undefined ? {} : { expected: lock.suites }),
	});
}

function select(repository: Repository, wanted: readonly string[]): DebianPackage[] {
	const required = [...repository.index].filter(({ priority }) => priority === "required").map(({ name }) => name);
	return resolvePackages(repository.index, [...wanted, ...required]);
}

/** The same indices and the same recipe give the same packages, so a difference means that one of them was changed by hand. */
function checkLocked(lock: DebianLock, selected: readonly DebianPackage[]): void {
	const locked = new Map(lock.packages.map((found) => [found.name, found.sha256]));
	const other = selected.find((found) => locked.get(found.name) !== found.sha256);
	if (other === undefined && locked.size === selected.length) return;
	throw new SandboxError(
		"mismatch",
		other === undefined
			? `the lock file has ${locked.size} packages, the recipe needs ${selected.length}`
			: `the lock file has another ${other.name} than the recipe and the index`,
		"make a new lock file with --update",
	);
}

async function unpackTree(
	context: SourceContext,
	repository: Repository,
	lock: DebianLock,
	selected: readonly DebianPackage[],
	epoch: number,
): Promise<Tree> {
	const { store, progress } = context;
	const tree = new Tree();
	makeMergedUsr(tree, epoch);
	const packages = await unpackAll(context, repository, selected, tree);
	progress.update("tree", 0, "writing the package database");
	await writeDpkgDatabase(tree, store, packages, epoch);
	if (selected.some(({ name }) => name === "ca-certificates")) await settleCaCertificates(tree, store, epoch);
	const { codename } = lock;
	await setUpApt({ tree, store, repository, codename, mirror: lock.guestMirror, mtime: epoch });
	await configureTree(tree, packages, context.workInGuest);
	return tree;
}

/** Downloads in parallel and unpacks, in order, whatever has arrived. */
async function unpackAll(
	{ downloader, store, progress, signal }: SourceContext,
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

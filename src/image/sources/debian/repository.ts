import { createReadStream } from "node:fs";
import type { Key } from "openpgp";
import { SandboxError } from "../../../errors.js";
import type { Log } from "../../../log.js";
import { decompress } from "../../decompress.js";
import type { Downloader, VerifiedFile } from "../../download.js";
import { limits } from "../../limits.js";
import { sha256Of } from "../../sha256.js";
import type { Mirrors } from "./mirror.js";
import { type DebianPackage, PackageIndex } from "./package-index.js";
import { fetchRelease, type Release } from "./release.js";

export const ARCHITECTURE = "i386";
const COMPONENT = "main";
const PACKAGES = `${COMPONENT}/binary-${ARCHITECTURE}/Packages`;

/** One suite of a repository, verified. */
export interface Suite {
	/** "trixie", "trixie-updates", "trixie-security". */
	readonly name: string;
	readonly kind: keyof Mirrors;
	readonly release: Release;
	/** Path of the compressed Packages file on the host. */
	readonly packagesPath: string;
	/** "Packages.xz" or "Packages.gz". */
	readonly packagesName: string;
}

/** What a Debian release offers today, as its signed indices say. */
export interface Repository {
	readonly suites: readonly Suite[];
	readonly index: PackageIndex;
	readonly mirrors: Mirrors;
}

/** A suite as a lock file names it; `sha256` is of InRelease or Release. */
interface LockedSuite {
	readonly name: string;
	readonly date: string;
	readonly sha256: string;
}

export interface OpenRepositoryOptions {
	readonly downloader: Downloader;
	readonly mirrors: Mirrors;
	/** "trixie" or another release's code name. */
	readonly codename: string;
	readonly keys: readonly Key[];
	readonly log: Log;
	readonly nowMs: number;
	/** The indices that a lock file names: these and no others. */
	readonly expected?: readonly LockedSuite[];
}

/** Fetches and verifies the indices of a release, of its updates and of its security archive. */
export async function openRepository(options: OpenRepositoryOptions): Promise<Repository> {
	const { codename, mirrors, log, expected } = options;
	const all: readonly { name: string; kind: keyof Mirrors }[] = [
		{ name: codename, kind: "archive" },
		{ name: `${codename}-updates`, kind: "archive" },
		{ name: `${codename}-security`, kind: "security" },
	];
	const wanted = all.filter(({ name }) => expected?.some((locked) => locked.name === name) ?? true);
	const found = await Promise.all(
		wanted.map(async ({ name, kind }): Promise<Suite | undefined> => {
			const locked = expected?.find((suite) => suite.name === name);
			const isMain = name === codename || locked !== undefined;
			try {
				const suite = await openSuite(options, { name, kind }, locked);
				if (suite !== undefined) return suite;
				if (isMain) throw new SandboxError("network", `no mirror has Debian ${name}: ${mirrors[kind].join(", ")}`);
			} catch (error) {
				// An unsigned suite is never passed over in silence; one that is out of reach is, but for the main one.
				if (isMain || !(error instanceof SandboxError) || error.code !== "network") throw error;
				log.warn(`${name} is left out: ${error.message}`);
				return undefined;
			}
			log.warn(`${name} is left out: no mirror has it`);
			return undefined;
		}),
	);
	const suites = found.filter((suite) => suite !== undefined);
	const index = new PackageIndex();
	for (const suite of suites) {
		const stream = createReadStream(suite.packagesPath, { highWaterMark: 256 * 1024 }) as AsyncIterable<Uint8Array>;
		await index.read(decompress(stream, suite.packagesPath), suite.kind);
	}
	return { suites, index, mirrors };
}

/**
 * The suite by its code name, or, where what the mirror has under it does not fit together, by its other name ("stable"):
 * a cache in front of a mirror may be new for one address and old for the next.
 */
async function openSuite(
	options: OpenRepositoryOptions,
	{ name, kind }: Pick<Suite, "name" | "kind">,
	locked: LockedSuite | undefined,
): Promise<Suite | undefined> {
	const mirrors = options.mirrors[kind];
	// An index that a lock file wants may have expired since.
	const how = { ...options, mirrors, ...(locked === undefined ? {} : { validAtMs: Date.parse(locked.date) }) };
	const release = await fetchRelease({ ...how, suite: name });
	if (release === undefined) return undefined;
	try {
		return await open(name, release);
	} catch (error) {
		const { codename, suite } = release;
		if (!(error instanceof SandboxError) || error.code === "cancelled" || suite === name) throw error;
		const other = await fetchRelease({ ...how, suite }).catch(() => undefined);
		if (other === undefined || other.codename !== codename || other.text === release.text) throw error;
		const found = await open(suite, other).catch(() => undefined);
		if (found === undefined) throw error;
		options.log.warn(`${name} is taken from dists/${suite}, as of ${dayOf(other.dateMs)}: ${error.message}`);
		return found;
	}

	async function open(folderName: string, candidate: Release): Promise<Suite> {
		if (locked !== undefined) checkIsLocked(candidate, locked);
		const file = await fetchPackages(options.downloader, mirrors, `dists/${folderName}`, candidate);
		return { name, kind, release: candidate, ...file };
	}
}

function dayOf(dateMs: number): string {
	return new Date(dateMs).toISOString().slice(0, 10);
}

function checkIsLocked(release: Release, locked: LockedSuite): void {
	if (sha256Of(release.text) === locked.sha256) return;
	const offered = new Date(release.dateMs).toISOString();
	throw new SandboxError(
		"mismatch",
		`the lock file wants Debian ${locked.name} of ${locked.date}, the mirror has that of ${offered}`,
		"name a mirror that keeps that day with --mirror, such as https://snapshot.debian.org/archive/debian/YYYYMMDDTHHMMSSZ, or make a new lock file with --update",
	);
}

async function fetchPackages(
	downloader: Downloader,
	mirrors: readonly string[],
	folder: string,
	release: Release,
): Promise<Pick<Suite, "packagesName" | "packagesPath">> {
	for (const packagesName of ["Packages.xz", "Packages.gz"]) {
		const path = `${PACKAGES.slice(0, -"Packages".length)}${packagesName}`;
		const entry = release.files.get(path);
		if (entry === undefined) continue;
		if (entry.sizeBytes > limits.maxPackagesBytes) throw new SandboxError("corrupt", `${folder}/${path} is too long`);
		const byHash = `${folder}/${COMPONENT}/binary-${ARCHITECTURE}/by-hash/SHA256/${entry.sha256}`;
		const paths = release.acquireByHash ? [byHash, `${folder}/${path}`] : [`${folder}/${path}`];
		return { packagesName, packagesPath: await downloader.fetch(mirrors, { paths, ...entry }) };
	}
	throw new SandboxError("network", `${folder} has no packages for ${ARCHITECTURE}`);
}

/** How to fetch a package. */
export function packageFileOf(found: DebianPackage): VerifiedFile {
	return { paths: [found.filename], sha256: found.sha256, sizeBytes: found.sizeBytes };
}

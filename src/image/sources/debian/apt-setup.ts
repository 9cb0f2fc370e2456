import { createReadStream } from "node:fs";
import type { ContentStore } from "../../content-store.js";
import type { Attributes, Tree } from "../../tree.js";
import { IMAGE_PATH_RULES, serializePathRules } from "./path-filter.js";
import { ARCHITECTURE, type Repository } from "./repository.js";

/** Where the guest's apt fetches from unless the user named a mirror: Debian's own names, right everywhere. */
const GUEST_MIRROR = "http://ftp.debian.org/debian";
const GUEST_SECURITY_MIRROR = "http://security.debian.org/debian-security";
const KEYRINGS = ["debian-archive-keyring.pgp", "debian-archive-keyring.gpg"];

export interface AptSetupOptions {
	readonly tree: Tree;
	readonly store: ContentStore;
	readonly repository: Repository;
	readonly codename: string;
	/** URL of the archive that apt fetches from. */
	readonly mirror: string;
	readonly mtime: number;
}

/** The archive that the guest's apt is set up for. */
export function guestMirror(mirror: string | undefined): string {
	return mirror ?? GUEST_MIRROR;
}

/** Writes apt's sources and the verified indices as if `apt-get update` had just fetched them, and dpkg's path rules. */
export async function setUpApt(options: AptSetupOptions): Promise<void> {
	const { tree, store, repository, codename, mirror, mtime } = options;
	const attributes: Attributes = { mode: 0o644, uid: 0, gid: 0, mtime };
	const put = async (path: string, content: string | Uint8Array) =>
		tree.set(path, { kind: "file", ...attributes, ...(await store.put(content)) });
	const keyring = KEYRINGS.find((name) => tree.get(`usr/share/keyrings/${name}`) !== undefined) ?? KEYRINGS[0];
	const urls = { archive: mirror, security: GUEST_SECURITY_MIRROR };
	const source = (url: string, suites: string) =>
		`Types: deb\nURIs: ${url}\nSuites: ${suites}\nComponents: main\nSigned-By: /usr/share/keyrings/${keyring}\n`;
	await put(
		"etc/apt/sources.list.d/debian.sources",
		`${source(urls.archive, `${codename} ${codename}-updates`)}\n${source(urls.security, `${codename}-security`)}`,
	);
	await put(
		"etc/dpkg/dpkg.cfg.d/sandbox86",
		`# What the image leaves out of every package.\n${serializePathRules(IMAGE_PATH_RULES)}`,
	);
	// No translations, whose index alone is as long as half the packages'; indices stay compressed.
	await put(
		"etc/apt/apt.conf.d/90sandbox86",
		'Acquire::Languages "none";\nAcquire::GzipIndexes "true";\nAPT::Install-Recommends "false";\n',
	);
	tree.makeDirectory("var/lib/apt/lists/partial", { ...attributes, mode: 0o700 });
	for (const suite of repository.suites) {
		const prefix = `var/lib/apt/lists/${listName(urls[suite.kind])}_dists_${suite.name}`;
		const { release } = suite;
		if (release.signature === "inline") {
			await put(`${prefix}_InRelease`, release.text);
		} else {
			await put(`${prefix}_Release`, release.text);
			if (release.detachedSignature !== undefined) await put(`${prefix}_Release.gpg`, release.detachedSignature);
		}
		const suffix = suite.packagesName.slice("Packages".length);
		const stream = createReadStream(suite.packagesPath) as AsyncIterable<Uint8Array>;
		tree.set(`${prefix}_main_binary-${ARCHITECTURE}_Packages${suffix}`, {
			kind: "file",
			...attributes,
			...(await store.putStream(stream)),
		});
	}
}

/** apt's name of a list file (apt-pkg, URItoFileName): the URL without its scheme, "/" as "_", other characters quoted. */
export function listName(url: string): string {
	const plain = url.replace(/^[a-z]+:\/\//, "").replace(/^[^/@]*@/, "");
	return plain
		.replace(/[\\|{}[\]<>"^~_=!@#$%&*]/g, (c) => `%${c.charCodeAt(0).toString(16).padStart(2, "0")}`)
		.replaceAll("/", "_");
}

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { SandboxError } from "../../../errors.js";
import { parseStanzas } from "./control.js";

/** Where to fetch from, best first. Whose host it is does not matter: only what Debian's keys signed is used. */
export interface Mirrors {
	/** URLs of Debian's archive ("…/debian"). */
	readonly archive: readonly string[];
	/** URLs of Debian's security archive ("…/debian-security"). */
	readonly security: readonly string[];
}

/** Debian's own names, which every network that reaches Debian reaches (https://www.debian.org/mirror/list). */
export const PUBLIC_MIRRORS: Mirrors = {
	archive: [
		"http://ftp.us.debian.org/debian",
		"http://ftp.de.debian.org/debian",
		"http://ftp.uk.debian.org/debian",
		"http://ftp.jp.debian.org/debian",
		"http://ftp.au.debian.org/debian",
	],
	security: ["http://security.debian.org/debian-security"],
};

export interface AptSource {
	readonly url: string;
	readonly suites: readonly string[];
}

const DEBIAN_SUITE =
	/^(stable|oldstable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke)(-updates|-backports|-security|\/updates)?$/;

/**
 * The mirrors to use: `option` (the archive's URL, e.g. "http://ftp.us.debian.org/debian") alone where given, else what the
 * host's apt uses where that is Debian's, with the public ones behind it.
 */
export async function chooseMirrors(option: string | undefined, aptFolder = "/etc/apt"): Promise<Mirrors> {
	const host = mirrorsOf(await readAptSources(aptFolder));
	if (option === undefined) {
		return {
			archive: unique([...host.archive, ...PUBLIC_MIRRORS.archive]),
			security: unique([...host.security, ...PUBLIC_MIRRORS.security]),
		};
	}
	const url = checkMirrorUrl(option);
	// Mirrors that carry the security archive have it beside the main one.
	const beside = /\/debian$/.test(url) ? [`${url}-security`] : [];
	return { archive: [url], security: unique([...beside, ...host.security, ...PUBLIC_MIRRORS.security]) };
}

/** An http(s) URL without a slash at its end. */
export function checkMirrorUrl(text: string): string {
	let url: URL | undefined;
	try {
		url = new URL(text);
	} catch {
		url = undefined;
	}
	if (
		url === undefined ||
		(url.protocol !== "http:" && url.protocol !== "https:") ||
		url.search !== "" ||
		url.hash !== ""
	) {
		throw new SandboxError(
			"invalid-argument",
			`not the URL of a Debian mirror: ${JSON.stringify(text)}`,
			`give something like ${PUBLIC_MIRRORS.archive[0]}`,
		);
	}
	return url.href.replace(/\/+$/, "");
}

/** The sources of binary packages that apt is set up for on this host; none where there is no apt. */
export async function readAptSources(aptFolder: string): Promise<AptSource[]> {
	const read = async (path: string) => await readFile(path, "utf8").catch(() => "");
	const folder = join(aptFolder, "sources.list.d");
	const names = (await readdir(folder).catch(() => [])).sort();
	const sources = parseSourcesList(await read(join(aptFolder, "sources.list")));
	for (const name of names) {
		if (name.endsWith(".list")) sources.push(...parseSourcesList(await read(join(folder, name))));
		if (name.endsWith(".sources")) sources.push(...parseDeb822Sources(await read(join(folder, name)), name));
	}
	return sources;
}

/** sources.list(5), one-line style: "deb [option=value …] URI suite component…". Lines it cannot read are left out. */
export function parseSourcesList(text: string): AptSource[] {
	return text.split("\n").flatMap((line) => {
		const match = /^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)/.exec(line);
		const url = match?.[1];
		const suite = match?.[2];
		return url !== undefined && suite !== undefined ? [{ url, suites: [suite] }] : [];
	});
}

/** sources.list(5), deb822 style. A file it cannot read gives no source. */
export function parseDeb822Sources(text: string, name: string): AptSource[] {
	let stanzas: ReturnType<typeof parseStanzas>;
	try {
		stanzas = parseStanzas(text, name);
	} catch {
		return [];
	}
	return stanzas.flatMap((stanza) => {
		const words = (field: string) => (stanza.get(field) ?? "").split(/\s+/).filter((word) => word !== "");
		if (stanza.get("enabled") === "no" || !words("types").includes("deb")) return [];
		return words("uris").map((url) => ({ url, suites: words("suites") }));
	});
}

function mirrorsOf(sources: readonly AptSource[]): Mirrors {
	const archive: string[] = [];
	const security: string[] = [];
	for (const { url, suites } of sources) {
		if (!/^https?:\/\//.test(url)) continue;
		for (const suite of suites.filter((name) => DEBIAN_SUITE.test(name))) {
			(/-security$|\/updates$/.test(suite) ? security : archive).push(url.replace(/\/+$/, ""));
		}
	}
	return { archive: unique(archive), security: unique(security) };
}

function unique(urls: readonly string[]): string[] {
	return [...new Set(urls)];
}

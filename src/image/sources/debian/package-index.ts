import { SandboxError } from "../../../errors.js";
import { limits } from "../../limits.js";
import { SHA256_HEX } from "../../sha256.js";
import { readStanzas, type Stanza } from "./control.js";
import type { Mirrors } from "./mirror.js";
import { type Alternatives, parseRelations } from "./relations.js";
import { compareVersions, parseVersion } from "./version.js";

/** A package as a signed index describes it. */
export interface DebianPackage {
	readonly name: string;
	readonly version: string;
	readonly architecture: string;
	readonly essential: boolean;
	/** "required", "important", "standard", "optional" or "extra". */
	readonly priority: string;
	/** Pre-Depends and Depends. */
	readonly depends: readonly Alternatives[];
	readonly provides: readonly { readonly name: string; readonly version: string | undefined }[];
	/** Conflicts and Breaks. */
	readonly conflicts: readonly Alternatives[];
	/** Path below the archive's root. */
	readonly filename: string;
	readonly sizeBytes: number;
	/** 64 hex digits. */
	readonly sha256: string;
	/** The archive whose index it came from. */
	readonly archive: keyof Mirrors;
}

const FIELDS: ReadonlySet<string> = new Set([
	"package",
	"version",
	"architecture",
	"essential",
	"priority",
	"depends",
	"pre-depends",
	"provides",
	"conflicts",
	"breaks",
	"filename",
	"size",
	"sha256",
]);

/** All packages of several indices: the newest version of each name, and who provides what. */
export class PackageIndex {
	readonly #packages = new Map<string, DebianPackage>();
	readonly #providers = new Map<string, DebianPackage[]>();
	#count = 0;

	/** Reads a decompressed Packages file. `archive` is kept in each package. */
	async read(chunks: AsyncIterable<Uint8Array>, archive: keyof Mirrors): Promise<void> {
		for await (const stanza of readStanzas(chunks, `the package index of ${archive}`, FIELDS)) {
			this.add(parsePackage(stanza, archive));
		}
	}

	/** Adds one package; the newest version of a name wins. */
	add(found: DebianPackage): void {
		if (++this.#count > limits.maxPackages) {
			throw new SandboxError("corrupt", `the package index has more than ${limits.maxPackages} packages`);
		}
		const known = this.#packages.get(found.name);
		if (known !== undefined && compareVersions(known.version, found.version) >= 0) return;
		this.#packages.set(found.name, found);
		for (const { name } of found.provides) {
			const providers = (this.#providers.get(name) ?? []).filter((p) => p.name !== found.name);
			providers.push(found);
			this.#providers.set(name, providers);
		}
	}

	get(name: string): DebianPackage | undefined {
		return this.#packages.get(name);
	}

	/** Packages that provide a virtual name, in the order of their names. */
	providersOf(name: string): DebianPackage[] {
		return (this.#providers.get(name) ?? [])
			.filter((p) => this.#packages.get(p.name) === p)
			.sort((a, b) => (a.name < b.name ? -1 : 1));
	}

	get size(): number {
		return this.#packages.size;
	}

	[Symbol.iterator](): IterableIterator<DebianPackage> {
		return this.#packages.values();
	}
}

/** Checks a stanza of an index and takes from it what the builder needs. */
export function parsePackage(stanza: Stanza, archive: keyof Mirrors): DebianPackage {
	const name = stanza.get("package") ?? "";
	const source = `the package index of ${archive}, ${name === "" ? "a nameless package" : name}`;
	const bad = (what: string) => new SandboxError("corrupt", `${source}: ${what}`);
	if (!/^[a-z0-9][a-z0-9+.-]{0,254}$/.test(name)) throw bad(`not a package name: ${JSON.stringify(name)}`);
	const version = stanza.get("version") ?? "";
	if (parseVersion(version) === undefined) throw bad(`not a version: ${JSON.stringify(version)}`);
	const architecture = stanza.get("architecture") ?? "";
	if (!/^[a-z0-9-]+$/.test(architecture)) throw bad("no architecture");
	const filename = stanza.get("filename") ?? "";
	if (!/^[\w+.~:%/-]+$/.test(filename) || filename.startsWith("/") || filename.split("/").includes("..")) {
		throw bad(`not a path below the archive: ${JSON.stringify(filename)}`);
	}
	const size = stanza.get("size") ?? "";
	if (!/^\d{1,12}$/.test(size)) throw bad("no size");
	const sha256 = stanza.get("sha256") ?? "";
	if (!SHA256_HEX.test(sha256)) throw bad("no SHA-256");
	const relations = (...fields: string[]) => fields.flatMap((field) => parseRelations(stanza.get(field), source));
	return {
		name,
		version,
		architecture,
		essential: stanza.get("essential") === "yes",
		priority: stanza.get("priority") ?? "optional",
		// Few packages are ever asked, and parsing is most of the cost.
		get depends() {
			return relations("pre-depends", "depends");
		},
		provides: parseRelations(stanza.get("provides"), source).flatMap((alternatives) =>
			alternatives.map((r) => ({ name: r.name, version: r.constraint?.version })),
		),
		get conflicts() {
			return relations("conflicts", "breaks");
		},
		filename,
		sizeBytes: Number(size),
		sha256,
		archive,
	};
}

/** Images as npm packages: `sandbox86-image-NAME`, with or without a scope, that carries one exported image. */

import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, rmdir, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { z } from "zod";
import { errnoOf, SandboxError } from "../errors.js";
import { escapeControls } from "../log.js";
import type { MachineImage } from "../vm/machine-image.js";
import { hashFile } from "./content-store.js";
import { readBoundedText } from "./disk.js";
import { type ExportedImage, type ExportOptions, exportImage } from "./export.js";
import { checkImageName } from "./image-name.js";
import { type ImportedImage, type ImportOptions, importImage } from "./import.js";
import { limits } from "./limits.js";
import { packageFile } from "./package-files.js";
import { sha256Schema } from "./sha256.js";
import { loadImage, TINY } from "./store.js";

const ARCHIVE = "image.tar.gz";
const PREFIX = "sandbox86-image-";
/** What a package's folder holds, beside what npm pack leaves in it. */
const OURS = ["package.json", "README.md", ARCHIVE];

/** Semantic Versioning 2.0.0, the suggested expression without its captures. */
const VERSION =
	/^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$/;
const SCOPE = /^@[a-z0-9~-][a-z0-9._~-]{0,100}$/;

/** The part of package.json that makes a package an image package. */
const packageSchema = z.object({
	name: z.string(),
	version: z.string().max(256),
	sandbox86: z.strictObject({
		image: z.string(),
		/** The exported image, in the package's folder. */
		file: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$/, "is no name of a file beside it"),
		sha256: sha256Schema,
	}),
});

export interface ImagePackageOptions extends ExportOptions {
	/** Of the package; "1.0.0" by default. */
	readonly version?: string;
	/** "@me". */
	readonly scope?: string;
	/** SPDX expression of the whole image; by default the README says where the licences are. */
	readonly license?: string;
}

/** Writes a folder that `npm pack` and `npm publish` take: it is there in full or not at all. */
export async function writeImagePackage(
	home: string,
	name: string,
	folder: string,
	options: ImagePackageOptions,
): Promise<ExportedImage & { readonly packageName: string; readonly version: string }> {
	checkImageName(name);
	const { scope, version = "1.0.0", license = "SEE LICENSE IN README.md" } = options;
	if (!VERSION.test(version)) {
		throw new SandboxError("invalid-argument", `not a version: ${JSON.stringify(version)}`, "write it as in 1.2.3");
	}
	if (scope !== undefined && !SCOPE.test(scope)) {
		throw new SandboxError("invalid-argument", `not a scope of npm: ${JSON.stringify(scope)}`, "write it as in @me");
	}
	const packageName = `${scope === undefined ? "" : `${scope}/`}${PREFIX}${name}`;
	const target = resolve(folder);
	if (options.force !== true) await refuseFilled(target);
	const staging = join(dirname(target), `.${PREFIX}${name}.${randomBytes(6).toString("hex")}.tmp`);
	await mkdir(staging, { recursive: true });
	try {
		const exported = await exportImage(home, name, join(staging, ARCHIVE), options);
		const description = {
			name: packageName,
			version,
			description: `The image ${name} for sandbox86`,
			license,
			keywords: ["sandbox86-image"],
			files: [ARCHIVE],
			sandbox86: { image: name, file: ARCHIVE, sha256: exported.sha256 },
		};
		await writeFile(join(staging, "package.json"), `${JSON.stringify(description, undefined, 2)}\n`);
		await writeFile(join(staging, "README.md"), readme(packageName, name, exported));
		if (options.force === true) await removeOldPackage(target);
		await rmdir(target).catch((error: unknown) => {
			if (errnoOf(error) !== "ENOENT") throw error;
		});
		await rename(staging, target);
		return { ...exported, path: join(target, ARCHIVE), packageName, version };
	} finally {
		await rm(staging, { recursive: true, force: true });
	}
}

export interface FoundImagePackage {
	/** "@me/sandbox86-image-base" and its version. */
	readonly packageName: string;
	readonly version: string;
	/** The image that it carries. */
	readonly image: string;
	/** Absolute path of the exported image, and the SHA-256 that it must have. */
	readonly path: string;
	readonly sha256: string;
}

/**
 * The installed package of an image, or undefined. Looked for where Node would look from this program and then from
 * `folder`; a folder of modules that is nearer comes first, and in it the package without a scope. Throws
 * SandboxError("corrupt") that names a package which is damaged or is not what its name says.
 */
export async function findImagePackage(
	name: string,
	folder: string = process.cwd(),
): Promise<FoundImagePackage | undefined> {
	checkImageName(name);
	for (const modules of moduleFolders(folder)) {
		const packageName = await nameIn(modules, `${PREFIX}${name}`);
		if (packageName !== undefined) return await readImagePackage(join(modules, packageName), packageName, name);
	}
	return undefined;
}

/** Imports a package's image under its own name; an image of that name stays unless `force` is set. */
export async function installImagePackage(
	home: string,
	found: FoundImagePackage,
	options: Omit<ImportOptions, "name" | "expectedName">,
): Promise<ImportedImage> {
	const sha256 = await hashFile(found.path);
	if (sha256 !== found.sha256) {
		throw new SandboxError(
			"corrupt",
			`${found.path} of the package ${found.packageName} is damaged: its SHA-256 is ${sha256} instead of ${found.sha256}`,
			`install it again: npm install ${found.packageName}`,
		);
	}
	return await importImage(home, found.path, { ...options, expectedName: found.image });
}

/** The image of an installed package, imported; undefined where no package has it. */
export async function importFromPackage(
	home: string,
	name: string,
	options: Omit<ImportOptions, "name" | "expectedName">,
): Promise<MachineImage | undefined> {
	const found = await findImagePackage(name);
	if (found === undefined) return undefined;
	options.log.info(`the image ${name} comes from the package ${found.packageName} ${found.version}`);
	await installImagePackage(home, found, options);
	return await loadImage(home, name);
}

/** Every node_modules folder that Node would search, each once. */
function moduleFolders(folder: string): string[] {
	const starts = [packageFile("package.json"), join(folder, "package.json")];
	return [...new Set(starts.flatMap((start) => createRequire(start).resolve.paths(`${PREFIX}${TINY}`) ?? []))];
}

/** The name under which the package lies in a folder of modules: its own, or the first of those with a scope. */
async function nameIn(modules: string, name: string): Promise<string | undefined> {
	const entries = await namesIn(modules);
	if (entries.includes(name)) return name;
	const scopes = entries.filter((entry) => SCOPE.test(entry)).sort();
	for (const scope of scopes.slice(0, limits.maxPackageScopes)) {
		if ((await namesIn(join(modules, scope))).includes(name)) return `${scope}/${name}`;
	}
	return undefined;
}

async function namesIn(folder: string): Promise<string[]> {
	try {
		return await readdir(folder);
	} catch (error) {
		if (["ENOENT", "ENOTDIR", "EACCES", "EPERM"].includes(errnoOf(error) ?? "")) return [];
		throw error;
	}
}

async function readImagePackage(folder: string, packageName: string, image: string): Promise<FoundImagePackage> {
	const path = join(folder, "package.json");
	const refuse = (reason: string) =>
		new SandboxError(
			"corrupt",
			`the package ${packageName} in ${folder} is no image package: ${escapeControls(reason)}`,
			`install it again, or remove it: npm uninstall ${packageName}`,
		);
	const text = await readBoundedText(path, limits.maxPackageJsonBytes, (reason) => refuse(`package.json: ${reason}`));
	if (text === undefined) throw refuse("it has no package.json");
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch {
		throw refuse("its package.json is no JSON");
	}
	const parsed = packageSchema.safeParse(value);
	if (!parsed.success) {
		const issue = parsed.error.issues[0];
		throw refuse(`package.json is wrong at ${issue?.path.join(".") || "the top"}: ${issue?.message ?? "unknown"}`);
	}
	const { name, version, sandbox86 } = parsed.data;
	if (name !== packageName) throw refuse(`its package.json calls it ${JSON.stringify(name.slice(0, 250))}`);
	if (sandbox86.image !== image) throw refuse(`it carries the image ${JSON.stringify(sandbox86.image.slice(0, 80))}`);
	return { packageName, version, image, path: join(folder, sandbox86.file), sha256: sandbox86.sha256 };
}

async function refuseFilled(folder: string): Promise<void> {
	const names = await namesIn(folder);
	if (names.length === 0) return;
	throw new SandboxError(
		"already-exists",
		`${folder} exists already and is not empty`,
		"choose another folder, or replace the package in it with --force",
	);
}

/** Removes a folder that holds what an earlier export and npm pack wrote, and nothing else. */
async function removeOldPackage(folder: string): Promise<void> {
	const names = await namesIn(folder);
	const others = names.filter((name) => !OURS.includes(name) && !name.endsWith(".tgz"));
	if (others.length > 0 || (names.length > 0 && !(await isImagePackage(folder)))) {
		throw new SandboxError(
			"already-exists",
			`${folder} holds something else than an image package: ${(others.length > 0 ? others : names).slice(0, 3).join(", ")}`,
			"choose another folder",
		);
	}
	await rm(folder, { recursive: true, force: true });
}

async function isImagePackage(folder: string): Promise<boolean> {
	try {
		const text = await readFile(join(folder, "package.json"), "utf8");
		return packageSchema.safeParse(JSON.parse(text)).success;
	} catch (error) {
		if (error instanceof SyntaxError || errnoOf(error) === "ENOENT") return false;
		throw error;
	}
}

function readme(packageName: string, name: string, { header, bytes }: ExportedImage): string {
	const memories = header.bootSnapshots.map(({ memoryMiB }) => `${memoryMiB} MiB`).join(", ");
	return `# ${packageName}

The image \`${name}\` for [sandbox86](https://www.npmjs.com/package/sandbox86): ${header.contents.files} files,
${Math.ceil(bytes / 1_000_000)} MB compressed${memories === "" ? "" : `, with boot snapshots for machines of ${memories}`}.

\`\`\`
npm install ${packageName}
\`\`\`

Installed beside sandbox86 or in the project that it is started from, the image is found and taken over when a machine needs it;
nothing is built. Or by hand:

\`\`\`
sandbox86 image import node_modules/${packageName}/${ARCHIVE}
\`\`\`

## Licences

The image holds the software of many authors, each under its own licence. In the machine they are in \`/usr/share/doc/*/copyright\`
where the image is made of Debian's packages.

## What it is

Digest \`${header.digest}\`, tree \`${header.tree.sha256}\`.
`;
}

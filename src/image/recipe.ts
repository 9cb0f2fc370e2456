/** How an image is made, as one JSON file. The schema is published as images/recipe.schema.json. */

import { readdir } from "node:fs/promises";
import { basename, dirname, resolve } from "node:path";
import { z } from "zod";
import { SandboxError } from "../errors.js";
import { readBoundedText } from "./disk.js";
import { IMAGE_NAME, isImageName } from "./image-name.js";
import { limits } from "./limits.js";
import { packageFile } from "./package-files.js";

const guestPath = z
	.string()
	.max(limits.maxPathBytes)
	.refine(isPlainAbsolutePath, 'must be an absolute path without "..", "." and empty parts');

const guestFile = z.union([
	z.string().describe("the file's text"),
	z.strictObject({
		text: z.string().describe("the file's text").optional(),
		base64: z.base64().describe("the file's bytes").optional(),
		source: z.string().min(1).describe("a file beside the recipe or in a folder below it").optional(),
		mode: z
			.string()
			.regex(/^[0-7]{3,4}$/, 'must be octal, such as "755"')
			.describe('permissions, such as "755"; default "644"')
			.optional(),
	}),
]);

export const recipeSchema = z.strictObject({
	$schema: z.string().optional(),
	name: z
		.string()
		.regex(IMAGE_NAME, "must be up to 64 of a-z 0-9 . _ - and start with a letter or digit")
		.refine(isImageName, 'must not end in "." or ".old"')
		.describe("the image's name"),
	from: z
		.string()
		.regex(/^[a-z0-9]+:./, 'must be "debian:SUITE", "oci:REFERENCE", "tar:FILE", "v86:FS_JSON+FOLDER" or "image:NAME"')
		.describe(
			"what the image starts from: debian:SUITE, oci:REFERENCE, tar:FILE, v86:FS_JSON+FLAT_FOLDER or image:NAME",
		),
	files: z.record(guestPath, guestFile).default({}).describe("files to put in, by absolute path, before anything else"),
	packages: z
		.array(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9+._-]*$/, "is no package name"))
		.max(limits.maxRecipePackages)
		.default([])
		.describe("packages of the distribution to install: Debian's or Alpine's"),
	run: z
		.array(z.string().min(1))
		.max(limits.maxRecipeCommands)
		.default([])
		.describe("shell commands, run in the guest as root in this order; what they write becomes part of the image"),
	env: z
		.record(
			z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, "is no variable's name"),
			z
				.string()
				.max(4096)
				.regex(/^[^\n\r\0]*$/, "must be one line"),
		)
		.default({})
		.describe("environment variables of every shell in the machine, and of the commands of run"),
	memory_mib: z
		.int()
		.min(128)
		.max(2047)
		.default(512)
		.describe(
			"memory of the machines of this image unless --memory says otherwise, and of the one that builds it, MiB",
		),
	warm: z
		.array(z.string().min(1))
		.max(limits.maxRecipeCommands)
		.default([])
		.describe(
			"shell commands run before the boot snapshot is taken, so that it has their files, and processes they leave running, in memory",
		),
});

export type Recipe = z.infer<typeof recipeSchema>;

export interface RecipeFile {
	readonly recipe: Recipe;
	/** Absolute path of the folder that its relative paths start from. */
	readonly folder: string;
	/** Absolute path of the recipe where it is the user's own; its lock file lies beside it. */
	readonly path: string | undefined;
}

/** Names of the recipes that come with the package. */
export async function recipeNames(): Promise<string[]> {
	const names = await readdir(packageFile("images/recipes"));
	return names.flatMap((name) => (name.endsWith(".json") ? [name.slice(0, -".json".length)] : [])).sort();
}

/** Whether a word means a recipe's file and not an image's name. */
export function isRecipePath(which: string): boolean {
	return /\.json$|[/\\]/.test(which);
}

/** Reads the recipe of the package that is called `which`, or the file at that path if it ends in ".json" or holds a "/". */
export async function readRecipe(which: string): Promise<RecipeFile> {
	if (isRecipePath(which)) {
		const path = resolve(which);
		return { recipe: await parseRecipeFile(path), folder: dirname(path), path };
	}
	const known = await recipeNames();
	if (!known.includes(which)) {
		throw new SandboxError(
			"not-found",
			`there is no recipe for an image ${which}`,
			`there are: ${known.join(", ")}; a recipe of your own is given by its path, as in ./${basename(which)}.json`,
		);
	}
	const path = packageFile(`images/recipes/${which}.json`);
	return { recipe: await parseRecipeFile(path), folder: dirname(path), path: undefined };
}

async function parseRecipeFile(path: string): Promise<Recipe> {
	const refuse = (code: "not-found" | "invalid-argument", reason: string) =>
		new SandboxError(code, `the recipe ${path} can't be read (${reason})`, "give the path of a JSON file");
	const text = await readBoundedText(path, limits.maxRecipeBytes, (reason) => refuse("invalid-argument", reason));
	if (text === undefined) throw refuse("not-found", "ENOENT");
	return parseRecipe(text, path);
}

/** Throws SandboxError("invalid-argument") that names `source` and every field that is wrong. */
export function parseRecipe(text: string, source: string): Recipe {
	const invalid = (what: string) =>
		new SandboxError("invalid-argument", `${source}: ${what}`, "docs/images.md describes recipes");
	if (Buffer.byteLength(text) > limits.maxRecipeBytes) throw invalid(`longer than ${limits.maxRecipeBytes} bytes`);
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (error) {
		throw invalid(`no JSON: ${error instanceof Error ? error.message : String(error)}`);
	}
	const parsed = recipeSchema.safeParse(value);
	if (!parsed.success) throw invalid(z.prettifyError(parsed.error));
	const recipe = parsed.data;
	if (Object.keys(recipe.files).length > limits.maxRecipeFiles) {
		throw invalid(`${Object.keys(recipe.files).length} files, at most ${limits.maxRecipeFiles} are taken`);
	}
	for (const [path, file] of Object.entries(recipe.files)) {
		if (typeof file === "string") continue;
		if ([file.text, file.base64, file.source].filter((content) => content !== undefined).length !== 1) {
			throw invalid(`files: ${path} needs exactly one of text, base64 and source`);
		}
	}
	return recipe;
}

function isPlainAbsolutePath(path: string): boolean {
	if (!path.startsWith("/") || path.includes("\0")) return false;
	const parts = path.slice(1).split("/");
	return parts.every(
		(part) => part !== "" && part !== "." && part !== ".." && Buffer.byteLength(part) <= limits.maxNameBytes,
	);
}

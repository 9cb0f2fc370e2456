import { readdir, readFile } from "node:fs/promises";
import { z } from "zod";
import { SandboxError } from "../errors.js";
import { packageFile } from "./package-files.js";

/** How an image is made: images/recipes/NAME.json. */
const recipeSchema = z.strictObject({
	$schema: z.string().optional(),
	name: z.string(),
	/** "debian:SUITE". */
	from: z.string().regex(/^debian:[a-z]+$/, 'must be "debian:SUITE"'),
	/** Packages beside the essential ones. */
	packages: z.array(z.string().regex(/^[a-z0-9][a-z0-9+.-]*$/, "is no package name")),
	/** Shell commands run in the guest, as root, after the packages are set up; what they write becomes part of the image. */
	run: z.array(z.string()).default([]),
	/** Commands run before the boot snapshot is taken, so that their files are in its memory. */
	warm: z.array(z.string()).default([]),
	/** Memory of the machine that the image is built in, MiB. */
	memory_mib: z.number().int().min(128).max(2048).default(512),
});

export type Recipe = z.infer<typeof recipeSchema>;

/** Names of the recipes that come with the package. */
export async function recipeNames(): Promise<string[]> {
	const names = await readdir(packageFile("images/recipes"));
	return names.flatMap((name) => (name.endsWith(".json") ? [name.slice(0, -".json".length)] : [])).sort();
}

/** Reads a recipe of the package. */
export async function readRecipe(name: string): Promise<Recipe> {
	const known = await recipeNames();
	if (!known.includes(name)) {
		throw new SandboxError("not-found", `there is no recipe for an image ${name}`, `there are: ${known.join(", ")}`);
	}
	const path = packageFile(`images/recipes/${name}.json`);
	const parsed = recipeSchema.safeParse(JSON.parse(await readFile(path, "utf8")));
	if (!parsed.success) throw new SandboxError("invalid-argument", `${path}: ${z.prettifyError(parsed.error)}`);
	return parsed.data;
}

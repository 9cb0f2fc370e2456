import { readFile } from "node:fs/promises";
import { z } from "zod";
import { errnoOf, SandboxError } from "../errors.js";
import { lockFileSchema } from "./lock-file.js";
import { recipeSchema } from "./recipe.js";
import { sha256Schema } from "./sha256.js";

/** What is known about a built image; `manifest.json` in its folder. */
const manifestSchema = z.strictObject({
	format: z.literal(2),
	name: z.string(),
	/** ISO 8601, UTC. */
	created: z.string(),
	/** Version of sandbox86 that built it. */
	builtBy: z.string(),
	recipe: recipeSchema,
	/** The exact inputs. */
	lock: lockFileSchema,
	/** SHA-256 over recipe and lock: two builds with the same one start from the same bytes. */
	inputsDigest: sha256Schema,
	/** What the tree's own package manager says is installed. */
	packages: z.array(z.strictObject({ name: z.string(), version: z.string() })),
	/** SHA-256 of fs.json. */
	treeSha256: sha256Schema,
	entries: z.number().int(),
	/** Bytes of all different files. */
	fileBytes: z.number().int(),
	buildMs: z.number(),
});

export type ImageManifest = z.infer<typeof manifestSchema>;

/** Reads a manifest; undefined where there is none, SandboxError("corrupt") where it is damaged. */
export async function readManifest(path: string): Promise<ImageManifest | undefined> {
	let text: string;
	try {
		text = await readFile(path, "utf8");
	} catch (error) {
		if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
		throw error;
	}
	const damaged = (reason: string) =>
		new SandboxError("corrupt", `${path} is damaged: ${reason}`, "remove the image and build it again");
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (error) {
		throw damaged(error instanceof Error ? error.message : String(error));
	}
	const parsed = manifestSchema.safeParse(value);
	if (!parsed.success) throw damaged(z.prettifyError(parsed.error).replaceAll("\n", " "));
	return parsed.data;
}

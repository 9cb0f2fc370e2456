/**
 * The trees that the steps of builds made, so that a build starts after the last step that is as it was. A step's key is
 * the hash of all that led to it: STEPS/<key>.json holds the tree, whose contents are in the common store.
 */

import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { errnoOf, SandboxError } from "../errors.js";
import { namesIn, writeFileAtomically } from "./disk.js";
import { parseFsJson, serializeFsJson } from "./fs-json.js";
import { sha256Of } from "./sha256.js";
import type { SourceTree } from "./source.js";

const entrySchema = z.strictObject({
	format: z.literal(1),
	/** The image that a build made of it. */
	image: z.string(),
	/** What was done, for a person. */
	title: z.string(),
	epoch: z.number(),
	env: z.record(z.string(), z.string()),
	/** The text of its fs.json. */
	tree: z.string(),
});

const STEP_FILE = /^[0-9a-f]{64}\.json$/;

/** The key of a step after the one with the key `before` (undefined: the first). */
export function stepKey(before: string | undefined, what: unknown): string {
	return sha256Of(`${before ?? ""}\n${JSON.stringify(what)}`);
}

export class StepCache {
	readonly #folder: string;

	constructor(folder: string) {
		this.#folder = folder;
	}

	/** What the step made; undefined where it is not known or not readable: a cache must never keep a build from working. */
	async get(key: string): Promise<SourceTree | undefined> {
		const path = this.#path(key);
		try {
			const { tree, epoch, env } = entrySchema.parse(JSON.parse(await readFile(path, "utf8")));
			return { tree: parseFsJson(tree, path), epoch, env };
		} catch (error) {
			if (errnoOf(error) === "ENOENT") return undefined;
			const isDamaged = error instanceof SyntaxError || error instanceof z.ZodError || error instanceof SandboxError;
			if (!isDamaged) throw error;
			await rm(path, { force: true });
			return undefined;
		}
	}

	async put(key: string, image: string, title: string, { tree, epoch, env }: SourceTree): Promise<void> {
		const entry = { format: 1, image, title, epoch, env, tree: serializeFsJson(tree) };
		await mkdir(this.#folder, { recursive: true });
		await writeFileAtomically(this.#path(key), JSON.stringify(entry));
	}

	/** Forgets the steps that were made for an image, but for `kept`. */
	async forget(image: string, kept: ReadonlySet<string> = new Set()): Promise<void> {
		for (const key of await this.keys()) {
			if (!kept.has(key) && (await this.#imageOf(key)) === image) await rm(this.#path(key), { force: true });
		}
	}

	async keys(): Promise<string[]> {
		const names = await namesIn(this.#folder);
		return names.flatMap((name) => (STEP_FILE.test(name) ? [name.slice(0, -".json".length)] : []));
	}

	/** The stored text, in which all hashes of its contents stand. */
	async text(key: string): Promise<string> {
		return await readFile(this.#path(key), "utf8");
	}

	async #imageOf(key: string): Promise<string | undefined> {
		try {
			return entrySchema.parse(JSON.parse(await this.text(key))).image;
		} catch {
			// Whoever it was made for, it is of no use.
			return undefined;
		}
	}

	#path(key: string): string {
		return join(this.#folder, `${key}.json`);
	}
}

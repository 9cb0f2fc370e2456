/** What a recipe puts into a tree from the host: its files and its environment. */

import { createReadStream } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import { resolve, sep } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";
import { type ContentStore, hashFile } from "./content-store.js";
import { limits } from "./limits.js";
import type { Recipe } from "./recipe.js";
import { sha256Of } from "./sha256.js";
import type { Tree } from "./tree.js";

const ENVIRONMENT = "etc/environment";

export interface RecipeContent {
	/** Absolute path in the guest. */
	readonly path: string;
	readonly mode: number;
	readonly sha256: string;
	/** The bytes, or the host's file that has them. */
	readonly content: Buffer | { readonly file: string };
}

/** Reads which contents the recipe's files have; in the order of their paths. */
export async function readRecipeFiles(files: Recipe["files"], folder: string): Promise<RecipeContent[]> {
	const contents: RecipeContent[] = [];
	for (const [path, value] of Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1))) {
		const file = typeof value === "string" ? { text: value } : value;
		const mode = Number.parseInt(file.mode ?? "644", 8);
		if (file.source !== undefined) {
			const found = await fileBeside(folder, file.source);
			contents.push({ path, mode, sha256: await hashFile(found), content: { file: found } });
			continue;
		}
		const content =
			file.base64 === undefined ? Buffer.from(file.text ?? "", "utf8") : Buffer.from(file.base64, "base64");
		contents.push({ path, mode, sha256: sha256Of(content), content });
	}
	return contents;
}

/** Puts the files into the tree; missing folders are made. */
export async function putRecipeFiles(
	tree: Tree,
	store: ContentStore,
	contents: readonly RecipeContent[],
	mtime: number,
): Promise<void> {
	for (const { path, mode, sha256, content } of contents) {
		const stored = Buffer.isBuffer(content)
			? await store.put(content)
			: await store.putStream(createReadStream(content.file) as AsyncIterable<Uint8Array>);
		if (stored.sha256 !== sha256) throw new SandboxError("corrupt", `the file for ${path} changed while it was read`);
		if (tree.get(path)?.kind === "directory") {
			throw new SandboxError("invalid-argument", `the recipe puts a file where the image has a folder: ${path}`);
		}
		tree.set(path, { kind: "file", mode, uid: 0, gid: 0, mtime, ...stored });
	}
}

/** Adds variables to /etc/environment, which every shell of the machine starts with; those that are there already give way. */
export async function putEnvironment(
	tree: Tree,
	store: ContentStore,
	env: Readonly<Record<string, string>>,
	mtime: number,
): Promise<void> {
	// The file has a line for each variable: one whose value has several can't be in it.
	const names = Object.keys(env).filter((name) => !/[\n\r]/.test(env[name] ?? ""));
	if (names.length === 0) return;
	const node = tree.resolve(ENVIRONMENT);
	const before = node?.kind === "file" ? (await store.read(node.sha256)).toString("utf8").split("\n") : [];
	const kept = before.filter((line) => line !== "" && !names.some((name) => line.startsWith(`${name}=`)));
	const lines = [...kept, ...names.map((name) => `${name}=${quoted(env[name] ?? "")}`)];
	const stored = await store.put(`${lines.join("\n")}\n`);
	tree.set(ENVIRONMENT, { kind: "file", mode: 0o644, uid: 0, gid: 0, mtime, ...stored });
}

/** The guest takes off one pair of quotes around a value. */
function quoted(value: string): string {
	return /^(["']).*\1$/.test(value) ? `"${value}"` : value;
}

/** A recipe takes files from its own folder only: it may be somebody else's. */
async function fileBeside(folder: string, source: string): Promise<string> {
	const wanted = resolve(folder, source);
	let found: string;
	try {
		found = await realpath(wanted);
	} catch (error) {
		throw new SandboxError("not-found", `the recipe's file ${wanted} can't be read (${errnoOf(error) ?? "error"})`);
	}
	if (!found.startsWith(`${await realpath(folder)}${sep}`)) {
		throw new SandboxError(
			"invalid-argument",
			`the recipe's file ${source} is not in the recipe's folder`,
			"a recipe takes files from its own folder only; copy it there",
		);
	}
	const about = await stat(found);
	if (!about.isFile()) throw new SandboxError("invalid-argument", `the recipe's file ${wanted} is no file`);
	if (about.size > limits.maxRecipeFileBytes) {
		throw new SandboxError(
			"invalid-argument",
			`the recipe's file ${wanted} has ${about.size} bytes, at most ${limits.maxRecipeFileBytes} are taken`,
		);
	}
	return found;
}

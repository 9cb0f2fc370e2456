/** `v86:FS_JSON+FOLDER`: what v86's tools/fs2json.py and copy-to-sha256.py write, as its Docker examples use them. */

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { errnoOf, SandboxError } from "../../errors.js";
import { decompress } from "../decompress.js";
import { parseV86FsJson } from "../fs-json.js";
import { limits } from "../limits.js";
import type { Source, SourceContext } from "../source.js";
import { type FileNode, newestTime, type Tree } from "../tree.js";

const lockSchema = z.strictObject({
	/** As the recipe has them: absolute, or from the recipe's folder. */
	fsJson: z.string().min(1),
	folder: z.string().min(1),
	/** Of the JSON, which names each file by the start of its hash. */
	sha256: z.string().regex(/^[0-9a-f]{64}$/),
	/** Over the paths and the whole hashes of all files. */
	contentsSha256: z.string().regex(/^[0-9a-f]{64}$/),
});

type V86Lock = z.infer<typeof lockSchema>;

/** What was read to make the lock, for `make` of the same build. */
const read = new WeakMap<SourceContext, Tree>();

export const v86Source: Source<V86Lock> = {
	scheme: "v86",
	lockSchema,

	async resolve(reference, context) {
		const plus = reference.lastIndexOf("+");
		if (plus < 1 || plus === reference.length - 1) {
			throw new SandboxError(
				"invalid-argument",
				`v86:${reference} needs the JSON and the folder of its files with + between them`,
				"as in v86:alpine-fs.json+alpine-rootfs-flat",
			);
		}
		const [fsJson, folder] = [reference.slice(0, plus), reference.slice(plus + 1)];
		const { tree, ...hashes } = await readAll(fsJson, folder, context);
		read.set(context, tree);
		return { fsJson, folder, ...hashes };
	},

	async make(lock, context) {
		const known = read.get(context);
		if (known !== undefined) return { tree: known, epoch: newestTime(known), env: {} };
		const { tree, sha256, contentsSha256 } = await readAll(lock.fsJson, lock.folder, context);
		if (sha256 !== lock.sha256 || contentsSha256 !== lock.contentsSha256) {
			throw new SandboxError(
				"mismatch",
				`${lock.fsJson} or a file in ${lock.folder} is another one now`,
				"make a new lock file with --update",
			);
		}
		return { tree, epoch: newestTime(tree), env: {} };
	},
};

/** The tree with all its files in the store, each under its whole hash. */
async function readAll(
	fsJson: string,
	folder: string,
	{ recipeFolder, store, progress, signal, log }: SourceContext,
): Promise<{ tree: Tree; sha256: string; contentsSha256: string }> {
	progress.update("index", 0, `reading ${fsJson}`);
	const text = await readJson(resolve(recipeFolder, fsJson));
	const { tree, skipped } = parseV86FsJson(text, fsJson);
	if (skipped.length > 0) log.debug(`${fsJson}: devices are left out: ${skipped.slice(0, 20).join(", ")}`);
	const files: [string, FileNode][] = [];
	for (const [path, node] of tree.entries()) if (node.kind === "file") files.push([path, node]);
	const hash = createHash("sha256");
	const stored = new Map<string, { sha256: string; sizeBytes: number }>();
	for (const [at, [path, node]] of files.entries()) {
		if (signal?.aborted === true) throw new SandboxError("cancelled", "the build was cancelled");
		if (at % 50 === 0) progress.update("packages", at / files.length, `reading files, ${at} of ${files.length}`);
		const name = node.sha256;
		const content = stored.get(name) ?? (await storeFile(join(resolve(recipeFolder, folder), name), name, path, store));
		stored.set(name, content);
		if (content.sizeBytes !== node.sizeBytes) {
			throw new SandboxError(
				"corrupt",
				`/${path} has ${content.sizeBytes} bytes in ${folder}/${name}, ${fsJson} says ${node.sizeBytes}`,
			);
		}
		tree.set(path, { ...node, sha256: content.sha256 });
		hash.update(`${path}\0${content.sha256}\n`);
	}
	return { tree, sha256: createHash("sha256").update(text).digest("hex"), contentsSha256: hash.digest("hex") };
}

async function storeFile(
	file: string,
	name: string,
	path: string,
	store: SourceContext["store"],
): Promise<{ sha256: string; sizeBytes: number }> {
	const refuse = (what: string) => new SandboxError("corrupt", `${file}, which is /${path}, ${what}`);
	try {
		const handle = await open(file);
		await handle.close();
	} catch (error) {
		throw refuse(`can't be read (${errnoOf(error) ?? String(error)})`);
	}
	const raw = createReadStream(file) as AsyncIterable<Uint8Array>;
	const content = await store.putStream(bounded(name.endsWith(".zst") ? decompress(raw, file) : raw, refuse));
	if (!content.sha256.startsWith(name.replace(/\..*$/, ""))) {
		throw refuse(`is damaged: its SHA-256 is ${content.sha256}`);
	}
	return content;
}

async function* bounded(
	chunks: AsyncIterable<Uint8Array>,
	refuse: (what: string) => Error,
): AsyncGenerator<Uint8Array> {
	let bytes = 0;
	for await (const chunk of chunks) {
		bytes += chunk.length;
		if (bytes > limits.maxLayerBytes) throw refuse(`has more than ${limits.maxLayerBytes} bytes`);
		yield chunk;
	}
}

async function readJson(file: string): Promise<string> {
	try {
		const { size } = await stat(file);
		if (size > limits.maxTreeJsonBytes) {
			throw new SandboxError("corrupt", `${file} has ${size} bytes, at most ${limits.maxTreeJsonBytes} are read`);
		}
		return await readFile(file, "utf8");
	} catch (error) {
		if (error instanceof SandboxError) throw error;
		throw new SandboxError("not-found", `${file} can't be read (${errnoOf(error) ?? String(error)})`);
	}
}

/**
 * What v86's own tools make: `v86:FS_JSON+FLAT_FOLDER`. tools/fs2json.py writes the JSON, tools/copy-to-sha256.py the
 * folder: each different content is a file that is called by the first 8 digits of its SHA-256 and ".bin", or, with
 * --zstd, compressed and ".bin.zst". The JSON has these names, suffix and all, and the sizes of the contents.
 */

import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { z } from "zod";
import { SandboxError } from "../../errors.js";
import type { ContentStore, StoredContent } from "../content-store.js";
import { decompress } from "../decompress.js";
import { type NamedFile, type NamedTree, parseV86FsJson } from "../fs-json.js";
import { limits } from "../limits.js";
import { type FileIdentity, identify, readIdentified } from "../local-file.js";
import { formatBytes } from "../progress.js";
import { sha256Schema } from "../sha256.js";
import type { Source, SourceContext } from "../source.js";
import { newestTime } from "../tree.js";

const lockSchema = z.strictObject({
	/** As the recipe has them; relative to the recipe's folder. */
	json: z.string().min(1),
	folder: z.string().min(1),
	jsonSha256: sha256Schema,
	/** Of the lines "NAME SIZE SHA256\n", one for each file of the folder that the JSON names, by name; of the files as they lie there. */
	filesSha256: sha256Schema,
});

type V86Lock = z.infer<typeof lockSchema>;

export const v86Source: Source<V86Lock> = {
	scheme: "v86",
	lockSchema,

	async resolve(reference, context) {
		const { json, folder } = splitReference(reference);
		const { named, jsonSha256 } = await readJson(json, context);
		const identities = new Map<string, FileIdentity>();
		await forEachContent(named, context, async ({ contentName, path }) => {
			const file = join(resolve(context.recipeFolder, folder), contentName);
			identities.set(contentName, await present(identify(file, context), file, path));
		});
		return { json, folder, jsonSha256, filesSha256: hashOfFiles(identities) };
	},

	async make(lock, context) {
		const { named, jsonSha256 } = await readJson(lock.json, context);
		if (jsonSha256 !== lock.jsonSha256) throw changed(lock.json);
		const identities = new Map<string, FileIdentity>();
		const contents = new Map<string, StoredContent>();
		await forEachContent(named, context, async (file) => {
			const path = join(resolve(context.recipeFolder, lock.folder), file.contentName);
			const reading = readIdentified(path, (bytes) => take(bytes, path, file, context.store), context);
			const { result, identity } = await present(reading, path, file.path);
			if (result.status === "rejected") throw result.reason;
			identities.set(file.contentName, identity);
			contents.set(file.contentName, result.value);
		});
		if (hashOfFiles(identities) !== lock.filesSha256) throw changed(`${lock.folder} (a file of it)`);
		let bytes = 0;
		for (const { path, contentName, sizeBytes, place } of named.files) {
			const content = contents.get(contentName);
			if (content?.sizeBytes !== sizeBytes) {
				const found = `${content?.sizeBytes} bytes instead of ${sizeBytes}`;
				throw new SandboxError("corrupt", `${contentName}, the content of ${path}, has ${found}`, MAKE_AGAIN);
			}
			place(content.sha256);
			bytes += sizeBytes;
		}
		if (named.skipped.length > 0) {
			context.log.debug(`${lock.json}: left out: ${named.skipped.slice(0, 20).join(", ")}`);
		}
		context.progress.update("tree", 1, `${formatBytes(bytes)} taken`);
		return { tree: named.tree, epoch: newestTime(named.tree), env: {} };
	},
};

const MAKE_AGAIN = "make JSON and folder again from the same files, with v86's fs2json.py and copy-to-sha256.py";

/** "fs.json+flat" → its parts; the JSON's name may hold a "+" itself. */
function splitReference(reference: string): { json: string; folder: string } {
	const plus = reference.lastIndexOf("+");
	const json = reference.slice(0, plus);
	const folder = reference.slice(plus + 1);
	if (plus > 0 && folder !== "") return { json, folder };
	throw new SandboxError(
		"invalid-argument",
		`v86:${reference.slice(0, 200)} does not name a JSON and a folder`,
		"write v86:FS_JSON+FLAT_FOLDER, as in v86:alpine-fs.json+alpine-rootfs-flat",
	);
}

async function readJson(path: string, context: SourceContext): Promise<{ named: NamedTree; jsonSha256: string }> {
	context.progress.update("index", 0, `reading ${path}`);
	const { result, identity } = await readIdentified(
		resolve(context.recipeFolder, path),
		async (bytes) => {
			const chunks: Uint8Array[] = [];
			let length = 0;
			for await (const chunk of bytes) {
				length += chunk.length;
				if (length > limits.maxTreeJsonBytes) {
					throw new SandboxError("corrupt", `${path} is longer than ${formatBytes(limits.maxTreeJsonBytes)}`);
				}
				chunks.push(chunk);
			}
			return Buffer.concat(chunks).toString("utf8");
		},
		context,
	);
	if (result.status === "rejected") throw result.reason;
	return { named: parseV86FsJson(result.value, path), jsonSha256: identity.sha256 };
}

/** Calls `work` once for each different content, with the first file that has it. */
async function forEachContent(
	{ files }: NamedTree,
	{ progress }: SourceContext,
	work: (file: NamedFile) => Promise<void>,
): Promise<void> {
	const first = new Map<string, NamedFile>();
	let bytes = 0;
	for (const file of files) {
		if (first.has(file.contentName)) continue;
		first.set(file.contentName, file);
		bytes += file.sizeBytes;
	}
	if (bytes > limits.maxLayerBytes) {
		throw new SandboxError("corrupt", `${formatBytes(bytes)} of files, at most ${formatBytes(limits.maxLayerBytes)}`);
	}
	let done = 0;
	for (const file of first.values()) {
		await work(file);
		progress.update("packages", ++done / first.size, `reading files, ${done} of ${first.size}`);
	}
}

/** Stores one content, after it was found to be what its name and the JSON say. */
async function take(
	file: AsyncIterable<Uint8Array>,
	path: string,
	{ path: guestPath, contentName, sizeBytes }: NamedFile,
	store: ContentStore,
): Promise<StoredContent> {
	const what = `${path}, the content of ${guestPath},`;
	const wrong = (how: string) => new SandboxError("corrupt", `${what} ${how}`, MAKE_AGAIN);
	const isCompressed = contentName.endsWith(".zst");
	// The length is known, so that no ratio is needed to stop a bomb.
	const bytes = isCompressed ? decompress(file, what.slice(0, -1), Number.POSITIVE_INFINITY) : file;
	const stored = await store.putStream(
		(async function* () {
			const hash = createHash("sha256");
			let length = 0;
			for await (const chunk of bytes) {
				length += chunk.length;
				if (length > sizeBytes) throw wrong(`is longer than the ${sizeBytes} bytes that the JSON says`);
				hash.update(chunk);
				yield chunk;
			}
			if (length < sizeBytes) throw wrong(`is cut off: ${length} of ${sizeBytes} bytes`);
			const digits = contentName.slice(0, contentName.indexOf("."));
			const found = hash.digest("hex");
			if (!found.startsWith(digits))
				throw wrong(`is damaged: its SHA-256 begins with ${found.slice(0, digits.length)}`);
		})(),
	);
	return stored;
}

async function present<T>(work: Promise<T>, file: string, guestPath: string): Promise<T> {
	try {
		return await work;
	} catch (error) {
		if (!(error instanceof SandboxError) || error.code !== "not-found") throw error;
		throw new SandboxError("not-found", `${file}, the content of ${guestPath}, is missing or no file`, MAKE_AGAIN);
	}
}

function hashOfFiles(identities: ReadonlyMap<string, FileIdentity>): string {
	const hash = createHash("sha256");
	for (const name of [...identities.keys()].sort()) {
		const identity = identities.get(name);
		hash.update(`${name} ${identity?.sizeBytes} ${identity?.sha256}\n`);
	}
	return hash.digest("hex");
}

function changed(what: string): SandboxError {
	return new SandboxError(
		"mismatch",
		`${what} is another one than the lock names`,
		"put it back, or make a new lock file with --update",
	);
}

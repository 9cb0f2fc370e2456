/** `tar:FILE`: a root file system as a tar, such as `docker export` and Alpine's minirootfs; plain or packed with gzip, xz or zstd. */

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { errnoOf, SandboxError } from "../../errors.js";
import { hashFile } from "../content-store.js";
import { decompress } from "../decompress.js";
import { formatBytes } from "../progress.js";
import type { Source } from "../source.js";
import { applyTarLayer } from "../tar-layer.js";
import { newestTime, Tree } from "../tree.js";

const lockSchema = z.strictObject({
	/** As the recipe has it: absolute, or from the recipe's folder. */
	path: z.string().min(1),
	sha256: z.string().regex(/^[0-9a-f]{64}$/),
	sizeBytes: z.int().min(0),
});

type TarLock = z.infer<typeof lockSchema>;

const READ_BYTES = 256 * 1024;

export const tarSource: Source<TarLock> = {
	scheme: "tar",
	lockSchema,

	async resolve(path, { recipeFolder, progress }) {
		progress.update("index", 0, `reading ${path}`);
		const file = resolve(recipeFolder, path);
		return { path, sizeBytes: await sizeOfFile(file), sha256: await hashFile(file) };
	},

	async make(lock, { recipeFolder, store, progress, signal, log }) {
		const file = resolve(recipeFolder, lock.path);
		const total = await sizeOfFile(file);
		const hash = createHash("sha256");
		const packed = watched(createReadStream(file, { highWaterMark: READ_BYTES }), hash, (bytes) => {
			if (signal?.aborted === true) throw new SandboxError("cancelled", "the build was cancelled");
			progress.update(
				"packages",
				bytes / Math.max(1, total),
				`unpacking, ${formatBytes(bytes)} of ${formatBytes(total)}`,
			);
		});
		const tree = new Tree();
		const { skipped } = await applyTarLayer(tree, store, decompress(packed, lock.path), {
			source: lock.path,
			whiteouts: false,
			directorySymlinks: "replace",
		});
		if (skipped.length > 0) log.debug(`${lock.path}: devices are left out: ${skipped.slice(0, 20).join(", ")}`);
		const found = hash.digest("hex");
		if (found !== lock.sha256) {
			throw new SandboxError(
				"mismatch",
				`${file} is another file now: its SHA-256 is ${found} instead of ${lock.sha256}`,
				"make a new lock file with --update",
			);
		}
		refuseContainerArchive(tree, lock.path);
		return { tree, epoch: newestTime(tree), env: {} };
	},
};

/** `docker save` and an OCI layout are archives of layers, not of a root. */
function refuseContainerArchive(tree: Tree, path: string): void {
	const isArchive =
		(tree.get("manifest.json") !== undefined || tree.get("oci-layout") !== undefined) && tree.get("bin") === undefined;
	if (!isArchive) return;
	throw new SandboxError(
		"build-failed",
		`${path} holds a container image's layers (docker save), not a root file system`,
		"write it with docker export, or push the image to a registry and use oci:",
	);
}

async function sizeOfFile(file: string): Promise<number> {
	try {
		const about = await stat(file);
		if (about.isFile()) return about.size;
	} catch (error) {
		throw new SandboxError(
			"not-found",
			`${file} can't be read (${errnoOf(error) ?? String(error)})`,
			"give a tar file",
		);
	}
	throw new SandboxError("invalid-argument", `${file} is no file`, "give a tar file");
}

async function* watched(
	stream: AsyncIterable<Uint8Array>,
	hash: Hash,
	onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
	let bytes = 0;
	for await (const chunk of stream) {
		hash.update(chunk);
		bytes += chunk.length;
		onBytes(bytes);
		yield chunk;
	}
}

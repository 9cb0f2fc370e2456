/** A root file system in one tar: `tar:FILE`, as `docker export` writes it or Alpine's minirootfs is. */

import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { SandboxError } from "../../errors.js";
import { decompress } from "../decompress.js";
import { limits } from "../limits.js";
import { type FileIdentity, identify, readIdentified } from "../local-file.js";
import { formatBytes } from "../progress.js";
import { sha256Schema } from "../sha256.js";
import type { Source, SourceContext, SourceTree } from "../source.js";
import { applyTarLayer } from "../tar-layer.js";
import { newestTime, Tree } from "../tree.js";

const lockSchema = z.strictObject({
	/** As the recipe has it; relative to the recipe's folder. */
	path: z.string().min(1),
	/** Of the file as it is, compressed or not. */
	sha256: sha256Schema,
	sizeBytes: z.int().min(0),
});

type TarLock = z.infer<typeof lockSchema>;

/** What the archives of `docker save` and OCI layouts hold, and no root does. */
const CONTAINER_IMAGE = /^(oci-layout|blobs\/sha256\/[0-9a-f]{64}|[0-9a-f]{64}\/(layer\.tar|json)|[0-9a-f]{64}\.json)$/;

/** How often progress is told, bytes. */
const REPORT_BYTES = 1024 * 1024;

export const tarSource: Source<TarLock> = {
	scheme: "tar",
	lockSchema,

	async resolve(path, { recipeFolder, progress, signal }) {
		progress.update("index", 0, `reading ${path}`);
		return { path, ...(await identify(resolve(recipeFolder, path), { signal })) };
	},

	async make(lock, context) {
		const { path } = lock;
		const file = resolve(context.recipeFolder, path);
		const { size } = await stat(file).catch(() => ({ size: lock.sizeBytes }));
		if (size !== lock.sizeBytes) throw changed(lock, `has ${size} bytes instead of ${lock.sizeBytes}`);
		const read = reporter(lock, context);
		const { result, identity } = await readIdentified(file, (bytes) => unpack(bytes, path, context), read);
		// A changed file is told as that, whatever else is wrong with it.
		check(lock, identity);
		if (result.status === "rejected") throw result.reason;
		return result.value;
	},
};

async function unpack(
	file: AsyncIterable<Uint8Array>,
	path: string,
	{ store, progress, log }: SourceContext,
): Promise<SourceTree> {
	const tree = new Tree();
	const { bytes, skipped } = await applyTarLayer(tree, store, decompress(file, path), {
		source: path,
		whiteouts: false,
		directorySymlinks: "replace",
		maxBytes: limits.maxLayerBytes,
		onEntry: (name) => {
			if (!CONTAINER_IMAGE.test(name)) return;
			throw new SandboxError(
				"build-failed",
				`${path} is a container image with its layers, as docker save writes it, not a root file system`,
				'use "docker export" of a container instead, or push the image to a registry and start from oci:REFERENCE',
			);
		},
	});
	if (skipped.length > 0) log.debug(`${path}: left out: ${skipped.slice(0, 20).join(", ")}`);
	progress.update("tree", 1, `${formatBytes(bytes)} unpacked`);
	return { tree, epoch: newestTime(tree), env: {} };
}

function reporter({ path, sizeBytes }: TarLock, { progress, signal }: SourceContext) {
	let done = 0;
	let reported = 0;
	return {
		signal,
		onBytes(bytes: number) {
			done += bytes;
			if (done - reported < REPORT_BYTES) return;
			reported = done;
			progress.update("packages", Math.min(1, done / sizeBytes), `unpacking ${path}`);
		},
	};
}

function check(lock: TarLock, found: FileIdentity): void {
	if (found.sha256 === lock.sha256) return;
	throw changed(lock, `is ${found.sha256.slice(0, 12)} instead of ${lock.sha256.slice(0, 12)}`);
}

function changed({ path }: TarLock, how: string): SandboxError {
	return new SandboxError(
		"mismatch",
		`${path} is another file than the lock names: it ${how}`,
		"put the file back, or make a new lock file with --update",
	);
}

/** `image:NAME`: on top of another image of the data folder, or of tiny, with which it shares its files. */

import { createReadStream } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { SandboxError } from "../../errors.js";
import { hashFile } from "../content-store.js";
import { sha256Schema } from "../sha256.js";
import type { Source } from "../source.js";
import { loadImage, readTree } from "../store.js";
import { newestTime } from "../tree.js";

const lockSchema = z.strictObject({
	name: z.string(),
	/** SHA-256 of the image's fs.json. */
	treeSha256: sha256Schema,
});

type ImageLock = z.infer<typeof lockSchema>;

export const imageSource: Source<ImageLock> = {
	scheme: "image",
	lockSchema,

	async resolve(name, { home }) {
		const { treePath } = await loadImage(home, name);
		return { name, treeSha256: await hashFile(treePath) };
	},

	async make(lock, { home, store, progress }) {
		const image = await loadImage(home, lock.name);
		const found = await hashFile(image.treePath);
		if (found !== lock.treeSha256) {
			throw new SandboxError(
				"mismatch",
				`the image ${lock.name} is another one now: its tree is ${found.slice(0, 12)} instead of ${lock.treeSha256.slice(0, 12)}`,
				"make a new lock file with --update",
			);
		}
		progress.update("packages", 0, `taking the files of ${lock.name}`);
		const tree = await readTree(image);
		for (const [path, node] of tree.entries()) {
			if (node.kind !== "file" || (await store.has(node.sha256))) continue;
			const stored = await store.putStream(
				createReadStream(join(image.filesPath, node.sha256)) as AsyncIterable<Uint8Array>,
			);
			if (stored.sha256 !== node.sha256) {
				throw new SandboxError(
					"corrupt",
					`/${path} of the image ${lock.name} is damaged`,
					`sandbox86 image verify ${lock.name}`,
				);
			}
		}
		return { tree, epoch: newestTime(tree), env: {} };
	},
};

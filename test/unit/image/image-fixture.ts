/** Small images on disk, made as the builder makes them. */

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ContentStore } from "../../../src/image/content-store.js";
import { serializeFsJson } from "../../../src/image/fs-json.js";
import { parseRecipe } from "../../../src/image/recipe.js";
import { commitImage, loadImage } from "../../../src/image/store.js";
import { Tree, type TreeNode } from "../../../src/image/tree.js";
import { writeBootSnapshot } from "../../../src/vm/boot-snapshot.js";
import { emulatorVersion } from "../../../src/vm/emulator-version.js";

const PLAIN = { mode: 0o644, uid: 0, gid: 0, mtime: 1_600_000_000 };

/** Files by their content; anything else as a node of the tree. */
export type FixtureFiles = Readonly<Record<string, string | Uint8Array | TreeNode>>;

export function sha256(content: string | Uint8Array): string {
	return createHash("sha256").update(content).digest("hex");
}

export function link(target: string): TreeNode {
	return { kind: "symlink", ...PLAIN, mode: 0o777, target };
}

/** Commits an image that holds these files, by guest path. */
export async function commitFixture(home: string, name: string, files: FixtureFiles): Promise<void> {
	const staging = join(home, "fixture");
	const store = new ContentStore(join(staging, "files"));
	const tree = new Tree();
	for (const [path, content] of Object.entries(files)) {
		const isContent = typeof content === "string" || content instanceof Uint8Array;
		tree.set(path, isContent ? { kind: "file", ...PLAIN, ...(await store.put(content)) } : content);
	}
	const text = serializeFsJson(tree);
	mkdirSync(join(staging, "image"), { recursive: true });
	writeFileSync(join(staging, "image", "fs.json"), text);
	writeFileSync(join(staging, "image", "manifest.json"), manifestText(name, sha256(text)));
	await commitImage(home, name, join(staging, "image"), store);
	rmSync(staging, { recursive: true, force: true });
}

export function manifestText(name: string, treeSha256: string): string {
	return JSON.stringify({
		format: 2,
		name,
		created: "2026-01-02T03:04:05.000Z",
		builtBy: "test",
		inputsDigest: "0".repeat(64),
		recipe: parseRecipe(JSON.stringify({ name, from: "debian:trixie", warm: ["true"] }), "test"),
		lock: { format: 1, from: "debian:trixie", inputs: {} },
		packages: [{ name: "bash", version: "5.2" }],
		treeSha256,
		entries: 1,
		fileBytes: 1,
		buildMs: 1,
	});
}

/** Leaves a boot snapshot as a machine with this memory does; its state is `state`. */
export async function addBootSnapshot(home: string, name: string, memoryMiB: number, state: Buffer): Promise<void> {
	const image = await loadImage(home, name);
	await writeBootSnapshot(image, {
		imageName: name,
		imageDigest: image.digest,
		memoryMiB,
		emulatorVersion: emulatorVersion(),
		openFlows: [],
		stateBytes: state.length,
		state: (async function* () {
			yield state;
		})(),
	});
}

/** Every file and folder below a folder, by path; empty where there is none. */
export function everythingIn(folder: string): string[] {
	try {
		return readdirSync(folder, { recursive: true, encoding: "utf8" }).sort();
	} catch {
		return [];
	}
}

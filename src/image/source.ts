/** Where an image's first tree comes from: what every kind of source offers to the builder. */

import type { z } from "zod";
import type { Log } from "../log.js";
import type { ContentStore } from "./content-store.js";
import type { Downloader } from "./download.js";
import type { GuestWork } from "./guest-work.js";
import type { ProgressTracker } from "./progress.js";
import type { Tree } from "./tree.js";

export interface SourceContext {
	/** Receives the contents of all files. */
	readonly store: ContentStore;
	readonly downloader: Downloader;
	/** The data folder, whose images an image may start from. */
	readonly home: string;
	/** Absolute path of the folder that relative paths of the recipe start from. */
	readonly recipeFolder: string;
	/** The recipe's packages, for a source that installs them itself. */
	readonly packages: readonly string[];
	/** URL of the Debian archive that the user named. */
	readonly mirror: string | undefined;
	/** Boots a tree, works in it, and lays what changed over it. */
	readonly workInGuest: (tree: Tree, work: GuestWork) => Promise<void>;
	readonly progress: ProgressTracker;
	readonly log: Log;
	readonly signal: AbortSignal | undefined;
}

export interface SourceTree {
	readonly tree: Tree;
	/** Seconds since 1970: no file of the image is younger, so that the same inputs give the same image. */
	readonly epoch: number;
	/** Environment variables that the source asks for, as a container image's configuration does. */
	readonly env: Readonly<Record<string, string>>;
}

/** One kind of source. `Lock` is JSON: the exact inputs, by hash, that a reference meant when it was resolved. */
export interface Source<Lock> {
	/** The word before the colon in a recipe's `from`: "oci". */
	readonly scheme: string;
	readonly lockSchema: z.ZodType<Lock>;
	/** Whether the recipe's packages are in the tree that it makes; otherwise they are installed in the guest. */
	readonly installsPackages?: true;
	/** Finds out what a reference (what follows "oci:") means now; fetches as little as that takes. */
	resolve(reference: string, context: SourceContext): Promise<Lock>;
	/** Makes the tree of the locked inputs; throws SandboxError where they are not to be had any more or are not what they were. */
	make(lock: Lock, context: SourceContext): Promise<SourceTree>;
}

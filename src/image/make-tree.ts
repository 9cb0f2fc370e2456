/** From a recipe to a tree, step by step, each taken from the cache where all that leads to it is as it was. */

import { SandboxError } from "../errors.js";
import { installScript } from "./install-script.js";
import { type InstalledPackage, installedPackages } from "./installed-packages.js";
import type { LockFile } from "./lock-file.js";
import type { Recipe, RecipeFile } from "./recipe.js";
import { putEnvironment, putRecipeFiles, readRecipeFiles } from "./recipe-files.js";
import type { SourceContext, SourceTree } from "./source.js";
import { parseFrom } from "./sources/sources.js";
import { type StepCache, stepKey } from "./step-cache.js";
import { tidy } from "./tidy.js";
import type { Tree } from "./tree.js";
import { checkUserland } from "./userland.js";

export interface MakeTreeOptions {
	readonly recipe: RecipeFile;
	readonly context: SourceContext;
	readonly cache: StepCache;
	/** Take nothing from the cache. */
	readonly fresh: boolean;
	/** The inputs that the build must start from. */
	readonly lock: LockFile | undefined;
	/** Runs one script in a guest that has a network; `at` of `of` such steps. */
	readonly runStep: (tree: Tree, script: string, title: string, at: number, of: number) => Promise<void>;
	/** Says which step is next, and whether it is taken from the cache. */
	readonly onStep: (title: string, isCached: boolean) => void;
	/** Version of this program: another one may make another tree of the same inputs. */
	readonly version: string;
}

export interface MadeTree extends SourceTree {
	/** The exact inputs. */
	readonly lock: LockFile;
	readonly packages: readonly InstalledPackage[];
	/** Keys of all steps in the cache. */
	readonly steps: ReadonlySet<string>;
}

/** Characters of a command that stand for it. */
const MAX_TITLE = 160;

export async function makeTree(options: MakeTreeOptions): Promise<MadeTree> {
	const { context, cache, onStep, version } = options;
	const { recipe, folder } = options.recipe;
	const { store } = context;
	const steps = new Set<string>();
	let key: string | undefined;

	/** One step: `what` says all that it depends on beside the steps before it. */
	const step = async (title: string, what: unknown, make: () => Promise<SourceTree>): Promise<SourceTree> => {
		key = stepKey(key, what);
		const known = options.fresh || steps.has(key) ? undefined : await cache.get(key);
		onStep(title, known !== undefined);
		const made = known ?? (await make());
		if (known === undefined) {
			tidy(made.tree, made.epoch);
			await cache.put(key, recipe.name, title, made);
		}
		steps.add(key);
		return made;
	};

	const { source, reference } = parseFrom(recipe.from);
	const locked = lockFor(recipe, options.lock);
	const inputs =
		locked === undefined
			? await source.resolve(reference, context)
			: parseInputs(source.lockSchema.safeParse(locked.inputs), recipe.from);
	let made = await step(`from ${recipe.from}`, [version, source.scheme, inputs], async () => {
		const from = await source.make(inputs, context);
		await checkUserland(from.tree, store);
		return from;
	});
	const { epoch } = made;
	const then = (tree: Tree): SourceTree => ({ tree, epoch, env: {} });

	const contents = await readRecipeFiles(recipe.files, folder);
	const env = { ...made.env, ...recipe.env };
	if (contents.length > 0 || Object.keys(env).length > 0) {
		const what = ["files", contents.map(({ path, mode, sha256 }) => [path, mode, sha256]), Object.entries(env)];
		const { tree } = made;
		made = await step("files and environment", what, async () => {
			await putRecipeFiles(tree, store, contents, epoch);
			await putEnvironment(tree, store, env, epoch);
			return then(tree);
		});
	}

	const packages = source.installsPackages === true ? [] : recipe.packages;
	const scripts: { title: string; what: unknown; script: (tree: Tree) => string }[] = [];
	if (packages.length > 0) {
		scripts.push({
			title: `packages ${firstLine(packages.join(" "))}`,
			what: ["packages", packages, locked?.installed],
			script: (tree) => installScript(tree, packages, locked?.installed),
		});
	}
	for (const command of recipe.run) {
		scripts.push({ title: `run ${firstLine(command)}`, what: ["run", command], script: () => command });
	}
	let installed: InstalledPackage[] | undefined;
	for (const [at, { title, what, script }] of scripts.entries()) {
		const { tree } = made;
		made = await step(title, what, async () => {
			const text = `export SOURCE_DATE_EPOCH=${epoch}\n${script(tree)}`;
			await options.runStep(tree, text, title, at, scripts.length);
			return then(tree);
		});
		if (at === 0 && packages.length > 0) {
			installed = await installedPackages(made.tree, store);
			if (locked?.installed !== undefined) checkInstalled(locked.installed, installed);
		}
	}
	return {
		...made,
		lock: { format: 1, from: recipe.from, inputs, ...(installed === undefined ? {} : { installed }) },
		packages: await installedPackages(made.tree, store),
		steps,
	};
}

function firstLine(text: string): string {
	const [line = ""] = text.trim().split("\n", 1);
	return line.length <= MAX_TITLE && line.length === text.trim().length ? line : `${line.slice(0, MAX_TITLE)} …`;
}

function lockFor(recipe: Recipe, lock: LockFile | undefined): LockFile | undefined {
	if (lock === undefined || lock.from === recipe.from) return lock;
	throw new SandboxError(
		"mismatch",
		`the lock file is of ${lock.from}, the recipe starts from ${recipe.from}`,
		"make a new lock file with --update",
	);
}

function parseInputs<T>(parsed: { success: true; data: T } | { success: false; error: Error }, from: string): T {
	if (parsed.success) return parsed.data;
	throw new SandboxError(
		"corrupt",
		`the lock file's inputs are none of ${from}: ${parsed.error.message}`,
		"make a new lock file with --update",
	);
}

function checkInstalled(locked: readonly InstalledPackage[], found: readonly InstalledPackage[]): void {
	const wanted = new Set(locked.map(({ name, version }) => `${name} ${version}`));
	const got = new Set(found.map(({ name, version }) => `${name} ${version}`));
	const missing = [...wanted].filter((text) => !got.has(text));
	const extra = [...got].filter((text) => !wanted.has(text));
	if (missing.length === 0 && extra.length === 0) return;
	const some = (list: string[]) =>
		list.slice(0, 5).join(", ") + (list.length > 5 ? ` and ${list.length - 5} more` : "");
	throw new SandboxError(
		"mismatch",
		`the repository gave other packages than the lock file names: ${some(extra) || "none"} instead of ${some(missing) || "none"}`,
		"make a new lock file with --update",
	);
}

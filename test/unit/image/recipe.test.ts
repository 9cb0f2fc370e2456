import { execFileSync } from "node:child_process";
import {
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	symlinkSync,
	truncateSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { ContentStore } from "../../../src/image/content-store.js";
import { installScript } from "../../../src/image/install-script.js";
import { installedPackages } from "../../../src/image/installed-packages.js";
import { limits } from "../../../src/image/limits.js";
import { lockFilePath, readLockFile, writeLockFile } from "../../../src/image/lock-file.js";
import { parseRecipe, readRecipe, recipeNames, recipeSchema } from "../../../src/image/recipe.js";
import { putEnvironment, putRecipeFiles, readRecipeFiles } from "../../../src/image/recipe-files.js";
import { parseFrom } from "../../../src/image/sources/sources.js";
import { StepCache, stepKey } from "../../../src/image/step-cache.js";
import { Tree } from "../../../src/image/tree.js";

let folder: string;
let store: ContentStore;
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-recipe-"));
	store = new ContentStore(join(folder, "files"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const recipe = (fields: object) => JSON.stringify({ name: "mine", from: "debian:trixie", ...fields });
const textAt = async (tree: Tree, path: string) => {
	const node = tree.get(path);
	return node?.kind === "file" ? (await store.read(node.sha256)).toString() : undefined;
};
const file = async (content: string) => ({
	kind: "file" as const,
	mode: 0o644,
	uid: 0,
	gid: 0,
	mtime: 0,
	...(await store.put(content)),
});

describe("a recipe", () => {
	it("needs a name and a source; all else has a default", () => {
		expect(parseRecipe(recipe({}), "x.json")).toEqual({
			name: "mine",
			from: "debian:trixie",
			files: {},
			packages: [],
			run: [],
			env: {},
			memory_mib: 512,
			warm: [],
		});
	});

	it.each([
		["not JSON", "{", /no JSON/],
		["an unknown field", recipe({ commands: [] }), /commands/],
		["a name with a slash", recipe({ name: "a/b" }), /name/],
		["a name that another image has while it is replaced", recipe({ name: "base.old" }), /name/],
		["a name with a dot at its end", recipe({ name: "base." }), /name/],
		["a source without a kind", recipe({ from: "trixie" }), /from/],
		["a package with an option in it", recipe({ packages: ["--force"] }), /packages/],
		["a package with a quote", recipe({ packages: ["a'b"] }), /packages/],
		["a variable with a newline", recipe({ env: { A: "1\nB=2" } }), /env/],
		["a variable that is no name", recipe({ env: { "A B": "1" } }), /env/],
		["a relative path", recipe({ files: { "etc/x": "" } }), /files/],
		["a path with ..", recipe({ files: { "/etc/../x": "" } }), /files/],
		["a file with two contents", recipe({ files: { "/x": { text: "", base64: "" } } }), /exactly one/],
		["a file without content", recipe({ files: { "/x": { mode: "755" } } }), /exactly one/],
		["a mode that is not octal", recipe({ files: { "/x": { text: "", mode: "9" } } }), /mode|files/],
		["too little memory", recipe({ memory_mib: 16 }), /memory_mib/],
		["an endless list", recipe({ run: Array(1000).fill("true") }), /run/],
		["4 MiB and more", recipe({ run: ["x".repeat(5_000_000)] }), /longer than/],
	])("with %s is refused, with the file's name", (_what, text, expected) => {
		expect(() => parseRecipe(text, "x.json")).toThrow(expected);
		expect(() => parseRecipe(text, "x.json")).toThrow(/^x\.json/);
	});

	it("of the package is found by its name, one of the user's by its path", async () => {
		expect(await recipeNames()).toEqual(["alpine", "base", "data", "dev", "node"]);
		for (const name of await recipeNames()) {
			expect(await readRecipe(name)).toMatchObject({ recipe: { name }, path: undefined });
		}
		writeFileSync(join(folder, "mine.json"), recipe({}));
		expect(await readRecipe(join(folder, "mine.json"))).toMatchObject({ recipe: { name: "mine" }, folder });
		await expect(readRecipe("nothing")).rejects.toThrow(/no recipe for an image nothing/);
		await expect(readRecipe(join(folder, "nothing.json"))).rejects.toThrow(/can't be read \(ENOENT\)/);
	});

	it("that is too long or no file is refused before it is read", async () => {
		writeFileSync(join(folder, "long.json"), " ".repeat(limits.maxRecipeBytes + 1));
		mkdirSync(join(folder, "folder.json"));
		const too = `it has ${limits.maxRecipeBytes + 1} bytes, at most ${limits.maxRecipeBytes} are read`;
		await expect(readRecipe(join(folder, "long.json"))).rejects.toMatchObject({
			code: "invalid-argument",
			message: expect.stringContaining(too),
		});
		await expect(readRecipe(join(folder, "folder.json"))).rejects.toThrow(/can't be read \(it is no file\)/);
	});

	it("is described by the published schema", async () => {
		const schema = { title: "sandbox86 image recipe", ...z.toJSONSchema(recipeSchema, { io: "input" }) };
		const text = `${JSON.stringify(schema, undefined, "\t")}\n`;
		await expect(text).toMatchFileSnapshot("../../../images/recipe.schema.json");
	});

	it("starts from a kind of source that there is", () => {
		expect(parseFrom("image:base")).toMatchObject({ source: { scheme: "image" }, reference: "base" });
		expect(() => parseFrom("ftp:x")).toThrow(/no kind of source/);
	});
});

describe("a recipe's files", () => {
	it("come as text, as base64 or from beside the recipe", async () => {
		mkdirSync(join(folder, "etc"));
		writeFileSync(join(folder, "etc", "motd"), "from the host");
		const files = {
			"/a": "plain",
			"/b/c": { base64: "AAH/", mode: "4755" },
			"/etc/motd": { source: "etc/motd" },
		};
		const tree = new Tree();
		await putRecipeFiles(tree, store, await readRecipeFiles(files, folder), 7);
		expect(await textAt(tree, "a")).toBe("plain");
		expect(tree.get("b/c")).toMatchObject({ mode: 0o4755, sizeBytes: 3, mtime: 7 });
		expect(await textAt(tree, "etc/motd")).toBe("from the host");
	});

	it("are taken from the recipe's own folder only, also through links", async () => {
		const outside = mkdtempSync(join(tmpdir(), "sandbox86-outside-"));
		writeFileSync(join(outside, "key"), "secret");
		symlinkSync(join(outside, "key"), join(folder, "link"));
		mkdirSync(join(folder, "sub"));
		for (const source of [join(outside, "key"), "link", "../x", "/etc/passwd", "."]) {
			await expect(readRecipeFiles({ "/x": { source } }, folder)).rejects.toThrow(
				/not in the recipe's folder|can't be read/,
			);
		}
		await expect(readRecipeFiles({ "/x": { source: "sub" } }, folder)).rejects.toThrow(/is no file/);
		rmSync(outside, { recursive: true });
	});

	it("never take a folder's place", async () => {
		const tree = new Tree();
		tree.makeDirectory("etc");
		const contents = await readRecipeFiles({ "/etc": "x" }, folder);
		await expect(putRecipeFiles(tree, store, contents, 0)).rejects.toThrow(/where the image has a folder: \/etc/);
	});
});

describe("a recipe's environment", () => {
	it("goes to /etc/environment, before what stands there", async () => {
		const tree = new Tree();
		tree.set("etc/environment", await file("PATH=/bin\nLANG=C\n"));
		await putEnvironment(tree, store, { PATH: "/opt/bin:/bin", QUOTED: '"x"', EMPTY: "" }, 0);
		expect(await textAt(tree, "etc/environment")).toBe('LANG=C\nPATH=/opt/bin:/bin\nQUOTED=""x""\nEMPTY=\n');
	});

	it("has no variable of several lines, which would set others", async () => {
		const tree = new Tree();
		await putEnvironment(tree, store, { A: "1\nPATH=/evil", B: "2" }, 0);
		expect(await textAt(tree, "etc/environment")).toBe("B=2\n");
	});

	it("leaves a tree alone that needs none", async () => {
		const tree = new Tree();
		await putEnvironment(tree, store, {}, 0);
		expect(tree.get("etc/environment")).toBeUndefined();
	});
});

describe("packages", () => {
	it("are installed by apk or apt-get, in the locked versions", async () => {
		const alpine = new Tree();
		alpine.set("sbin/apk", await file(""));
		expect(installScript(alpine, ["git", "curl"], undefined)).toBe("apk add --no-cache 'git' 'curl'");
		expect(installScript(alpine, ["git"], [{ name: "git", version: "2.47.1-r0" }])).toContain("'git=2.47.1-r0'");
		const hostile = "1'; echo not a version; '";
		const script = installScript(alpine, ["git"], [{ name: "git", version: hostile }]);
		expect(execFileSync("sh", ["-c", `apk() { printf '%s\\n' "$@"; }; ${script}`], { encoding: "utf8" })).toBe(
			`add\n--no-cache\ngit=${hostile}\n`,
		);
		const debian = new Tree();
		debian.set("usr/bin/apt-get", await file(""));
		expect(installScript(debian, ["git"], undefined)).toContain("apt-get install -y --no-install-recommends");
		expect(() => installScript(new Tree(), ["git"], undefined)).toThrow(/neither apk nor apt-get/);
	});

	it("that are installed are read from dpkg's and apk's databases", async () => {
		const debian = new Tree();
		const stanza = (name: string, status: string) => `Package: ${name}\nStatus: ${status}\nVersion: 1:2-3\n`;
		debian.set(
			"var/lib/dpkg/status",
			await file(`${stanza("b", "install ok installed")}\n${stanza("a", "deinstall ok config-files")}\n`),
		);
		expect(await installedPackages(debian, store)).toEqual([{ name: "b", version: "1:2-3" }]);
		const alpine = new Tree();
		alpine.set("lib/apk/db/installed", await file("C:Q1x=\nP:musl\nV:1.2.5-r9\nA:x86\n\nP:bash\nV:5.2-r0\n\n"));
		expect(await installedPackages(alpine, store)).toEqual([
			{ name: "bash", version: "5.2-r0" },
			{ name: "musl", version: "1.2.5-r9" },
		]);
		expect(await installedPackages(new Tree(), store)).toEqual([]);
	});
});

describe("a lock file", () => {
	const lock = { format: 1 as const, from: "image:tiny", inputs: { name: "tiny" } };

	it("lies beside its recipe and comes back as it was written", async () => {
		const path = lockFilePath(join(folder, "mine.json"));
		expect(path).toBe(join(folder, "mine.lock.json"));
		expect(await readLockFile(path)).toBeUndefined();
		await writeLockFile(path, lock);
		expect(await readLockFile(path)).toEqual(lock);
	});

	it.each([
		["{"],
		['{"format":2}'],
		["[]"],
		['{"format":1,"from":"x","inputs":{},"more":1}'],
	])("that holds %s is refused", async (text) => {
		const path = join(folder, "x.lock.json");
		writeFileSync(path, text);
		await expect(readLockFile(path)).rejects.toMatchObject({
			code: "corrupt",
			hint: expect.stringMatching(/--update/),
		});
	});
});

describe("a lock file that is none", () => {
	it("is refused before it is read", async () => {
		const path = join(folder, "x.lock.json");
		mkdirSync(path);
		await expect(readLockFile(path)).rejects.toMatchObject({ code: "corrupt" });
		rmSync(path, { recursive: true });
		writeFileSync(path, "");
		truncateSync(path, limits.maxLockFileBytes + 1);
		await expect(readLockFile(path)).rejects.toThrow(/at most \d+ are read/);
	});
});

describe("the cache of steps", () => {
	it("gives a tree back under the same key, and nothing under another", async () => {
		const cache = new StepCache(join(folder, "steps"));
		const tree = new Tree();
		tree.set("a/b", await file("x"));
		const key = stepKey(stepKey(undefined, ["from"]), ["run", "true"]);
		await cache.put(key, "mine", "run true", { tree, epoch: 5, env: { A: "1" } });
		const found = await cache.get(key);
		expect(found).toMatchObject({ epoch: 5, env: { A: "1" } });
		expect(await textAt(found?.tree ?? new Tree(), "a/b")).toBe("x");
		expect(await cache.get(stepKey(key, ["run", "true"]))).toBeUndefined();
	});

	it("forgets an entry that is damaged instead of failing", async () => {
		const cache = new StepCache(join(folder, "steps"));
		const key = stepKey(undefined, 1);
		await cache.put(key, "mine", "x", { tree: new Tree(), epoch: 0, env: {} });
		const path = join(folder, "steps", readdirSync(join(folder, "steps"))[0] ?? "");
		const whole = readFileSync(path, "utf8");
		for (const damaged of ["", "{}", whole.slice(0, -5), whole.replace("fsroot", "fsr00t")]) {
			writeFileSync(path, damaged);
			expect(await cache.get(key)).toBeUndefined();
			expect(await cache.keys()).toEqual([]);
		}
	});

	it("forgets what was made for an image, but for what is still of use", async () => {
		const cache = new StepCache(join(folder, "steps"));
		const [a, b, c] = [stepKey(undefined, 1), stepKey(undefined, 2), stepKey(undefined, 3)];
		for (const key of [a, b]) await cache.put(key, "mine", "x", { tree: new Tree(), epoch: 0, env: {} });
		await cache.put(c, "other", "x", { tree: new Tree(), epoch: 0, env: {} });
		await cache.forget("mine", new Set([a]));
		expect(new Set(await cache.keys())).toEqual(new Set([a, c]));
	});
});

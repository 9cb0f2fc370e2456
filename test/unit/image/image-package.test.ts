import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
	findImagePackage,
	importFromPackage,
	installImagePackage,
	writeImagePackage,
} from "../../../src/image/image-package.js";
import { verifyImage } from "../../../src/image/store.js";
import { silentLog } from "../../../src/log.js";
import { commitFixture, everythingIn } from "./image-fixture.js";

const log = silentLog;

let folder: string;
let here: string;
let there: string;
let project: string;

beforeEach(async () => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-package-"));
	here = join(folder, "here");
	there = join(folder, "there");
	project = join(folder, "project");
	mkdirSync(project);
	writeFileSync(join(project, "package.json"), JSON.stringify({ name: "project", version: "1.0.0", private: true }));
	await commitFixture(here, "demo", { "bin/a": "one" });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function npm(args: string[], cwd: string): string {
	const shared = ["--offline", "--no-audit", "--no-fund", "--loglevel=error", "--cache", join(folder, "cache")];
	return execFileSync("npm", [...args, ...shared], { cwd, encoding: "utf8" });
}

/** A package as npm leaves it in node_modules. */
function placePackage(name: string, description: unknown, under = project): void {
	const target = join(under, "node_modules", name);
	mkdirSync(target, { recursive: true });
	writeFileSync(
		join(target, "package.json"),
		typeof description === "string" ? description : JSON.stringify(description),
	);
}

const described = (name: string, image = "demo") => ({
	name,
	version: "1.0.0",
	sandbox86: { image, file: "image.tar.gz", sha256: "0".repeat(64) },
});

describe("an image package", () => {
	it.each([undefined, "@me"])("goes through npm pack and npm install, scope %s", async (scope) => {
		const packageName = scope === undefined ? "sandbox86-image-demo" : "@me/sandbox86-image-demo";
		const target = join(folder, "package");
		const options = { log, version: "1.2.3", ...(scope === undefined ? {} : { scope }) };
		expect(await writeImagePackage(here, "demo", target, options)).toMatchObject({ packageName, version: "1.2.3" });
		npm(["pack", "--pack-destination", folder], target);
		const packed = readdirSync(folder).find((name) => name.endsWith(".tgz")) ?? "";
		npm(["install", join(folder, packed)], project);
		expect(readdirSync(join(project, "node_modules", packageName)).sort()).toEqual([
			"README.md",
			"image.tar.gz",
			"package.json",
		]);
		const found = await findImagePackage("demo", project);
		expect(found).toMatchObject({ packageName, version: "1.2.3", image: "demo" });
		if (found === undefined) return;
		expect(await installImagePackage(there, found, { log })).toMatchObject({ name: "demo", outcome: "new" });
		expect(await verifyImage(there, "demo")).toEqual([]);
	}, 60_000);

	it("says in its README how to use it, and in package.json what it is", async () => {
		const target = join(folder, "package");
		const { sha256 } = await writeImagePackage(here, "demo", target, { log, license: "MIT" });
		expect(JSON.parse(readFileSync(join(target, "package.json"), "utf8"))).toEqual({
			name: "sandbox86-image-demo",
			version: "1.0.0",
			description: "The image demo for sandbox86",
			license: "MIT",
			keywords: ["sandbox86-image"],
			files: ["image.tar.gz"],
			sandbox86: { image: "demo", file: "image.tar.gz", sha256 },
		});
		expect(readFileSync(join(target, "README.md"), "utf8")).toContain(
			"sandbox86 image import node_modules/sandbox86-image-demo/image.tar.gz",
		);
	});

	it("replaces only another image package, and that only by force", async () => {
		const target = join(folder, "package");
		await writeImagePackage(here, "demo", target, { log });
		await expect(writeImagePackage(here, "demo", target, { log })).rejects.toMatchObject({ code: "already-exists" });
		await writeImagePackage(here, "demo", target, { log, force: true, version: "2.0.0" });
		expect(readFileSync(join(target, "package.json"), "utf8")).toContain("2.0.0");
		await expect(writeImagePackage(here, "demo", project, { log, force: true })).rejects.toMatchObject({
			code: "already-exists",
			message: `${project} holds something else than an image package: package.json`,
		});
		expect(everythingIn(project)).toEqual(["package.json"]);
	});

	it.each([
		[{ version: "1" }, 'not a version: "1"'],
		[{ scope: "me" }, 'not a scope of npm: "me"'],
	])("is not written with %j", async (options, message) => {
		const target = join(folder, "package");
		await expect(writeImagePackage(here, "demo", target, { log, ...options })).rejects.toMatchObject({ message });
		expect(readdirSync(folder)).not.toContain("package");
	});
});

describe("the search for an image package", () => {
	it("finds none where there is none", async () => {
		expect(await findImagePackage("demo", project)).toBeUndefined();
		expect(await importFromPackage(there, "demo", { log })).toBeUndefined();
	});

	it("goes upwards, and takes a package without a scope first", async () => {
		const deep = join(project, "a/b");
		mkdirSync(deep, { recursive: true });
		placePackage("@z/sandbox86-image-demo", described("@z/sandbox86-image-demo"));
		placePackage("@a/sandbox86-image-demo", described("@a/sandbox86-image-demo"));
		expect(await findImagePackage("demo", deep)).toMatchObject({ packageName: "@a/sandbox86-image-demo" });
		placePackage("sandbox86-image-demo", described("sandbox86-image-demo"));
		expect(await findImagePackage("demo", deep)).toMatchObject({ packageName: "sandbox86-image-demo" });
		placePackage("@z/sandbox86-image-demo", described("@z/sandbox86-image-demo"), deep);
		expect(await findImagePackage("demo", deep)).toMatchObject({ packageName: "@z/sandbox86-image-demo" });
	});

	it.each<[string, unknown, string]>([
		["no JSON", "{", "its package.json is no JSON"],
		["no word about an image", { name: "sandbox86-image-demo", version: "1.0.0" }, "wrong at sandbox86"],
		["another name", described("other"), 'calls it "other"'],
		["another image", described("sandbox86-image-demo", "base"), 'carries the image "base"'],
		[
			"a file elsewhere",
			{
				...described("sandbox86-image-demo"),
				sandbox86: { image: "demo", file: "../../x", sha256: "0".repeat(64) },
			},
			"wrong at sandbox86.file: is no name of a file beside it",
		],
		["too long a package.json", " ".repeat(1024 * 1024 + 1), "has 1048577 bytes, at most 1048576 are read"],
	])("names a package that has %s", async (_, description, reason) => {
		placePackage("sandbox86-image-demo", description);
		await expect(findImagePackage("demo", project)).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringMatching(
				/^the package sandbox86-image-demo in .*\/sandbox86-image-demo is no image package: /,
			),
			hint: "install it again, or remove it: npm uninstall sandbox86-image-demo",
		});
		await expect(findImagePackage("demo", project)).rejects.toThrow(reason);
	});

	it("a package whose file was changed, or holds another image, is not installed", async () => {
		const target = join(project, "node_modules/sandbox86-image-demo");
		await writeImagePackage(here, "demo", target, { log });
		const found = await findImagePackage("demo", project);
		if (found === undefined) throw new Error("the package is not found");
		writeFileSync(found.path, "changed");
		await expect(installImagePackage(there, found, { log })).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringContaining("of the package sandbox86-image-demo is damaged: its SHA-256 is"),
		});
		await commitFixture(here, "liar", { "bin/a": "two" });
		const { sha256 } = await writeImagePackage(here, "liar", join(folder, "liar"), { log });
		writeFileSync(found.path, readFileSync(join(folder, "liar/image.tar.gz")));
		await expect(installImagePackage(there, { ...found, sha256 }, { log })).rejects.toThrow(
			'it is the image "liar" instead of "demo"',
		);
		expect(everythingIn(there).filter((path) => path !== "builds")).toEqual([]);
	});
});

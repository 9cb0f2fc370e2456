/** Recipes on Debian: packages by apt in the guest, over the relay, and a tree that comes back from its lock file. */

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { configSchema } from "../../src/config.js";
import { buildImage } from "../../src/image/build.js";
import { readManifest } from "../../src/image/manifest.js";
import { chooseMirrors } from "../../src/image/sources/debian/mirror.js";
import { imageFolders, loadImage, removeImage } from "../../src/image/store.js";
import { silentLog } from "../../src/log.js";
import { openBuildNetwork } from "../../src/network.js";
import { startGuest } from "../guest/support.js";
import { rulesFor, withAptSources } from "./network-support.js";

/** Small, without dependencies, and old enough to be everywhere. */
const PACKAGE = "tree";
/** apt reads an index of 55 MB with the guest's one slow processor. */
const APT_MS = 900_000;

let folder: string;
let home: string;
beforeAll(async () => {
	folder = await mkdtemp(join(tmpdir(), "sandbox86-recipe-"));
	home = inject("home");
});
afterAll(async () => {
	for (const name of ["with-package", "again"]) await removeImage(home, name).catch(() => undefined);
	rmSync(folder, { recursive: true, force: true });
});

function writeRecipe(recipe: { readonly name: string }): string {
	const path = join(folder, `${recipe.name}.json`);
	writeFileSync(path, JSON.stringify(recipe));
	return path;
}

describe("a recipe on Debian", () => {
	it(
		"installs packages with apt over the relay, whose scripts and database are in order",
		async (context) => {
			const mirror = (await chooseMirrors(undefined)).archive[0] ?? "";
			const rules = await rulesFor(mirror);
			context.skip(rules === undefined, `no mirror of Debian's can be reached from here: ${mirror}`);
			const config = configSchema.parse({ home, allow: rules });
			let lines: string[] = [];
			const isThere = await withAptSources(mirror, async (sources) => {
				const path = writeRecipe({
					name: "with-package",
					...{ from: "image:base", files: { "/etc/apt/sources.list.d/debian.sources": sources } },
					...{ packages: [PACKAGE], run: [`${PACKAGE} --version > /root/version`], env: { GREETING: "good day" } },
				});
				lines = [];
				await buildImage(home, path, {
					log: silentLog,
					openNetwork: () => openBuildNetwork(config, silentLog),
					onLine: (line) => lines.push(line),
				});
			});
			context.skip(!isThere, `the mirror's packages are not those that its signed index names: ${mirror}`);
			expect(lines.join("\n")).toMatch(new RegExp(`^Setting up ${PACKAGE} `, "m"));
			const manifest = await readManifest(join(imageFolders(home).images, "with-package", "manifest.json"));
			expect(manifest?.packages.map(({ name }) => name)).toContain(PACKAGE);
			expect(manifest?.lock.installed?.map(({ name }) => name)).toContain(PACKAGE);
			const guest = await startGuest({ image: "with-package", imageHome: home, memoryMiB: 512 });
			try {
				const { stdout } = await guest.run(`dpkg --audit; cat /root/version; ${PACKAGE} -d /root; echo $GREETING`);
				expect(stdout).toMatch(new RegExp(`^${PACKAGE} v`));
				expect(stdout).toMatch(/\ngood day\n$/);
			} finally {
				await guest.dispose();
			}
		},
		APT_MS,
	);

	it("gives the tree of base again from base's lock, out of the cache", async () => {
		const base = await readManifest(join(imageFolders(home).images, "base", "manifest.json"));
		const path = writeRecipe({ ...base?.recipe, name: "again", warm: [] } as { name: string });
		writeFileSync(join(folder, "again.lock.json"), JSON.stringify(base?.lock));
		const lines: string[] = [];
		await buildImage(home, path, { log: silentLog, onLine: (line) => lines.push(line) });
		expect(lines).toEqual(["==> from debian:trixie (done before)"]);
		expect((await loadImage(home, "again")).digest).toBe((await loadImage(home, "base")).digest);
		expect(JSON.parse(readFileSync(join(folder, "again.lock.json"), "utf8"))).toEqual(base?.lock);
	});
});

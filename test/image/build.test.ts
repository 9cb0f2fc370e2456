/** Images built from recipes on image tiny, which is there without any download: steps run in real machines. */

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { configSchema } from "../../src/config.js";
import { type BuildOptions, buildImage } from "../../src/image/build.js";
import { exportImage } from "../../src/image/export.js";
import { importImage } from "../../src/image/import.js";
import { readManifest } from "../../src/image/manifest.js";
import { listImages, loadImage, removeImage } from "../../src/image/store.js";
import { silentLog } from "../../src/log.js";
import { openBuildNetwork } from "../../src/network.js";
import { createMachine } from "../../src/vm/guest-machine.js";
import type { MachineImage } from "../../src/vm/machine-image.js";

let folder: string;
let home: string;
beforeAll(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-build-"));
	home = join(folder, "home");
	mkdirSync(home);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What the builds since the last test printed. */
let lines: string[] = [];
afterEach(() => {
	lines = [];
});

async function build(recipe: object, options: Partial<BuildOptions> & { readonly home?: string } = {}) {
	const path = join(folder, "recipe.json");
	writeFileSync(path, JSON.stringify({ name: "mine", from: "image:tiny", memory_mib: 128, ...recipe }));
	return await buildImage(options.home ?? home, path, {
		log: silentLog,
		onLine: (line) => lines.push(line),
		...options,
	});
}

/** Starts a machine of the image as a server would, and runs one command. */
async function runIn(image: MachineImage, command: string): Promise<string> {
	const machine = createMachine({
		image,
		memoryMiB: image.memoryMiB,
		log: silentLog,
		consoleLogPath: join(folder, "console.log"),
	});
	try {
		const { stdout, stderr } = await machine.run(command, { timeoutMs: 60_000 });
		return Buffer.concat([stdout.head, stdout.tail, stderr.head, stderr.tail]).toString();
	} finally {
		await machine.stop();
	}
}

describe("a recipe", () => {
	const recipe = {
		files: { "/opt/greet": { text: '#!/bin/sh\necho "hello $WHO"\n', mode: "755" } },
		env: { WHO: "wide world", PATH: "/opt:/usr/bin:/bin" },
		run: ["greet > /opt/said\nrm /etc/group", "mkfifo /opt/pipe; ln -s said /opt/link; cat /opt/link"],
		warm: ["touch /dev/shm/was-warmed"],
	};

	it("becomes an image with its files, environment, and what its commands wrote and removed", async () => {
		const image = await build(recipe);
		expect(image).toMatchObject({ name: "mine", memoryMiB: 128 });
		expect(await runIn(image, "greet; cat /opt/link; ls /etc/group /dev/shm; sh -c 'exit 5'; echo $?")).toBe(
			"hello wide world\nhello wide world\nwas-warmed\n5\nls: /etc/group: No such file or directory\n".replace(
				/^(.*\n.*\n)(.*\n)(.*\n)/,
				"$1/dev/shm:\n$2$3",
			),
		);
		expect(lines).toContain("hello wide world");
	});

	it("built again takes every step from the cache and has the same digest", async () => {
		const before = await loadImage(home, "mine");
		const image = await build(recipe);
		expect(lines).toHaveLength(4);
		for (const line of lines) expect(line).toMatch(/^==> .*\(done before\)$/);
		expect(image.digest).toBe(before.digest);
	});

	it("with another last command does only that one", async () => {
		await build({ ...recipe, run: [recipe.run[0], "echo other"] });
		expect(lines.filter((line) => line.startsWith("==>") && !line.endsWith("(done before)"))).toEqual([
			"==> run echo other",
		]);
		expect(lines).toContain("other");
	});

	it("gives the same image on another computer, with the same lock file", async () => {
		const here = await build(recipe);
		const lock = readFileSync(join(folder, "recipe.lock.json"), "utf8");
		rmSync(join(folder, "recipe.lock.json"));
		const there = await build(recipe, { home: join(folder, "elsewhere") });
		expect(there.digest).toBe(here.digest);
		expect(readFileSync(join(folder, "recipe.lock.json"), "utf8")).toBe(lock);
	});

	it("becomes a machine on a computer that only got its exported file", async () => {
		const { digest } = await loadImage(home, "mine");
		const file = join(folder, "mine.tar.gz");
		await exportImage(home, "mine", file, { log: silentLog });
		const there = join(folder, "imported");
		expect(await importImage(there, file, { log: silentLog })).toMatchObject({ outcome: "new", digest });
		expect(await runIn(await loadImage(there, "mine"), "greet; cat /opt/link; ls /dev/shm")).toBe(
			"hello wide world\nhello wide world\nwas-warmed\n",
		);
	});

	it("whose lock file names other inputs is refused until it is updated", async () => {
		const path = join(folder, "recipe.lock.json");
		const lock = readFileSync(path, "utf8");
		writeFileSync(path, lock.replace(/"treeSha256": "\w{8}/, '"treeSha256": "00000000'));
		await expect(build(recipe)).rejects.toMatchObject({ code: "mismatch", message: /tiny is another one now/ });
		await build(recipe, { update: true });
		expect(readFileSync(path, "utf8")).toBe(lock);
	});

	it("can start from an image that a recipe made, and shares its files", async () => {
		const upper = { name: "upper", from: "image:mine", run: ["echo more >> /opt/said"] };
		await expect(build(upper)).rejects.toThrow(/lock file is of image:tiny, the recipe starts from image:mine/);
		const image = await build(upper, { update: true });
		rmSync(join(folder, "recipe.lock.json"));
		expect(await runIn(image, "greet; cat /opt/said")).toBe("hello wide world\nhello wide world\nmore\n");
		await removeImage(home, "upper");
		expect(await runIn(await loadImage(home, "mine"), "cat /opt/said")).toBe("hello wide world\n");
	});
});

describe("a step that fails", () => {
	it("says its command, exit code and last lines, and leaves the image that was there whole", async () => {
		const before = await build({ run: ["echo fine > /a"] });
		const files = readdirSync(join(home, "files")).sort();
		await expect(
			build({ run: ["echo fine > /a", "echo this is how far it got; echo a-content-of-its-own > /b; exit 3"] }),
		).rejects.toMatchObject({
			code: "build-failed",
			message: expect.stringMatching(/^run echo this .*exit code 3; the last lines were:\nthis is how far it got$/),
		});
		expect(await loadImage(home, "mine")).toEqual(before);
		expect(readdirSync(join(home, "files")).sort()).toEqual(files);
		expect(readdirSync(join(home, "builds"))).toEqual([]);
	});

	it("is not cached, but the ones before it are", async () => {
		await expect(build({ run: ["echo fine > /a", "false"] })).rejects.toThrow(/exit code 1/);
		expect(lines.at(-1)).toBe("==> run false");
		expect(lines.at(-2)).toBe("==> run echo fine > /a (done before)");
	});

	it("can be cancelled", async () => {
		const cancelling = new AbortController();
		const onLine = (line: string) => {
			if (line === "started") cancelling.abort();
		};
		await expect(
			build({ run: ["echo started; sleep 1000"] }, { signal: cancelling.signal, onLine }),
		).rejects.toMatchObject({ code: "cancelled" });
		expect((await listImages(home)).find(({ name }) => name === "mine")?.state).toBe("built");
	});

	it("asks for packages that no one can install", async () => {
		await expect(build({ packages: ["git"] })).rejects.toThrow(/neither apk nor apt-get/);
	});
});

describe("a recipe's commands", () => {
	it("have the network that the user's rules give", async () => {
		const server = createServer((_request, response) => response.end("from the host\n"));
		await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
		const { port } = server.address() as AddressInfo;
		const config = configSchema.parse({ home, hostPort: [String(port)] });
		const run = [`wget -q -O /fetched http://10.0.2.2:${port}/; cat /fetched`, "wc -c /fetched"];
		try {
			const image = await build({ run }, { openNetwork: () => openBuildNetwork(config, silentLog) });
			expect(lines).toContain("from the host");
			expect(lines).toContain("14 /fetched");
			expect(await runIn(image, "cat /fetched")).toBe("from the host\n");
		} finally {
			server.close();
		}
	});
});

describe("an image's manifest", () => {
	it("has the recipe, the lock and the sizes", async () => {
		await build({ run: ["true"] });
		const manifest = await readManifest(join(home, "images", "mine", "manifest.json"));
		expect(manifest).toMatchObject({
			format: 2,
			recipe: { from: "image:tiny", run: ["true"], memory_mib: 128 },
			lock: { from: "image:tiny", inputs: { name: "tiny" } },
		});
		expect(manifest?.fileBytes).toBeGreaterThan(1_000_000);
	});
});

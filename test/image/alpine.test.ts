/** Alpine's shape end to end: a minirootfs as it comes, apk over the relay from a real web server, run, snapshot. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { configSchema } from "../../src/config.js";
import { buildImage } from "../../src/image/build.js";
import { parseFsJson } from "../../src/image/fs-json.js";
import { readManifest } from "../../src/image/manifest.js";
import { imageFolders, loadImage } from "../../src/image/store.js";
import { silentLog } from "../../src/log.js";
import { openBuildNetwork } from "../../src/network.js";
import { openSnapshotStore } from "../../src/vm/snapshot/store.js";
import { freePorts, GATEWAY } from "../guest/network-support.js";
import { type GuestOptions, startGuest } from "../guest/support.js";
import { type ApkPackage, ApkRepository } from "./alpine/repository.js";
import { compileWithMusl, fetchMusl, makeMinirootfs } from "./alpine/userland.js";

const PROGRAM = '#include <stdio.h>\nint main(void) { puts("hello from musl"); return 0; }\n';
const folder = mkdtempSync(join(tmpdir(), "sandbox86-alpine-"));
const home = join(folder, "home");
const missing = whatIsMissing();
if (missing !== undefined) process.stdout.write(`\nAlpine's shape is not tried here: ${missing}\n`);

function whatIsMissing(): string | undefined {
	for (const program of ["apt-get", "dpkg-deb", "gcc", "busybox", "tar"]) {
		if (spawnSync(program, ["--version"], { stdio: "ignore" }).error !== undefined) return `that takes ${program}`;
	}
	try {
		fetchMusl(folder);
		return undefined;
	} catch {
		return "no musl for i386 can be fetched with this computer's apt";
	}
}

describe.skipIf(missing !== undefined)(`a minirootfs (${missing ?? "with musl and apk"})`, () => {
	let repository: ApkRepository;
	let port: number;
	let web: ReturnType<typeof spawn>;
	let hello: ApkPackage;
	const lines: string[] = [];

	beforeAll(async () => {
		mkdirSync(home);
		repository = new ApkRepository(join(folder, "repository"));
		hello = {
			name: "hello",
			version: "1.2-r3",
			files: {
				"usr/bin/hello": compileWithMusl(folder, PROGRAM),
				"etc/hello.conf": "greeting=hello\n",
			},
		};
		repository.add(hello);
		repository.add({ name: "broken", version: "1-r0", files: { "usr/bin/broken": "never seen\n".repeat(50) } });
		[port = 0] = await freePorts(1);
		web = spawn("busybox", ["httpd", "-f", "-p", `127.0.0.1:${port}`, "-h", repository.folder], { stdio: "ignore" });
		const tiny = await loadImage(home, "tiny");
		const applets = [...parseFsJson(readFileSync(tiny.treePath, "utf8"), tiny.treePath).entries()].flatMap(
			([path, node]) => (node.kind === "symlink" && node.target.endsWith("busybox") ? [path] : []),
		);
		const busybox = parseFsJson(readFileSync(tiny.treePath, "utf8"), tiny.treePath).resolve("bin/sh");
		if (busybox?.kind !== "file") throw new Error("tiny has no busybox");
		makeMinirootfs(folder, {
			busybox: join(tiny.filesPath, busybox.sha256),
			applets,
			publicKey: repository.publicKey,
			repository: `http://${GATEWAY}:${port}`,
		});
	});
	afterAll(() => {
		web?.kill();
		rmSync(folder, { recursive: true, force: true });
	});

	async function build(recipe: object): Promise<void> {
		const path = join(folder, "mini.json");
		rmSync(join(folder, "mini.lock.json"), { force: true });
		writeFileSync(path, JSON.stringify({ name: "mini", from: "tar:minirootfs.tar.gz", memory_mib: 128, ...recipe }));
		const config = configSchema.parse({ home, hostPort: [String(port)] });
		await buildImage(home, path, {
			log: silentLog,
			openNetwork: () => openBuildNetwork(config, silentLog),
			onLine: (line) => lines.push(line),
		});
	}

	it("becomes an image whose packages apk fetched, checked and installed", async () => {
		await build({ packages: ["hello"], run: ["hello > /root/said"], warm: ["hello"] });
		expect(lines).toContain("Installing hello (1.2-r3)");
		const manifest = await readManifest(join(imageFolders(home).images, "mini", "manifest.json"));
		expect(manifest?.packages).toEqual([{ name: "hello", version: "1.2-r3" }]);
		expect(manifest?.lock.installed).toEqual([{ name: "hello", version: "1.2-r3" }]);
	});

	it("boots, gets its lease, runs what was installed, and keeps it over a snapshot into a new machine", async () => {
		const options: GuestOptions = {
			image: "mini",
			imageHome: home,
			network: { network: "relay", hostPort: [String(port)] },
		};
		const snapshots = await openSnapshotStore(join(home, "snapshots"), silentLog);
		const first = await startGuest(options);
		let id: string;
		try {
			expect((await first.run("cat /etc/alpine-release /root/said; hello")).stdout).toBe(
				"3.21.0\nhello from musl\nhello from musl\n",
			);
			const lease = await first.run("udhcpc -i eth0 -n -q -s /bin/true 2>&1");
			expect(lease.stdout).toMatch(/lease of 10\.0\.2\.15 obtained/);
			await first.run("apk add hello >/root/again; V=kept");
			id = (await first.machine.save((saved) => snapshots.save(saved, {}))).header.id;
		} finally {
			await first.dispose();
		}
		const second = await startGuest(options);
		try {
			const opened = await snapshots.open(id);
			await second.machine.restore(opened);
			await opened.close();
			expect((await second.run("tail -1 /root/again; echo $V; hello")).stdout).toBe(
				"OK: 2 packages\nkept\nhello from musl\n",
			);
		} finally {
			await second.dispose();
			snapshots.close();
		}
	});

	it("whose package is damaged, or signed by nobody known, is not built, and the image that was there stays", async () => {
		const before = await loadImage(home, "mini");
		repository.damage({ name: "broken", version: "1-r0", files: {} });
		await expect(build({ packages: ["broken"] })).rejects.toThrow(/broken: BAD data/);
		await expect(build({ packages: ["nothing"] })).rejects.toThrow(/unable to select packages: nothing/);
		const stranger = new ApkRepository(join(folder, "stranger"));
		stranger.add(hello);
		execFileSync("cp", ["-r", join(stranger.folder, "x86"), repository.folder]);
		await expect(build({ packages: ["hello"], run: ["true"], env: { ANEW: "1" } })).rejects.toThrow(/BAD signature/);
		expect(await loadImage(home, "mini")).toEqual(before);
	});
});

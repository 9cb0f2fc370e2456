/** Foreign userlands as they come: a root as a tar and what v86's tools write become machines, with no file of them changed. */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildImage } from "../../src/image/build.js";
import { parseFsJson } from "../../src/image/fs-json.js";
import { loadImage } from "../../src/image/store.js";
import type { TreeNode } from "../../src/image/tree.js";
import { silentLog } from "../../src/log.js";
import { GATEWAY, type HostService, sha256, startWebServer } from "../guest/network-support.js";
import { type Guest, startGuest } from "../guest/support.js";

let folder: string;
let home: string;
let web: HostService;
/** The entries of image tiny, whose files are real programs for the guest. */
let entries: [path: string, node: TreeNode][];
let contents: string;
beforeAll(async () => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-userland-"));
	home = join(folder, "home");
	mkdirSync(home);
	web = await startWebServer();
	const { treePath, filesPath } = await loadImage(home, "tiny");
	entries = [...parseFsJson(readFileSync(treePath, "utf8"), treePath).entries()];
	contents = filesPath;
});
afterAll(() => {
	web.close();
	rmSync(folder, { recursive: true, force: true });
});

async function build(name: string, from: string): Promise<void> {
	writeFileSync(join(folder, `${name}.json`), JSON.stringify({ name, from, memory_mib: 128 }));
	await buildImage(home, join(folder, `${name}.json`), { log: silentLog });
}

/** Boots, gets its lease from the relay as any client does, speaks to the host, and goes back to a saved state. */
async function expectMachine(guest: Guest): Promise<void> {
	const lease = await guest.run("ip addr flush dev eth0; udhcpc -i eth0 -n -q -s /bin/true 2>&1");
	expect(lease.stdout).toMatch(/lease of 10\.0\.2\.15 obtained/);
	await guest.run("ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2");
	const fetched = await guest.run(`wget -q -O - http://${GATEWAY}:${web.port}/65536 | sha256sum | cut -c1-64`);
	expect(fetched).toMatchObject({ exitCode: 0, stderr: "" });
	await guest.run("echo kept > /root/file; V=kept");
	const saved = await guest.machine.save(async ({ state, ...header }) => {
		const chunks: Buffer[] = [];
		for await (const chunk of state) chunks.push(Buffer.from(chunk));
		return { header, chunks };
	});
	await guest.run("rm -rf /root /usr/bin/wget; V=lost");
	await guest.machine.restore({
		...saved.header,
		state: (async function* () {
			yield* saved.chunks;
		})(),
	});
	expect((await guest.run("cat /root/file; echo $V; ls /usr/bin/wget")).stdout).toBe("kept\nkept\n/usr/bin/wget\n");
}

const start = (image: string) =>
	startGuest({ image, imageHome: home, network: { network: "relay", hostPort: [String(web.port)] } });

describe("a root as a tar, as docker export and Alpine's minirootfs have it", () => {
	it("becomes a machine", async () => {
		const root = join(folder, "root");
		for (const [path, node] of entries) {
			const target = join(root, path);
			if (node.kind === "directory") mkdirSync(target, { recursive: true });
			else if (node.kind === "symlink") execFileSync("ln", ["-s", node.target, target]);
			else writeFileSync(target, readFileSync(join(contents, node.sha256)), { mode: node.mode });
		}
		const options = ["--owner=0", "--group=0", "--mtime=@1700000000", "-C", root];
		// Only root can make a device; Alpine's archive has some.
		if (process.getuid?.() === 0) {
			mkdirSync(join(root, "dev"), { recursive: true });
			spawnSync("mknod", [join(root, "dev", "null"), "c", "1", "3"]);
		}
		execFileSync("tar", [...options, "-czf", join(folder, "root.tar.gz"), "."]);
		await build("from-tar", "tar:root.tar.gz");
		const guest = await start("from-tar");
		try {
			await expectMachine(guest);
		} finally {
			await guest.dispose();
		}
	});
});

/** As fs2json.py and copy-to-sha256.py have it, without and with --zstd. */
describe.each([".bin", ".bin.zst"])("what v86's Docker tools write, as %s", (suffix) => {
	it("becomes a machine", async ({ skip }) => {
		if (suffix === ".bin.zst" && spawnSync("zstd", ["--version"]).error !== undefined)
			skip("the program zstd is missing");
		const name = `v86${suffix.replaceAll(".", "-")}`;
		const flat = join(folder, name);
		mkdirSync(flat);
		type Entry = [string, number, number, number, number, number, (string | Entry[])?];
		const fsroot: Entry[] = [];
		const folders = new Map<string, Entry[]>([["", fsroot]]);
		for (const [path, node] of entries) {
			const [, parent = "", base = ""] = /^(?:(.*)\/)?([^/]*)$/.exec(path) ?? [];
			const list = folders.get(parent);
			const common = [1_700_000_000, node.mode, node.uid, node.gid] as const;
			const typed = (bits: number) => [common[0], common[1] | bits, common[2], common[3]] as const;
			if (node.kind === "directory") {
				const children: Entry[] = [];
				folders.set(path, children);
				list?.push([base, 0, ...typed(0o040000), children]);
			} else if (node.kind === "symlink") {
				list?.push([base, 0, ...typed(0o120000), node.target]);
			} else {
				const bytes = readFileSync(join(contents, node.sha256));
				const file = `${sha256(bytes).slice(0, 8)}${suffix}`;
				const isPacked = suffix.endsWith(".zst");
				writeFileSync(join(flat, file), isPacked ? execFileSync("zstd", ["-19", "-c"], { input: bytes }) : bytes);
				list?.push([base, bytes.length, ...typed(0o100000), file]);
			}
		}
		writeFileSync(join(folder, `${name}-fs.json`), JSON.stringify({ fsroot, version: 3, size: 1 }));
		await build(name, `v86:${name}-fs.json+${name}`);
		const guest = await start(name);
		try {
			await expectMachine(guest);
		} finally {
			await guest.dispose();
		}
	});
});

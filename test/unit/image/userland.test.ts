import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { applyTarLayer } from "../../../src/image/tar-layer.js";
import { Tree } from "../../../src/image/tree.js";
import { checkUserland, packageManagerOf } from "../../../src/image/userland.js";
import { type Entry, elfHeader, inPieces, tarOf, Workplace } from "./archive-support.js";

let place: Workplace;
beforeEach(() => {
	place = new Workplace();
});
afterEach(() => place.remove());

async function treeOf(entries: readonly Entry[]): Promise<Tree> {
	const tree = new Tree();
	const tar = inPieces(await tarOf(entries));
	await applyTarLayer(tree, place.store, tar, { source: "test", whiteouts: false, directorySymlinks: "replace" });
	return tree;
}

const check = async (entries: readonly Entry[]) => await checkUserland(await treeOf(entries), place.store);

const I386 = elfHeader(false, 3);

describe("a userland fits", () => {
	it("with a shell for 32-bit x86", async () => {
		await check([{ name: "bin/sh", content: I386 }]);
	});

	it("with links to its busybox, through folders that are links, too", async () => {
		await check([
			{ name: "usr/bin/busybox", content: I386 },
			{ name: "bin", type: "symlink", linkname: "usr/bin" },
			{ name: "usr/bin/sh", type: "symlink", linkname: "/bin/busybox" },
		]);
	});

	it("with a script that a fitting program runs", async () => {
		await check([
			{ name: "bin/sh", content: "#! /bin/busybox sh\n" },
			{ name: "bin/busybox", content: I386 },
		]);
	});
});

describe("a userland is refused", () => {
	const cases: [string, readonly Entry[], RegExp][] = [
		["without a shell", [{ name: "app", content: I386 }], /there is no \/bin\/sh/],
		[
			"for x86-64",
			[{ name: "bin/sh", content: elfHeader(true, 62) }],
			/\/bin\/sh is for x86-64 \(amd64\); the machine is 32-bit x86/,
		],
		["for x32", [{ name: "bin/sh", content: elfHeader(false, 62) }], /32-bit pointers/],
		["for ARM", [{ name: "bin/sh", content: elfHeader(true, 183) }], /64-bit ARM \(arm64\)/],
		["for a big-endian machine", [{ name: "bin/sh", content: elfHeader(true, 22, false) }], /s390x/],
		["for a machine without a name here", [{ name: "bin/sh", content: elfHeader(false, 77) }], /ELF's number 77/],
		["with a shell of text", [{ name: "bin/sh", content: "echo\n".repeat(20) }], /no ELF header/],
		["with an empty shell", [{ name: "bin/sh" }], /no ELF header/],
		["with a dangling shell", [{ name: "bin/sh", type: "symlink", linkname: "dash" }], /a link to "dash"/],
		["with a folder as its shell", [{ name: "bin/sh", type: "directory" }], /is a folder/],
		["with a script of no program", [{ name: "bin/sh", content: "#!/bin/ash\n" }], /there is no \/bin\/ash/],
		["with a script of itself", [{ name: "bin/sh", content: "#!/bin/sh\n" }], /interpreters are scripts/],
	];
	for (const [what, entries, message] of cases) {
		it(what, async () => {
			await expect(check(entries)).rejects.toMatchObject({ code: "build-failed", message });
		});
	}

	it("in a circle of links", async () => {
		await expect(check([{ name: "bin/sh", type: "symlink", linkname: "sh" }])).rejects.toMatchObject({
			name: "SandboxError",
		});
	});
});

describe("the package manager", () => {
	it("is told by its program", async () => {
		expect(packageManagerOf(await treeOf([{ name: "sbin/apk", content: "x" }]))).toBe("apk");
		expect(packageManagerOf(await treeOf([{ name: "usr/bin/apt-get", content: "x" }]))).toBe("apt");
		expect(packageManagerOf(await treeOf([{ name: "etc/alpine-release", content: "3" }]))).toBeUndefined();
	});
});

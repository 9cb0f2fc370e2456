import { mkdirSync } from "node:fs";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SandboxError } from "../../src/errors.js";
import { decompress } from "../../src/image/decompress.js";
import { applyTarLayer } from "../../src/image/tar-layer.js";
import { Tree } from "../../src/image/tree.js";
import { type Entry, inPieces, paxHeader, tarOf, Workplace } from "../unit/image/archive-support.js";

const RUNS = 600;

let place: Workplace;
beforeEach(() => {
	place = new Workplace();
	mkdirSync(place.store.folder, { recursive: true });
});
afterEach(() => place.remove());

const ENTRIES: readonly Entry[] = [
	{ name: "./", type: "directory" },
	{ name: "./bin/busybox", mode: 0o755, content: "busybox".repeat(300) },
	{ name: "./bin/sh", type: "symlink", linkname: "/bin/busybox" },
	{ name: "./bin/ash", type: "link", linkname: "./bin/busybox" },
	{ name: `./usr/${"long/".repeat(40)}name`, content: "x", pax: { comment: "of pax" } },
	{ name: "./lib", type: "symlink", linkname: "usr/long" },
	{ name: "./lib/file", content: "below a link" },
	{ name: "./dev/null", type: "character-device", devmajor: 1, devminor: 3 },
	{ name: "./run/pipe", type: "fifo" },
	{ name: "./etc/.wh.gone" },
	{ name: "./usr/.wh..wh..opq" },
	// Larger than what is held in memory.
	{ name: "./large", content: Buffer.alloc(1_100_000, "large") },
];

/** Where a header's fields lie in its block (POSIX ustar): offset and length. */
const FIELDS: readonly (readonly [number, number])[] = [
	[0, 100],
	[100, 8],
	[108, 8],
	[124, 12],
	[136, 12],
	[156, 1],
	[157, 100],
	[257, 8],
	[345, 155],
];

/** Bytes that mean something to a tar: digits, slashes, dots, flags of types, base-256. */
const telling = fc.constantFrom(0, 0x2e, 0x2f, 0x30, 0x31, 0x37, 0x4b, 0x4c, 0x53, 0x67, 0x78, 0x80, 0xa0, 0xff);

const change = fc.record({
	/** Which block, as a share of all. */
	where: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
	how: fc.oneof(
		{
			weight: 6,
			arbitrary: fc.record({
				field: fc.nat(FIELDS.length - 1),
				bytes: fc.array(fc.oneof(telling, fc.nat(255)), { minLength: 1, maxLength: 12 }),
				fixSum: fc.constantFrom(true, true, true, false),
			}),
		},
		{ weight: 1, arbitrary: fc.constantFrom("remove" as const, "double" as const, "cut" as const, "pax" as const) },
	),
});

function mutate(tar: Buffer, changes: readonly (typeof change extends fc.Arbitrary<infer T> ? T : never)[]): Buffer {
	const blocks: Buffer[] = [];
	for (let at = 0; at < tar.length; at += 512) blocks.push(Buffer.from(tar.subarray(at, at + 512)));
	for (const { where, how } of changes) {
		// Headers are what matters: the first blocks, where few are contents.
		const at = Math.floor(where * Math.min(blocks.length, 40));
		const block = blocks[at];
		if (block === undefined) continue;
		if (how === "remove") blocks.splice(at, 1);
		else if (how === "double") blocks.splice(at, 0, block);
		else if (how === "cut") blocks[at] = block.subarray(0, Math.floor(where * 512));
		else if (how === "pax") blocks.splice(at, 0, paxHeader({ path: "../x", size: "-7", "GNU.sparse.major": "1" }));
		else {
			if (block.length < 512) continue;
			const [offset, length] = FIELDS[how.field] ?? [0, 1];
			block.set(how.bytes.slice(0, length), offset);
			if (how.fixSum) {
				block.fill(" ", 148, 156);
				const sum = block.reduce((total, byte) => total + byte, 0);
				block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
			}
		}
	}
	return Buffer.concat(blocks);
}

describe("archives grown from a real one", () => {
	it("are taken or refused with a SandboxError, and nothing half written is left", async () => {
		const tar = await tarOf(ENTRIES);
		let taken = 0;
		let refused = 0;
		await fc.assert(
			fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 6 }), fc.boolean(), async (changes, isPacked) => {
				const mutant = mutate(tar, changes);
				const bytes = inPieces(isPacked ? gzipSync(mutant, { level: 1 }) : mutant, 30_000);
				const tree = new Tree();
				try {
					await applyTarLayer(tree, place.store, decompress(bytes, "mutant"), {
						source: "mutant",
						whiteouts: true,
						directorySymlinks: "replace",
					});
					taken++;
				} catch (error) {
					expect(error).toBeInstanceOf(SandboxError);
					refused++;
				}
				for (const [path, node] of tree.entries()) {
					expect(path.split("/")).not.toContain("..");
					if (node.kind === "file") expect(await place.store.has(node.sha256)).toBe(true);
				}
				expect(place.leftovers()).toEqual([]);
			}),
			{ seed: 86, numRuns: RUNS },
		);
		// It got past the first look both ways.
		expect(taken).toBeGreaterThan(20);
		expect(refused).toBeGreaterThan(20);
	}, 120_000);

	it("are refused with a SandboxError where packed bytes are damaged", async () => {
		const packed = gzipSync(await tarOf(ENTRIES));
		const damage = fc.array(fc.tuple(fc.nat(packed.length - 1), fc.nat(255)), { minLength: 1, maxLength: 5 });
		await fc.assert(
			fc.asyncProperty(damage, async (changes) => {
				const mutant = Buffer.from(packed);
				for (const [at, byte] of changes) mutant[at] = byte;
				const tar = decompress(inPieces(mutant, 500), "mutant");
				const options = { source: "mutant", whiteouts: false, directorySymlinks: "replace" } as const;
				const failure = await applyTarLayer(new Tree(), place.store, tar, options).then(
					() => undefined,
					(error: unknown) => error,
				);
				if (failure !== undefined) expect(failure).toBeInstanceOf(SandboxError);
				expect(place.leftovers()).toEqual([]);
			}),
			{ seed: 86, numRuns: RUNS },
		);
	}, 120_000);
});

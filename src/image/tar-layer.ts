// A tar stream laid over a tree: .deb contents, OCI image layers and the changes that a guest exports.
// Whiteouts as in the OCI image specification, "Representing Changes": `.wh.NAME` removes NAME, `.wh..wh..opq` empties
// its folder of what lower layers put there.

import { extract, type Header } from "tar-stream";
import { SandboxError } from "../errors.js";
import { escapeControls } from "../log.js";
import type { ContentStore } from "./content-store.js";
import { limits } from "./limits.js";
import { type Attributes, directory, splitPath, type Tree, type TreeNode } from "./tree.js";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";

export interface LayerOptions {
	/** What the stream is, for errors: "bash_5.2_i386.deb", "layer sha256:…". */
	readonly source: string;
	/** Obey OCI whiteouts. Otherwise such names are ordinary files. */
	readonly whiteouts: boolean;
	/**
	 * A folder of the layer that meets a symbolic link to a folder: "follow" keeps the link (dpkg), "replace" puts the
	 * folder in its place (OCI).
	 */
	readonly directorySymlinks: "follow" | "replace";
	/** True leaves the entry out. `path` has no leading slash. */
	readonly exclude?: (path: string, kind: "directory" | "file" | "symlink") => boolean;
	/** Called for every entry of the stream, also an excluded one; a folder, file, link or hard link. */
	readonly onEntry?: (path: string) => void;
	readonly maxBytes?: number;
	readonly maxEntries?: number;
}

export interface LayerSummary {
	readonly entries: number;
	/** Bytes of all files. */
	readonly bytes: number;
	/** Paths of FIFOs, and of devices in dev/, which were left out: a guest makes its own. */
	readonly skipped: readonly string[];
}

/**
 * Lays the stream over the tree. Throws SandboxError("corrupt") on whatever an honest tar does not hold; the tree is
 * then half changed and must be dropped. Nothing outside the tree and the store is ever touched.
 */
export async function applyTarLayer(
	tree: Tree,
	store: ContentStore,
	tar: AsyncIterable<Uint8Array>,
	options: LayerOptions,
): Promise<LayerSummary> {
	const maxEntries = options.maxEntries ?? limits.maxTreeEntries;
	const maxBytes = options.maxBytes ?? limits.maxLayerBytes;
	const refuse = (what: string) => new SandboxError("corrupt", escapeControls(`${options.source}: ${what}`));
	const placed = new WeakSet<TreeNode>();
	/** Folders that hold nothing of lower layers any more. */
	const emptied = new WeakSet<TreeNode>();
	const skipped: string[] = [];
	let entries = 0;
	let bytes = 0;

	/** What the tree refuses is told as the archive's fault. */
	const inTree = <T>(work: () => T): T => {
		try {
			return work();
		} catch (error) {
			throw error instanceof SandboxError ? refuse(error.message) : error;
		}
	};
	const ensureParent = (path: string) => {
		const parent = splitPath(path).slice(0, -1).join("/");
		inTree(() => tree.makeDirectory(parent));
	};
	const place = (path: string, node: TreeNode) => {
		ensureParent(path);
		inTree(() => tree.set(path, node));
		placed.add(node);
	};
	const placeDirectory = (path: string, attributes: Attributes) => {
		ensureParent(path);
		const known = inTree(() => tree.get(path));
		const isFollowed = known?.kind === "symlink" && options.directorySymlinks === "follow";
		const followed = isFollowed ? inTree(() => tree.resolve(path)) : known;
		if (followed?.kind === "directory") {
			// dpkg leaves a folder that a link leads to as it is.
			if (followed === known) Object.assign(followed, attributes);
			placed.add(followed);
			return;
		}
		const made = directory(attributes);
		inTree(() => tree.set(path, made));
		placed.add(made);
	};

	const stream = bounded(tar, () => refuse(`a stream of more than ${limits.maxLayerStreamBytes} bytes`));
	for await (const { header, read, skip } of readTar(stream, options.source)) {
		if (++entries > maxEntries) throw refuse(`more than ${maxEntries} entries`);
		const path = checkName(header.name, refuse);
		const name = path.slice(path.lastIndexOf("/") + 1);
		const attributes = attributesOf(header);
		if (options.whiteouts && name.startsWith(WHITEOUT)) {
			const folder = path.slice(0, path.length - name.length);
			if (name === OPAQUE) {
				const at = inTree(() => tree.resolve(folder));
				if (at?.kind === "directory" && !emptied.has(at)) {
					emptied.add(at);
					for (const [child, node] of at.children) if (!placed.has(node)) at.children.delete(child);
				}
			} else {
				const target = name.slice(WHITEOUT.length);
				if (target === "" || target === "." || target === "..") throw refuse(`a whiteout of ${JSON.stringify(target)}`);
				const victim = inTree(() => tree.get(folder + target));
				if (victim !== undefined && !placed.has(victim)) tree.remove(folder + target);
			}
			await skip();
			continue;
		}
		for (const record in header.pax ?? {}) {
			if (record.startsWith("GNU.sparse.")) throw refuse(`${shown(path)} is a sparse file, which is not read`);
		}
		switch (header.type) {
			case "directory":
				if (path === "") {
					tree.setDirectoryAttributes("", attributes);
				} else {
					options.onEntry?.(path);
					if (options.exclude?.(path, "directory") !== true) placeDirectory(path, attributes);
				}
				await skip();
				break;
			case "file":
			case "contiguous-file": {
				if (path === "") throw refuse("the root is a file");
				const size = header.size ?? 0;
				bytes += size;
				if (bytes > maxBytes) throw refuse(`more than ${maxBytes} bytes of files`);
				options.onEntry?.(path);
				if (options.exclude?.(path, "file") === true) {
					await skip();
					break;
				}
				const stored = await store.putStream(read());
				place(path, { kind: "file", ...attributes, ...stored });
				break;
			}
			case "symlink": {
				if (path === "") throw refuse("the root is a link");
				const target = header.linkname ?? "";
				if (target === "" || Buffer.byteLength(target) > limits.maxPathBytes || target.includes("\0")) {
					throw refuse(`${path}: not a link target: ${JSON.stringify(target.slice(0, 80))}`);
				}
				options.onEntry?.(path);
				if (options.exclude?.(path, "symlink") !== true)
					place(path, { kind: "symlink", ...attributes, mode: 0o777, target });
				await skip();
				break;
			}
			case "link": {
				const from = checkName(header.linkname ?? "", refuse);
				options.onEntry?.(path);
				if (options.exclude?.(path, "file") !== true) {
					const origin = inTree(() => tree.get(from));
					if (origin === undefined || origin.kind === "directory") {
						throw refuse(`${path} is a hard link to ${JSON.stringify(from)}, which is no file of the archive`);
					}
					place(path, { ...origin });
				}
				await skip();
				break;
			}
			case "character-device":
			case "block-device":
				if (!path.startsWith("dev/")) {
					throw refuse(`${shown(path)} is a device, and an image can have none outside of dev/`);
				}
				skipped.push(path);
				await skip();
				break;
			case "fifo":
				skipped.push(path);
				await skip();
				break;
			default:
				throw refuse(
					`${shown(path)} is of a type that is not read: a sparse file, a part of one, or no standard entry`,
				);
		}
	}
	return { entries, bytes, skipped };
}

function attributesOf(header: Header): Attributes {
	const whole = (value: number | undefined) => {
		const integer = Math.trunc(value ?? 0);
		return Number.isSafeInteger(integer) && integer >= 0 && integer < 2 ** 32 ? integer : 0;
	};
	return {
		mode: whole(header.mode) & 0o7777,
		uid: whole(header.uid),
		gid: whole(header.gid),
		mtime: whole(header.mtime === undefined ? 0 : header.mtime.getTime() / 1000),
	};
}

/** The entry's path without a leading "./" and a trailing "/"; the root is "". */
function checkName(name: string, refuse: (what: string) => SandboxError): string {
	if (name.startsWith("/")) throw refuse(`the name ${shown(name)} is absolute`);
	if (name.includes("\0")) throw refuse(`the name ${shown(name)} holds a NUL`);
	if (Buffer.byteLength(name) > limits.maxPathBytes)
		throw refuse(`a name longer than ${limits.maxPathBytes} bytes: ${shown(name)}`);
	const parts = splitPath(name);
	for (const part of parts) {
		if (part === "..") throw refuse(`the name ${shown(name)} leads out of its folder`);
		if (Buffer.byteLength(part) > limits.maxNameBytes)
			throw refuse(`a component longer than ${limits.maxNameBytes} bytes: ${shown(name)}`);
	}
	return parts.join("/");
}

/** A name for an error: short, and without control characters. */
function shown(name: string): string {
	return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);
}

async function* bounded(tar: AsyncIterable<Uint8Array>, tooLong: () => SandboxError): AsyncGenerator<Uint8Array> {
	let bytes = 0;
	for await (const chunk of tar) {
		bytes += chunk.length;
		if (bytes > limits.maxLayerStreamBytes) throw tooLong();
		yield chunk;
	}
}

interface TarEntry {
	readonly header: Header;
	/** The entry's bytes; must be read to the end, or `skip` called. */
	read(): AsyncIterable<Uint8Array>;
	skip(): Promise<void>;
}

/** The entries of a tar stream. A stream that stops before its end is an error, as is one that is no tar. */
export async function* readTar(tar: AsyncIterable<Uint8Array>, source: string): AsyncGenerator<TarEntry> {
	const parser = extract();
	let upstream: { error: unknown } | undefined;
	let seen = 0;
	/** Where the data of the last entry ends. */
	let dataEnd = 0;
	/** Bytes of headers that may still come: reading them costs many times what their bytes do. */
	let headerAllowance = limits.tarHeaderFreeBytes;
	let zeroTail = 0;
	const bad = (reason: string) => new SandboxError("corrupt", `${source} is no whole tar archive: ${reason}`);
	const feeding = (async () => {
		try {
			for await (const chunk of tar) {
				seen += chunk.length;
				if (seen - chunk.length - dataEnd > limits.maxTarGapBytes) {
					throw bad(`more than ${limits.maxTarGapBytes} bytes of headers or zeros on end`);
				}
				zeroTail = countZeroTail(chunk, zeroTail);
				const hasRoom = parser.write(chunk);
				if (!hasRoom && !parser.destroying) await new Promise<void>((resolve) => onceDrained(parser, resolve));
				if (parser.destroying) return;
			}
			parser.end(null);
		} catch (error) {
			upstream = { error };
			parser.destroy(error instanceof Error ? error : new Error(String(error)));
		}
	})();
	const fail = (error: unknown) =>
		upstream !== undefined
			? upstream.error
			: error instanceof SandboxError
				? error
				: bad(error instanceof Error ? error.message : String(error));
	const iterator = parser[Symbol.asyncIterator]();
	try {
		for (;;) {
			let next: Awaited<ReturnType<typeof iterator.next>>;
			try {
				next = await iterator.next();
			} catch (error) {
				throw fail(error);
			}
			if (next.done === true) break;
			const entry = next.value;
			const header = entry.header;
			const { type, size, byteOffset } = header as Header & { byteOffset: number };
			// tar-stream lets some through that are none, and then waits for ever.
			if (!Number.isSafeInteger(size) || size === undefined || size < 0) throw bad("an entry whose size is no number");
			headerAllowance += limits.tarHeaderBytesPerEntry - (byteOffset - dataEnd);
			if (headerAllowance < 0) throw bad("its headers have more bytes than names and attributes need");
			dataEnd = byteOffset + (type === "directory" ? 0 : size);
			if (Object.keys(header.pax ?? {}).length > limits.maxPaxRecords) {
				throw bad(`an entry with more than ${limits.maxPaxRecords} attributes`);
			}
			// What has no bytes need not be read: an iterator costs more than all else of an entry.
			const isEmpty = dataEnd === byteOffset;
			const read = async function* () {
				if (isEmpty) return;
				try {
					for await (const chunk of entry) yield chunk as Uint8Array;
				} catch (error) {
					throw fail(error);
				}
			};
			const skip = async () => {
				if (isEmpty) return;
				for await (const _ of read()) {
					// The bytes are not wanted.
				}
			};
			yield { header, read, skip };
		}
		if (upstream !== undefined) throw upstream.error;
		// Two blocks of zeros end an archive (POSIX ustar); a stream cut between two entries has none.
		if (seen === 0 || zeroTail < 1024) throw bad("its end is missing");
	} finally {
		parser.destroy();
		await feeding;
	}
}

function onceDrained(parser: ReturnType<typeof extract>, resolve: () => void): void {
	const done = () => {
		parser.off("drain", done);
		parser.off("close", done);
		resolve();
	};
	parser.on("drain", done);
	parser.on("close", done);
}

function countZeroTail(chunk: Uint8Array, before: number): number {
	let zeros = 0;
	for (let at = chunk.length - 1; at >= 0 && chunk[at] === 0 && zeros < 1024; at--) zeros++;
	return zeros === chunk.length ? before + zeros : zeros;
}

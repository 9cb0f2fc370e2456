/** A file that exportImage wrote, or that says so: nothing in it is believed before it is checked. */

import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rm, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";
import { escapeControls, type Log } from "../log.js";
import { bootSnapshotName } from "../vm/boot-snapshot.js";
import { emulatorVersion } from "../vm/emulator-version.js";
import { readSnapshotHeader } from "../vm/snapshot/file.js";
import { ByteProgress } from "./byte-progress.js";
import { ContentStore } from "./content-store.js";
import { decompress } from "./decompress.js";
import { diskError, writeAll } from "./disk.js";
import {
	type ExportHeader,
	HEADER_ENTRY,
	MANIFEST_ENTRY,
	parseExportHeader,
	parseForeignTree,
	sortedContents,
	TREE_ENTRY,
} from "./export-format.js";
import { requireFreeSpace } from "./free-space.js";
import { checkImageName } from "./image-name.js";
import { removeLeftovers } from "./leftovers.js";
import { limits } from "./limits.js";
import { type ImageManifest, readManifest } from "./manifest.js";
import { acquireLock } from "./process-lock.js";
import type { Progress } from "./progress.js";
import { ProgressFile } from "./progress-file.js";
import { commitImage, imageDigest, imageFolders, TINY } from "./store.js";
import { readTar } from "./tar-layer.js";

/** Room beside what an image's files take, bytes. */
const SPARE_BYTES = 16 * 1024 * 1024;
const TAR_BLOCK_BYTES = 512;
const OUTCOMES = { none: "new", same: "rewritten", other: "replaced" } as const;

export interface ImportOptions {
	readonly log: Log;
	/** The name to give the image; without it, its own. */
	readonly name?: string;
	/** Refuse an image whose own name is another one. */
	readonly expectedName?: string;
	/** Replace an image of that name. */
	readonly force?: boolean;
	readonly signal?: AbortSignal;
	readonly onProgress?: (progress: Progress) => void;
}

export interface ImportedImage {
	readonly name: string;
	/**
	 * "present": the same image was here already, and nothing was changed; "rewritten": it was, and `force` was set;
	 * "replaced": another one was.
	 */
	readonly outcome: "new" | "replaced" | "rewritten" | "present";
	/** The digest that it has here. */
	readonly digest: string;
	readonly files: number;
	/** Bytes of its contents. */
	readonly bytes: number;
	/** Memory sizes of the boot snapshots that were taken over, MiB. */
	readonly bootSnapshots: readonly number[];
	/** Why boot snapshots of the file were left out; undefined where none was. */
	readonly bootSnapshotsLeftOut: string | undefined;
}

/**
 * Takes over the image of a file, under the lock that builds hold: it appears complete or not at all. Throws
 * SandboxError("corrupt") on whatever exportImage does not write, "already-exists" where another image has the name and
 * `force` is not set, "no-space" before anything is written where it can't fit.
 */
export async function importImage(home: string, path: string, options: ImportOptions): Promise<ImportedImage> {
	if (options.name !== undefined) checkTarget(options.name);
	const file = resolve(path);
	const fileBytes = await sizeOf(file);
	const { builds } = imageFolders(home);
	const lock = await acquireLock(join(builds, "lock"), options.name ?? options.expectedName ?? "an imported image", {
		...(options.signal === undefined ? {} : { signal: options.signal }),
		onWait: ({ purpose }) =>
			options.onProgress?.({
				phase: "waiting",
				stage: `another process builds or imports ${purpose}`,
				fraction: 0,
				etaMs: undefined,
				bytesPerSecond: undefined,
			}),
	});
	const progressFile = new ProgressFile(builds, options.log);
	const onProgress = (progress: Progress) => {
		options.onProgress?.(progress);
		progressFile.update(progress);
	};
	const staging = join(builds, `import-${randomBytes(6).toString("hex")}`);
	try {
		await removeLeftovers(builds);
		await mkdir(join(staging, "image"), { recursive: true });
		return await new Import(home, file, fileBytes, staging, options, onProgress).run();
	} catch (error) {
		throw diskError(home, error);
	} finally {
		await rm(staging, { recursive: true, force: true });
		await progressFile.end();
		await lock.release();
	}
}

class Import {
	readonly #home: string;
	readonly #file: string;
	readonly #staging: string;
	readonly #options: ImportOptions;
	readonly #progress: ByteProgress;
	readonly #entries: ReturnType<typeof readTar>;
	/** Bytes of tar that may come; the header says how many. */
	#allowedBytes = limits.maxExportHeaderBytes + limits.maxTarTailBytes;
	#stage = "reading";

	constructor(
		home: string,
		file: string,
		fileBytes: number,
		staging: string,
		options: ImportOptions,
		onProgress: (progress: Progress) => void,
	) {
		this.#home = home;
		this.#file = file;
		this.#staging = staging;
		this.#options = options;
		this.#progress = new ByteProgress(onProgress, "import", fileBytes);
		this.#entries = readTar(this.#tar(), file);
	}

	async run(): Promise<ImportedImage> {
		try {
			return await this.#run();
		} finally {
			await this.#entries.return(undefined);
		}
	}

	async #run(): Promise<ImportedImage> {
		const header = await this.#readHeader();
		const name = this.#options.name ?? header.name;
		checkTarget(name);
		this.#stage = `importing ${name}`;
		const manifestJson = await this.#readInto(MANIFEST_ENTRY, header.manifest);
		const treeJson = await this.#readInto(TREE_ENTRY, header.tree);
		const tree = parseForeignTree(treeJson, `${this.#file}: ${TREE_ENTRY}`);
		const contents = sortedContents(tree);
		const bytes = contents.reduce((sum, content) => sum + content.bytes, 0);
		if (contents.length !== header.contents.files || bytes !== header.contents.bytes) {
			throw this.#refuse(
				`it says that it has ${header.contents.files} contents of ${header.contents.bytes} bytes, ` +
					`its tree has ${contents.length} of ${bytes}`,
			);
		}
		await this.#placeManifest(name, header, manifestJson);
		await writeFile(join(this.#image, TREE_ENTRY), treeJson);

		const digest = await imageDigest(header.tree.sha256);
		const before = await this.#existing(name, header.tree.sha256);
		const result = { name, digest, files: contents.length, bytes };
		if (before === "same" && this.#options.force !== true) {
			return { ...result, outcome: "present", bootSnapshots: [], bootSnapshotsLeftOut: undefined };
		}
		await requireFreeSpace(this.#home, neededBytes(header), `the image ${name}`);
		const boot = await this.#readBootSnapshots(header, digest);
		const store = new ContentStore(join(this.#staging, "files"));
		for (const content of contents) await this.#readContent(content, store);
		await this.#readEnd();
		await commitImage(this.#home, name, this.#image, store);
		return { ...result, outcome: OUTCOMES[before], ...boot };
	}

	get #image(): string {
		return join(this.#staging, "image");
	}

	async #readHeader(): Promise<ExportHeader> {
		const entry = await this.#next();
		if (entry.header.name !== HEADER_ENTRY) {
			throw this.#refuse(`it is no exported image: it does not start with ${HEADER_ENTRY}`);
		}
		if (entry.header.size > limits.maxExportHeaderBytes) {
			throw this.#refuse(`${HEADER_ENTRY} is longer than ${limits.maxExportHeaderBytes} bytes`);
		}
		let value: unknown;
		try {
			value = JSON.parse(Buffer.concat(await collect(entry.read())).toString("utf8"));
		} catch (error) {
			if (!(error instanceof SyntaxError)) throw error;
			throw this.#refuse(`${HEADER_ENTRY} is no JSON`);
		}
		const header = parseExportHeader(value, (reason) => this.#refuse(reason));
		const { expectedName } = this.#options;
		if (expectedName !== undefined && header.name !== expectedName) {
			throw this.#refuse(`it is the image ${JSON.stringify(header.name)} instead of ${JSON.stringify(expectedName)}`);
		}
		this.#allowedBytes = tarBytes(header);
		return header;
	}

	/** The bytes of an entry that is small enough for memory. */
	async #readInto(name: string, expected: Expected): Promise<Buffer> {
		const hash = createHash("sha256");
		const chunks: Uint8Array[] = [];
		for await (const chunk of await this.#entry(name, expected.bytes)) {
			hash.update(chunk);
			chunks.push(chunk);
		}
		this.#check(name, expected, { bytes: expected.bytes, sha256: hash.digest("hex") });
		return Buffer.concat(chunks);
	}

	/** Writes the manifest, under the image's new name, and reads it as it will be read later. */
	async #placeManifest(name: string, header: ExportHeader, json: Buffer): Promise<void> {
		const path = join(this.#image, MANIFEST_ENTRY);
		await writeFile(path, json);
		let manifest: ImageManifest | undefined;
		try {
			manifest = await readManifest(path);
		} catch (error) {
			if (!(error instanceof SandboxError)) throw error;
			throw this.#refuse(error.message.replace(path, MANIFEST_ENTRY));
		}
		if (manifest?.name !== header.name || manifest.treeSha256 !== header.tree.sha256) {
			throw this.#refuse(`${MANIFEST_ENTRY} and ${HEADER_ENTRY} speak of different images`);
		}
		if (name === header.name) return;
		const value = JSON.parse(json.toString("utf8")) as Record<string, unknown>;
		await writeFile(path, `${JSON.stringify({ ...value, name }, undefined, "\t")}\n`);
	}

	async #existing(name: string, treeSha256: string): Promise<keyof typeof OUTCOMES> {
		const folder = join(imageFolders(this.#home).images, name);
		let found: ImageManifest | undefined;
		try {
			found = await readManifest(join(folder, "manifest.json"));
			if (found === undefined) return "none";
		} catch (error) {
			if (!(error instanceof SandboxError)) throw error;
		}
		if (found?.treeSha256 === treeSha256) return "same";
		if (this.#options.force === true) return "other";
		throw new SandboxError(
			"already-exists",
			found === undefined
				? `there is an image ${name} already, and it is damaged`
				: `there is another image ${name} already, created ${found.created.slice(0, 10)}`,
			"give this one another name with --name, or replace that one with --force: snapshots that were taken of its machine " +
				"then fit no more",
		);
	}

	async #readBootSnapshots(
		header: ExportHeader,
		digest: string,
	): Promise<Pick<ImportedImage, "bootSnapshots" | "bootSnapshotsLeftOut">> {
		const taken: number[] = [];
		let leftOut: string | undefined;
		if (header.bootSnapshots.length > 0) await mkdir(join(this.#image, "boot"));
		for (const expected of header.bootSnapshots) {
			const name = `boot/${bootSnapshotName(expected.memoryMiB)}`;
			const path = join(this.#image, name);
			const chunks = await this.#entry(name, expected.bytes);
			if (digest !== header.digest) {
				leftOut = "kernel, init or firmware of this program are others than where it was exported";
				this.#check(name, expected, await copy(chunks, undefined));
				continue;
			}
			this.#check(name, expected, await copy(chunks, path));
			const { header: saved } = await readSnapshotHeader(path).catch((error: unknown) => {
				if (!(error instanceof SandboxError)) throw error;
				throw this.#refuse(error.message.replace(path, name));
			});
			if (saved.imageDigest !== digest || saved.memoryMiB !== expected.memoryMiB) {
				throw this.#refuse(`${name} is a snapshot of another machine`);
			}
			if (saved.emulatorVersion === emulatorVersion()) {
				taken.push(expected.memoryMiB);
			} else {
				leftOut = `they are of v86 ${saved.emulatorVersion}, this program has ${emulatorVersion()}`;
				await rm(path);
			}
		}
		return { bootSnapshots: taken, bootSnapshotsLeftOut: leftOut };
	}

	async #readContent({ sha256, bytes }: Expected, store: ContentStore): Promise<void> {
		const name = `files/${sha256}`;
		const stored = await store.putStream(await this.#entry(name, bytes));
		this.#check(name, { sha256, bytes }, { sha256: stored.sha256, bytes: stored.sizeBytes });
	}

	async #readEnd(): Promise<void> {
		const next = await this.#entries.next();
		if (next.done === true) return;
		throw this.#refuse(`it has an entry too many: ${show(next.value.header.name)}`);
	}

	/** The bytes of the next entry, which must have this name and size. */
	async #entry(name: string, bytes: number): Promise<Chunks> {
		const { header, read } = await this.#next();
		if (header.name !== name) throw this.#refuse(`it has ${show(header.name)} where ${name} belongs`);
		if (header.size !== bytes) throw this.#refuse(`${name} has ${header.size} bytes instead of ${bytes}`);
		return read();
	}

	async #next() {
		if (this.#options.signal?.aborted === true) throw new SandboxError("cancelled", "the import was cancelled");
		const next = await this.#entries.next();
		if (next.done === true) throw this.#refuse("entries are missing at its end");
		const { header } = next.value;
		if (header.type !== "file") throw this.#refuse(`its entry ${show(header.name)} is a ${header.type}, not a file`);
		return next.value;
	}

	/** The decompressed bytes, never more than the header allows. */
	async *#tar(): AsyncGenerator<Uint8Array> {
		const compressed = this.#compressed();
		let bytes = 0;
		for await (const chunk of decompress(compressed, this.#file, Number.POSITIVE_INFINITY)) {
			bytes += chunk.length;
			if (bytes > this.#allowedBytes) {
				throw this.#refuse(`it swells to more than the ${this.#allowedBytes} bytes that it says it has`);
			}
			yield chunk;
		}
	}

	async *#compressed(): AsyncGenerator<Uint8Array> {
		for await (const chunk of createReadStream(this.#file, { highWaterMark: 256 * 1024 })) {
			if (this.#options.signal?.aborted === true) throw new SandboxError("cancelled", "the import was cancelled");
			this.#progress.advance((chunk as Buffer).length, this.#stage);
			yield chunk as Buffer;
		}
	}

	#check(name: string, expected: Expected, found: Expected): void {
		if (found.bytes !== expected.bytes) {
			throw this.#refuse(`${name} has ${found.bytes} bytes instead of ${expected.bytes}`);
		}
		if (found.sha256 !== expected.sha256) {
			throw this.#refuse(`${name} is damaged: its SHA-256 is ${found.sha256} instead of ${expected.sha256}`);
		}
	}

	#refuse(reason: string): SandboxError {
		return new SandboxError(
			"corrupt",
			`${this.#file} can't be imported: ${escapeControls(reason.slice(0, 500))}`,
			"nothing was changed; fetch or export the file again",
		);
	}
}

type Chunks = AsyncIterable<Uint8Array>;

interface Expected {
	readonly sha256: string;
	readonly bytes: number;
}

function checkTarget(name: string): void {
	checkImageName(name);
	if (name !== TINY) return;
	throw new SandboxError(
		"invalid-argument",
		"the image tiny is part of the package and cannot be replaced",
		"give the imported image another name with --name",
	);
}

async function sizeOf(file: string): Promise<number> {
	const found = await stat(file).catch((error: unknown) => {
		if (errnoOf(error) === "ENOENT") throw new SandboxError("not-found", `there is no file ${file}`);
		throw error;
	});
	if (!found.isFile()) throw new SandboxError("invalid-argument", `${file} is no file`);
	return found.size;
}

function neededBytes({ manifest, tree, bootSnapshots, contents }: ExportHeader): number {
	const boot = bootSnapshots.reduce((sum, { bytes }) => sum + bytes, 0);
	return manifest.bytes + tree.bytes + boot + contents.bytes + SPARE_BYTES;
}

/** The longest tar that holds what the header says. */
function tarBytes(header: ExportHeader): number {
	const entries = 3 + header.bootSnapshots.length + header.contents.files;
	const data = neededBytes(header) - SPARE_BYTES + limits.maxExportHeaderBytes;
	return data + entries * 2 * TAR_BLOCK_BYTES + limits.maxTarTailBytes;
}

async function collect(chunks: Chunks): Promise<Uint8Array[]> {
	const collected: Uint8Array[] = [];
	for await (const chunk of chunks) collected.push(chunk);
	return collected;
}

/** Copies the bytes into a new file, or nowhere, and says what they were. */
async function copy(chunks: Chunks, path: string | undefined): Promise<Expected> {
	const hash = createHash("sha256");
	let bytes = 0;
	const handle = path === undefined ? undefined : await open(path, "wx", 0o600);
	try {
		for await (const chunk of chunks) {
			hash.update(chunk);
			bytes += chunk.length;
			if (handle !== undefined) await writeAll(handle, chunk);
		}
	} finally {
		await handle?.close();
	}
	return { sha256: hash.digest("hex"), bytes };
}

function show(name: string): string {
	return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);
}

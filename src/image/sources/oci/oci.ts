/** Container images of a registry: `oci:REFERENCE`. */

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { z } from "zod";
import { SandboxError } from "../../../errors.js";
import { decompress } from "../../decompress.js";
import { mapParallel } from "../../download.js";
import { limits } from "../../limits.js";
import { formatBytes, type ProgressTracker } from "../../progress.js";
import type { Source, SourceContext, SourceTree } from "../../source.js";
import { applyTarLayer } from "../../tar-layer.js";
import { newestTime, Tree } from "../../tree.js";
import { dockerConfigPath } from "./credentials.js";
import { readConfig, readDocument } from "./manifest.js";
import { formatReference, isName, isSha256, parseReference } from "./reference.js";
import { Registry } from "./registry.js";

const digestSchema = z.string().refine(isSha256, 'must be "sha256:" and 64 digits of 0-9 a-f');

const lockSchema = z
	.strictObject({
		/** "docker.io", "localhost:5000". */
		registry: z.string(),
		/** "library/alpine". */
		repository: z.string(),
		/** Digest of the manifest for linux/386, not of the list that it was found in. */
		manifest: digestSchema,
		config: z.strictObject({ digest: digestSchema, sizeBytes: z.int().min(0) }),
		/** Bottom first. */
		layers: z
			.array(
				z.strictObject({
					digest: digestSchema,
					/** Compressed. */
					sizeBytes: z.int().min(0).max(limits.maxImageBytes),
					mediaType: z.string(),
					/** Digest of the uncompressed layer. */
					diffId: digestSchema,
				}),
			)
			.min(1)
			.max(limits.maxLayers),
		env: z.record(z.string(), z.string()),
		/** Newest date of the configuration and its history, seconds since 1970; 0 where they have none. */
		createdSeconds: z.int().min(0),
	})
	.refine((lock) => isName(lock), "registry and repository are no name of an image");

export type OciLock = z.infer<typeof lockSchema>;

/** How much of a layer is read from the disk at once, and how often progress is told. */
const READ_BYTES = 256 * 1024;
const REPORT_BYTES = 1024 * 1024;
const TAR_BLOCK_BYTES = 512;

type Layer = OciLock["layers"][number];

export interface OciSourceOptions {
	/** Docker's config.json, with users and passwords for registries. */
	readonly dockerConfigPath: string;
}

export function createOciSource(options: OciSourceOptions): Source<OciLock> {
	return {
		scheme: "oci",
		lockSchema,
		resolve: (reference, context) => resolve(reference, context, options),
		make: (lock, context) => make(lock, context, options),
	};
}

export const ociSource: Source<OciLock> = createOciSource({ dockerConfigPath: dockerConfigPath() });

async function resolve(text: string, context: SourceContext, options: OciSourceOptions): Promise<OciLock> {
	const reference = parseReference(text);
	const { registry, repository, tag, digest } = reference;
	const what = formatReference(reference);
	context.progress.update("index", 0, `asking ${registry} for ${repository}`);
	const source = new Registry({ registry, repository, downloader: context.downloader, ...options });
	let manifest: { bytes: Buffer; digest: string };
	if (digest !== undefined) manifest = { bytes: await source.fetchManifest({ digest }, what), digest };
	else manifest = await source.fetchTagged(tag ?? "latest", what);
	let document = readDocument(manifest.bytes, what);
	for (let depth = 0; document.kind === "index"; depth++) {
		if (depth === limits.maxIndexDepth) {
			throw new SandboxError("build-failed", `${what} has more than ${depth} lists of platforms inside one another`);
		}
		const { chosen } = document;
		const bytes = await source.fetchManifest(chosen, `${what}, manifest ${chosen.digest}`);
		manifest = { bytes, digest: chosen.digest };
		document = readDocument(bytes, what);
	}
	context.progress.update("index", 0.5, "reading the image's configuration");
	const { config, layers } = document;
	if (config.size > limits.maxImageConfigBytes) {
		throw new SandboxError(
			"build-failed",
			`the configuration of ${what} has ${config.size} bytes, ${limits.maxImageConfigBytes} are allowed`,
		);
	}
	const configBytes = await source.fetchSmallBlob(config, limits.maxImageConfigBytes, `configuration of ${what}`);
	const { diffIds, env, createdSeconds } = readConfig(configBytes, layers.length, what);
	context.progress.update("index", 1, `${layers.length} layers`);
	return {
		registry,
		repository,
		manifest: manifest.digest,
		config: { digest: config.digest, sizeBytes: config.size },
		layers: layers.map(({ digest, size, mediaType }, at) => ({
			digest,
			sizeBytes: size,
			mediaType,
			diffId: diffIds[at] ?? "",
		})),
		env,
		createdSeconds,
	};
}

async function make(lock: OciLock, context: SourceContext, options: OciSourceOptions): Promise<SourceTree> {
	const { registry, repository, layers, env, createdSeconds } = lock;
	const { store, progress, log } = context;
	// The first failure ends all that is under way.
	const failed = new AbortController();
	const signal = AbortSignal.any([failed.signal, ...(context.signal === undefined ? [] : [context.signal])]);
	const downloader = context.downloader.withSignal(failed.signal);
	const source = new Registry({ registry, repository, downloader, ...options });
	const report = progressOf(layers, progress);
	let failure: unknown;
	const fail = (error: unknown) => {
		failure ??= error;
		failed.abort();
		throw error;
	};
	// An image may have a layer twice, as it has the empty one.
	const fetches = new Map<string, Promise<string>>();
	const fetchOnce = (layer: Layer) => {
		const fetching =
			fetches.get(layer.digest) ??
			source
				.fetchBlob({ digest: layer.digest, size: layer.sizeBytes }, (bytes) => report.arrived(layer, bytes))
				.catch(fail)
				.finally(() => report.complete(layer));
		fetches.set(layer.digest, fetching);
		return fetching;
	};
	const tree = new Tree();
	let entries = 0;
	let bytes = 0;
	const unpack = async (layer: Layer, path: string) => {
		const what = `layer ${layer.digest} of ${registry}/${repository}`;
		const hash = createHash("sha256");
		const compressed = watched(createReadStream(path, { highWaterMark: READ_BYTES }), signal, report.unpacked);
		const applied = await applyTarLayer(tree, store, closed(hashed(decompress(compressed, what), hash)), {
			source: what,
			whiteouts: true,
			directorySymlinks: "replace",
			maxEntries: limits.maxTreeEntries - entries,
			maxBytes: limits.maxLayerBytes - bytes,
		});
		entries += applied.entries;
		bytes += applied.bytes;
		if (applied.skipped.length > 0) {
			log.debug(`${what}: devices are left out: ${applied.skipped.slice(0, 20).join(", ")}`);
		}
		const diffId = `sha256:${hash.digest("hex")}`;
		if (diffId === layer.diffId) return;
		throw new SandboxError(
			"corrupt",
			`${what} is ${diffId} when it is unpacked, but the image's configuration says ${layer.diffId}`,
			"the image was put together wrongly or is tampered with",
		);
	};
	try {
		const arrivals = mapParallel(layers, limits.parallelDownloads, async (layer) => ({
			layer,
			path: await fetchOnce(layer),
		}));
		for await (const { layer, path } of arrivals) await unpack(layer, path).catch(fail);
	} catch (error) {
		throw failure ?? error;
	}
	progress.update("tree", 1, `${formatBytes(bytes)} in ${layers.length} layers unpacked`);
	return { tree, epoch: createdSeconds > 0 ? createdSeconds : newestTime(tree), env };
}

/** Turns bytes that arrive and bytes that are unpacked into progress; each is half of the work. */
function progressOf(layers: readonly Layer[], progress: ProgressTracker) {
	const sizes = new Map(layers.map(({ digest, sizeBytes }) => [digest, sizeBytes]));
	const toFetch = [...sizes.values()].reduce((sum, size) => sum + size, 0);
	const toUnpack = layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
	const here = new Map<string, number>();
	let unpacked = 0;
	let reported = 0;
	const report = () => {
		const fetched = [...here.values()].reduce((sum, bytes) => sum + bytes, 0);
		const done = fetched + unpacked;
		if (done - reported < REPORT_BYTES && fetched < toFetch) return;
		reported = done;
		const doing = fetched < toFetch ? "downloading" : "unpacking";
		progress.update(
			"packages",
			done / Math.max(1, toFetch + toUnpack),
			`${doing} layers, ${formatBytes(fetched)} of ${formatBytes(toFetch)} here`,
		);
	};
	return {
		arrived({ digest, sizeBytes }: Layer, bytes: number) {
			here.set(digest, Math.min(sizeBytes, (here.get(digest) ?? 0) + bytes));
			report();
		},
		/** Also what lay in the cache, or a part of it. */
		complete({ digest, sizeBytes }: Layer) {
			here.set(digest, sizeBytes);
			report();
		},
		unpacked(bytes: number) {
			unpacked += bytes;
			report();
		},
	};
}

async function* watched(
	stream: AsyncIterable<Uint8Array>,
	signal: AbortSignal,
	onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
	for await (const chunk of stream) {
		if (signal.aborted) throw new SandboxError("cancelled", "the build was cancelled", "what is downloaded is kept");
		onBytes(chunk.length);
		yield chunk;
	}
}

async function* hashed(stream: AsyncIterable<Uint8Array>, hash: Hash): AsyncGenerator<Uint8Array> {
	for await (const chunk of stream) {
		hash.update(chunk);
		yield chunk;
	}
}

/**
 * The tar archive with an end. Go's archive/tar, which most clients read layers with, takes the stream's end for it, so
 * there are layers without (umoci 0.4's). That nothing else is missing is for the digests to say.
 */
async function* closed(tar: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
	let length = 0;
	for await (const chunk of tar) {
		length += chunk.length;
		yield chunk;
	}
	yield new Uint8Array(((TAR_BLOCK_BYTES - (length % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES) + 2 * TAR_BLOCK_BYTES);
}

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf, SandboxError } from "../errors.js";
import type { Log } from "../log.js";
import { onDisk, writeAll } from "./disk.js";
import { limits } from "./limits.js";

export interface DownloaderOptions {
	/** Folder of the content cache, "sha256-<hex>" each; `.part` files are resumed. */
	readonly folder: string;
	readonly log: Log;
	readonly signal?: AbortSignal;
	/** Bytes that arrived just now, from the network. */
	readonly onBytes?: (bytes: number) => void;
	readonly stallMs?: number;
	readonly retryMs?: number;
	readonly rounds?: number;
}

/** A file whose contents are known before it is fetched. */
export interface VerifiedFile {
	/** Path below each mirror's URL; the next one is tried where a mirror has no such file. */
	readonly paths: readonly string[];
	readonly sha256: string;
	readonly sizeBytes: number;
}

/** Sends one GET request, as `fetch` does; adds what the server wants beside the headers, and follows redirects. */
export type Send = (
	url: string,
	init: { readonly headers: Readonly<Record<string, string>>; readonly signal: AbortSignal },
) => Promise<Response>;

/** What is particular to a kind of server. */
export interface ServerKind {
	/** Default: the global `fetch`. */
	readonly send?: Send;
	/** What says which size and hash a file has, for errors: "the signed index". */
	readonly promisedBy: string;
	/** What to do about a server whose files are others. */
	readonly hint: string;
}

const DEBIAN_MIRROR: ServerKind = {
	promisedBy: "the signed index",
	hint: "the mirror is out of step or tampered with; choose another one with --mirror, or try again later",
};

export interface FetchOptions {
	/** Default: a Debian mirror. */
	readonly server?: ServerKind;
	/** Bytes of this file that arrived just now. */
	readonly onBytes?: (bytes: number) => void;
}

/** Fetches files over HTTP from the first mirror that delivers, resumes what was broken off, and trusts only hashes. */
export class Downloader {
	readonly #options: DownloaderOptions;

	constructor(options: DownloaderOptions) {
		this.#options = options;
	}

	/** The same, ended also by another signal. */
	withSignal(signal: AbortSignal): Downloader {
		const own = this.#options.signal;
		return new Downloader({ ...this.#options, signal: own === undefined ? signal : AbortSignal.any([own, signal]) });
	}

	/** Path of the cached file; undefined if it is not (wholly) there. */
	async cached(file: Pick<VerifiedFile, "sha256" | "sizeBytes">): Promise<string | undefined> {
		const path = this.#path(file.sha256);
		try {
			return (await stat(path)).size === file.sizeBytes ? path : undefined;
		} catch (error) {
			if (errnoOf(error) === "ENOENT") return undefined;
			throw error;
		}
	}

	/** The file's path in the cache, after fetching what of it is missing. Its SHA-256 is checked as it arrives. */
	async fetch(mirrors: readonly string[], file: VerifiedFile, options: FetchOptions = {}): Promise<string> {
		const known = await this.cached(file);
		if (known !== undefined) return known;
		await onDisk(this.#options.folder, () => mkdir(this.#options.folder, { recursive: true }));
		return await this.#overMirrors(mirrors, file.paths, (url) => this.#fetchInto(url, file, options));
	}

	/** A small file's bytes, not cached; undefined where every mirror answers that it does not exist. */
	async fetchSmall(
		mirrors: readonly string[],
		path: string,
		maxBytes: number,
		options: FetchOptions = {},
	): Promise<Buffer | undefined> {
		try {
			return await this.#overMirrors(mirrors, [path], async (url) => {
				const chunks: Buffer[] = [];
				let length = 0;
				await this.#get(url, 0, undefined, options, async (_resumed, body) => {
					for await (const chunk of body) {
						length += chunk.length;
						if (length > maxBytes) throw new SandboxError("corrupt", `${url} has more than ${maxBytes} bytes`);
						chunks.push(Buffer.from(chunk));
					}
				});
				return Buffer.concat(chunks);
			});
		} catch (error) {
			if (error instanceof SandboxError && error.code === "not-found") return undefined;
			throw error;
		}
	}

	#path(sha256: string): string {
		return join(this.#options.folder, `sha256-${sha256}`);
	}

	async #overMirrors<T>(
		mirrors: readonly string[],
		paths: readonly string[],
		attempt: (url: string) => Promise<T>,
	): Promise<T> {
		const { log, signal } = this.#options;
		const rounds = this.#options.rounds ?? limits.downloadRounds;
		let worst: SandboxError | undefined;
		for (let round = 0; round < rounds; round++) {
			if (round > 0) await pause((this.#options.retryMs ?? limits.downloadRetryMs) * 2 ** (round - 1), signal);
			let hopeless = 0;
			for (const mirror of mirrors) {
				for (const [at, path] of paths.entries()) {
					if (signal?.aborted === true) throw cancelled(signal);
					const url = `${mirror.replace(/\/+$/, "")}/${path}`;
					try {
						return await attempt(url);
					} catch (error) {
						if (!(error instanceof SandboxError) || error.code === "cancelled" || error.code === "no-space")
							throw error;
						if (error.code === "invalid-argument") throw error;
						log.debug(error.message);
						if (worst === undefined || rank(error) > rank(worst)) worst = error;
						if (error.code !== "not-found") {
							if (isLasting(error)) hopeless++;
							break;
						}
						if (at === paths.length - 1) hopeless++;
					}
				}
			}
			if (hopeless === mirrors.length) break;
		}
		if (worst === undefined) throw new SandboxError("network", "there is no mirror to fetch from");
		throw worst;
	}

	async #fetchInto(url: string, file: VerifiedFile, options: FetchOptions): Promise<string> {
		const { promisedBy, hint } = options.server ?? DEBIAN_MIRROR;
		const path = this.#path(file.sha256);
		const partial = `${path}.part`;
		const before = await sizeOf(partial);
		const offset = before < file.sizeBytes ? before : 0;
		let hash: Hash = createHash("sha256");
		let length = 0;
		await this.#get(url, offset, file.sizeBytes, options, async (resumed, body) => {
			const handle = await onDisk(partial, () => open(partial, resumed ? "a" : "w"));
			try {
				if (resumed) {
					length = offset;
					hash = await hashOf(partial);
				}
				for await (const chunk of body) {
					length += chunk.length;
					if (length > file.sizeBytes) break;
					hash.update(chunk);
					await onDisk(partial, () => writeAll(handle, chunk));
				}
			} finally {
				await handle.close();
			}
		});
		if (length < file.sizeBytes) {
			throw new SandboxError("network", `${url} broke off after ${length} of ${file.sizeBytes} bytes`);
		}
		const digest = hash.digest("hex");
		if (length !== file.sizeBytes || digest !== file.sha256) {
			await rm(partial, { force: true });
			// What an earlier run left may be at fault, not this server.
			if (offset > 0) return await this.#fetchInto(url, file, options);
			const found = length === file.sizeBytes ? `its SHA-256 is ${digest}` : `it has more than ${file.sizeBytes} bytes`;
			throw new SandboxError(
				"corrupt",
				`${url} is not what ${promisedBy} says: ${found}, expected ${file.sha256}`,
				hint,
			);
		}
		await onDisk(path, () => rename(partial, path));
		return path;
	}

	/** One request. `consume` must read the body to its end; `resumed` says that it starts at `offset`, not at 0. */
	async #get(
		url: string,
		offset: number,
		/** Size of the whole file, where it is known. */
		expected: number | undefined,
		{ server = DEBIAN_MIRROR, onBytes: onFileBytes }: FetchOptions,
		consume: (resumed: boolean, body: AsyncIterable<Uint8Array>) => Promise<void>,
	): Promise<void> {
		const stallMs = this.#options.stallMs ?? limits.downloadStallMs;
		const controller = new AbortController();
		let stalled = false;
		const onStall = () => {
			stalled = true;
			controller.abort();
		};
		let timer = setTimeout(onStall, stallMs);
		const onAbort = () => controller.abort();
		this.#options.signal?.addEventListener("abort", onAbort, { once: true });
		if (this.#options.signal?.aborted === true) controller.abort();
		try {
			const headers: Record<string, string> = { "accept-encoding": "identity", "user-agent": "sandbox86" };
			if (offset > 0) headers.range = `bytes=${offset}-`;
			const send: Send = server.send ?? fetch;
			const response = await send(url, { headers, signal: controller.signal });
			const resumed = offset > 0 && response.status === 206;
			if (response.status === 404 || response.status === 410) {
				throw new SandboxError("not-found", `${url} does not exist (HTTP ${response.status})`);
			}
			if (response.status !== 200 && !resumed) {
				throw new SandboxError("network", `${url} answered with HTTP ${response.status}`);
			}
			if (resumed && !(response.headers.get("content-range") ?? "").startsWith(`bytes ${offset}-`)) {
				throw new SandboxError("network", `${url} answered with another range than was asked for`);
			}
			const length = response.headers.get("content-length");
			if (expected !== undefined && length !== null && Number(length) !== expected - (resumed ? offset : 0)) {
				throw lasting(
					new SandboxError(
						"network",
						`${url} has ${Number(length) + (resumed ? offset : 0)} bytes instead of the ${expected} of ${server.promisedBy}`,
						server.hint,
					),
				);
			}
			const body = response.body;
			if (body === null) throw new SandboxError("network", `${url} answered without a body`);
			const { onBytes } = this.#options;
			const watched = async function* () {
				for await (const chunk of body) {
					clearTimeout(timer);
					onBytes?.(chunk.length);
					onFileBytes?.(chunk.length);
					yield chunk as Uint8Array;
					clearTimeout(timer);
					timer = setTimeout(onStall, stallMs);
				}
			};
			await consume(resumed, watched());
		} catch (error) {
			if (error instanceof SandboxError) throw error;
			if (this.#options.signal?.aborted === true) throw cancelled(this.#options.signal);
			if (stalled) throw new SandboxError("network", `${url} sent nothing for ${stallMs} ms`);
			if (errnoOf(error) !== undefined && !(error instanceof TypeError)) throw error;
			const failure = new SandboxError("network", `${url} cannot be fetched: ${reasonOf(error)}`, undefined, {
				cause: error,
			});
			throw error instanceof Error && errnoOf(error.cause) === "ENOTFOUND" ? lasting(failure) : failure;
		} finally {
			clearTimeout(timer);
			this.#options.signal?.removeEventListener("abort", onAbort);
			controller.abort();
		}
	}
}

/** Runs `work` over `items`, at most `parallel` at once; the first failure stops the rest. */
export async function forEachParallel<T>(
	items: readonly T[],
	parallel: number,
	work: (item: T) => Promise<void>,
): Promise<void> {
	const queue = [...items];
	let failed = false;
	const worker = async () => {
		for (let item = queue.shift(); item !== undefined && !failed; item = queue.shift()) {
			try {
				await work(item);
			} catch (error) {
				failed = true;
				throw error;
			}
		}
	};
	const results = await Promise.allSettled(Array.from({ length: Math.min(parallel, items.length) }, worker));
	for (const result of results) if (result.status === "rejected") throw result.reason;
}

/**
 * What `work` makes of each item, in the order of the items; up to `parallel` are under way or wait for those before
 * them. Nothing is under way any more when it ends, also in failure.
 */
export async function* mapParallel<T, R>(
	items: readonly T[],
	parallel: number,
	work: (item: T) => Promise<R>,
): AsyncGenerator<R> {
	const started: Promise<R>[] = [];
	const rest = items.values();
	const startNext = () => {
		const next = rest.next();
		if (next.done === true) return;
		const result = work(next.value);
		// A failure is thrown where its turn comes.
		result.catch(() => undefined);
		started.push(result);
	};
	try {
		for (let count = 0; count < parallel; count++) startNext();
		for (let first = started[0]; first !== undefined; first = started[0]) {
			const result = await first;
			started.shift();
			startNext();
			yield result;
		}
	} finally {
		await Promise.allSettled(started);
	}
}

/** What is most worth telling when several mirrors fail: a lie, then a broken connection, then an absent file. */
function rank(error: SandboxError): number {
	return error.code === "corrupt" ? 2 : error.code === "network" ? 1 : 0;
}

const lastingFailures = new WeakSet<SandboxError>();

/** Marks a failure that the same server would repeat: it is not asked again. */
export function lasting(error: SandboxError): SandboxError {
	lastingFailures.add(error);
	return error;
}

function isLasting(error: SandboxError): boolean {
	return lastingFailures.has(error) || error.code === "corrupt";
}

function cancelled(signal: AbortSignal): SandboxError {
	return new SandboxError(
		"cancelled",
		"the build was cancelled",
		"what is downloaded is kept; start it again to go on",
		{
			cause: signal.reason,
		},
	);
}

function reasonOf(error: unknown): string {
	if (!(error instanceof Error)) return String(error);
	// fetch hides the reason in the cause.
	const cause = error.cause;
	if (cause instanceof Error)
		return errnoOf(cause) === undefined ? cause.message : `${errnoOf(cause)} (${cause.message})`;
	return error.message;
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
	await new Promise<void>((resolve) => {
		const timer = setTimeout(finish, ms);
		function finish() {
			clearTimeout(timer);
			signal?.removeEventListener("abort", finish);
			resolve();
		}
		signal?.addEventListener("abort", finish, { once: true });
	});
}

async function sizeOf(path: string): Promise<number> {
	try {
		return (await stat(path)).size;
	} catch (error) {
		if (errnoOf(error) === "ENOENT") return 0;
		throw error;
	}
}

async function hashOf(path: string): Promise<Hash> {
	const hash = createHash("sha256");
	for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
	return hash;
}

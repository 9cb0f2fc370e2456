/** What a real registry cannot be made to do (test/image/ has a real one). */

import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../../src/image/content-store.js";
import { Downloader } from "../../../src/image/download.js";
import { type BuildProgress, ProgressTracker } from "../../../src/image/progress.js";
import type { SourceContext } from "../../../src/image/source.js";
import { createOciSource, type OciLock, ociSource } from "../../../src/image/sources/oci/oci.js";
import { silentLog } from "../../../src/log.js";

const INDEX = "application/vnd.oci.image.index.v1+json";
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const CONFIG = "application/vnd.oci.image.config.v1+json";
const LAYER = "application/vnd.oci.image.layer.v1.tar+gzip";

type Handler = (request: IncomingMessage, response: ServerResponse, path: string) => boolean;

let folder: string;
let host: string;
let blobs: Map<string, Buffer>;
/** Answers before the registry does; true: it did. */
let before: Handler;
let requests: string[];
let progress: BuildProgress[];
const servers: Server[] = [];

const sha256 = (bytes: Buffer) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

async function listen(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<number> {
	const server = createServer(handler);
	servers.push(server);
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	return (server.address() as AddressInfo).port;
}

beforeEach(async () => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-oci-"));
	blobs = new Map();
	before = () => false;
	requests = [];
	progress = [];
	const port = await listen((request, response) => {
		const path = request.url ?? "";
		requests.push(path);
		if (before(request, response, path)) return;
		const bytes = blobs.get(path.slice(path.lastIndexOf("/") + 1));
		if (bytes === undefined) response.writeHead(404).end();
		else response.writeHead(200, { "docker-content-digest": sha256(bytes), "content-length": bytes.length }).end(bytes);
	});
	host = `127.0.0.1:${port}`;
});
afterEach(() => {
	for (const server of servers.splice(0)) {
		server.closeAllConnections();
		server.close();
	}
	rmSync(folder, { recursive: true, force: true });
});

const source = () => createOciSource({ dockerConfigPath: join(folder, "config.json") });

function context(options: Partial<SourceContext> = {}): SourceContext {
	return {
		store: new ContentStore(join(folder, "files")),
		downloader: new Downloader({ folder: join(folder, "downloads"), log: silentLog, retryMs: 1, rounds: 2 }),
		home: folder,
		recipeFolder: folder,
		packages: [],
		mirror: undefined,
		workInGuest: () => Promise.reject(new Error("a container image needs no guest")),
		progress: new ProgressTracker((at) => progress.push(at)),
		log: silentLog,
		signal: undefined,
		...options,
	};
}

/** Stores bytes or JSON under their digest. */
function put(content: Buffer | object, mediaType: string) {
	const bytes = Buffer.isBuffer(content) ? content : Buffer.from(JSON.stringify(content));
	const digest = sha256(bytes);
	blobs.set(digest, bytes);
	return { mediaType, digest, size: bytes.length };
}

async function tarOf(files: Readonly<Record<string, string>>, mtime = 1000): Promise<Buffer> {
	const packer = pack();
	for (const [name, content] of Object.entries(files)) packer.entry({ name, mtime: new Date(mtime * 1000) }, content);
	packer.finalize();
	const chunks: Uint8Array[] = [];
	for await (const chunk of packer) chunks.push(chunk as Uint8Array);
	return Buffer.concat(chunks);
}

/** An image of one layer under `tag`, with what is other than usual. */
async function putImage(
	other: {
		config?: object;
		manifest?: object;
		layers?: readonly Buffer[];
		layerType?: string;
		diffIds?: readonly string[];
	} = {},
	tag = "1",
): Promise<Buffer> {
	const tars = other.layers ?? [await tarOf({ "etc/motd": "hello" })];
	const config = put(
		{
			os: "linux",
			architecture: "386",
			rootfs: { type: "layers", diff_ids: other.diffIds ?? tars.map(sha256) },
			...other.config,
		},
		CONFIG,
	);
	const layers = tars.map((tar) => put(gzipSync(tar), other.layerType ?? LAYER));
	const manifest = Buffer.from(
		JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST, config, layers, ...other.manifest }),
	);
	blobs.set(tag, manifest);
	return manifest;
}

const resolve = (tag = "1") => source().resolve(`${host}/a/b:${tag}`, context());
const make = async (lock?: OciLock) => source().make(lock ?? (await resolve()), context());

describe("an image", () => {
	it("comes from what a recipe calls oci", () => {
		expect(ociSource.scheme).toBe("oci");
	});

	it("becomes a lock that is JSON, and the lock a tree", async () => {
		const manifest = await putImage({
			config: {
				created: "2024-05-01T10:00:00.5Z",
				history: [{ created: "2024-06-01T00:00:00Z" }, {}],
				config: { Env: ["PATH=/bin:/sbin", "A=b=c", "EMPTY=", "no value", "1X=y", "__proto__=z"] },
			},
		});
		const lock = await resolve();
		expect(lock).toMatchObject({
			registry: host,
			repository: "a/b",
			manifest: sha256(manifest),
			layers: [{ mediaType: LAYER }],
			createdSeconds: Date.UTC(2024, 5, 1) / 1000,
		});
		expect({ ...lock.env }).toMatchObject({ PATH: "/bin:/sbin", A: "b=c", EMPTY: "" });
		const again = source().lockSchema.parse(JSON.parse(JSON.stringify(lock)));
		const { tree, epoch, env } = await make(again);
		expect([...tree.entries()].map(([path]) => path)).toEqual(["etc", "etc/motd"]);
		expect(epoch).toBe(lock.createdSeconds);
		expect(env.PATH).toBe("/bin:/sbin");
		const fractions = progress.map(({ fraction }) => fraction);
		expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
	});

	it("has a lock that names a registry and a repository, and nothing beside", async () => {
		await putImage();
		const lock = await resolve();
		const { lockSchema } = source();
		for (const other of [
			{ registry: "a.example/../b" },
			{ registry: "user@a.example" },
			{ repository: "../../x" },
			{ repository: "a/b:1" },
			{ repository: "a/b?x" },
			{ manifest: "sha256:0" },
			{ more: 1 },
		]) {
			expect(lockSchema.safeParse({ ...lock, ...other }).success).toBe(false);
		}
		expect(lockSchema.parse(lock)).toEqual(lock);
	});

	it("without a usable date is as old as its newest file", async () => {
		await putImage({ config: { created: "0001-01-01T00:00:00Z", history: [{ created: "9999-01-01T00:00:00Z" }] } });
		expect((await make()).epoch).toBe(1000);
	});

	it("that has a layer several times fetches it once", async () => {
		const tar = await tarOf({ a: "1" });
		await putImage({ layers: [tar, await tarOf({ b: "1" }), tar, tar] });
		const { tree } = await make();
		expect([...tree.entries()].map(([path]) => path)).toEqual(["a", "b"]);
		expect(requests.filter((path) => path.endsWith(sha256(gzipSync(tar))))).toHaveLength(1);
	});

	it("is not fetched again by a second build", async () => {
		await putImage();
		const lock = await resolve();
		await make(lock);
		requests = [];
		await make(lock);
		expect(requests).toEqual([]);
	});

	it("whose layer has no end mark is read to its end", async () => {
		const tar = await tarOf({ a: "12345" });
		await putImage({ layers: [tar.subarray(0, 512 + 5)] });
		expect((await make()).tree.get("a")).toMatchObject({ sizeBytes: 5 });
		await putImage({ layers: [(await tarOf({ a: "x".repeat(9000) })).subarray(0, 2000)] });
		await expect(make()).rejects.toThrow(/is no whole tar archive/);
	});

	it("that does not exist is named", async () => {
		await expect(resolve("2")).rejects.toMatchObject({ code: "not-found", message: `${host} has no ${host}/a/b:2` });
	});
});

describe("an image is refused whose", () => {
	it.each<[string, Parameters<typeof putImage>[0], string | RegExp]>([
		[
			"processor is another",
			{ config: { architecture: "amd64" } },
			/:1 is for linux\/amd64, not for linux\/386; the guest is 32-bit x86/,
		],
		["system is another", { config: { os: "windows" } }, /is for windows\/386/],
		[
			"layers are encrypted",
			{ layerType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" },
			/layer 1 of .* is encrypted/,
		],
		[
			"layers are not distributable",
			{ layerType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" },
			/is not distributable/,
		],
		[
			"layers are foreign",
			{ layerType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" },
			/is not distributable/,
		],
		[
			"layers are unknown",
			{ layerType: "application/x-squashfs" },
			/layer 1 of .* has the unknown type application\/x-squashfs/,
		],
		["format is schema 1", { manifest: { schemaVersion: 1 } }, /has the manifest format of 2014 \(schema 1\)/],
		["manifest is also a list", { manifest: { manifests: [] } }, /cannot be read/],
		["layers are none", { layers: [] }, /cannot be read: layers/],
		[
			"layers are 257",
			{ manifest: { layers: Array(257).fill({ mediaType: LAYER, digest: sha256(Buffer.from("")), size: 1 }) } },
			/cannot be read: layers/,
		],
		[
			"layers are too long",
			{ manifest: { layers: [{ mediaType: LAYER, digest: sha256(Buffer.from("")), size: 2 ** 34 }] } },
			/have 17179869184 bytes, 8589934592 are allowed/,
		],
		[
			"digests are not SHA-256",
			{ manifest: { layers: [{ mediaType: LAYER, digest: `sha512:${"0".repeat(128)}`, size: 1 }] } },
			/layers\.0\.digest: must be "sha256:" and 64 digits/,
		],
		["configuration is of another image", { diffIds: [] }, /names 0 layers, its manifest 1/],
		[
			"environment is too large",
			{ config: { config: { Env: Array(257).fill("A=b") } } },
			/has 257 environment variables/,
		],
	])("%s", async (_what, other, message) => {
		await putImage(other);
		await expect(resolve()).rejects.toThrow(message);
	});

	it("type is that of an artifact", async () => {
		await putImage({ manifest: { config: put({}, "application/vnd.oci.empty.v1+json") } });
		await expect(resolve()).rejects.toThrow(
			/is not a container image but an artifact of the type application\/vnd\.oci\.empty/,
		);
	});

	it("manifest is no JSON, or more than 4 MiB of it", async () => {
		blobs.set("1", Buffer.from("<html>"));
		await expect(resolve()).rejects.toMatchObject({ code: "corrupt", message: `${host}/a/b:1 is no JSON` });
		blobs.set("1", Buffer.alloc(4 * 1024 * 1024 + 1));
		await expect(resolve()).rejects.toThrow(/has more than 4194304 bytes/);
	});

	it("unpacked layer is not what the configuration says", async () => {
		await putImage({ diffIds: [sha256(Buffer.from("other"))] });
		await expect(make()).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringMatching(/when it is unpacked, but the image's configuration says/),
		});
	});
});

describe("a list", () => {
	const list = (...entries: object[]) =>
		blobs.set("1", Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: entries })));
	const platform = (architecture: string, os = "linux", variant?: string) => ({
		platform: { os, architecture, variant },
	});

	it("without linux/386 names what it has", async () => {
		const entry = put(await putImage(), MANIFEST);
		list(
			{ ...entry, ...platform("amd64") },
			{ ...entry, ...platform("arm", "linux", "v7") },
			{ ...entry, ...platform("unknown", "unknown") },
		);
		await expect(resolve()).rejects.toMatchObject({
			code: "build-failed",
			message: `${host}/a/b:1 is for linux/amd64, linux/arm/v7, not for linux/386; the guest is 32-bit x86`,
		});
	});

	it("whose entry is of another processor than the list says is refused", async () => {
		list({ ...put(await putImage({ config: { architecture: "arm64" } }), MANIFEST), ...platform("386") });
		await expect(resolve()).rejects.toThrow(/is for linux\/arm64/);
	});

	it("of one entry without a platform is tried", async () => {
		list(put(await putImage(), MANIFEST));
		expect((await resolve()).layers).toHaveLength(1);
	});

	it("in a list is followed, but not for ever", async () => {
		const deeper = (entry: object) => {
			list({ ...entry, ...platform("386") });
			return put(blobs.get("1") ?? Buffer.alloc(0), INDEX);
		};
		let entry = put(await putImage(), MANIFEST);
		for (let depth = 0; depth < 3; depth++) entry = deeper(entry);
		expect((await resolve()).layers).toHaveLength(1);
		deeper(entry);
		await expect(resolve()).rejects.toThrow(/more than 3 lists of platforms inside one another/);
	});

	it("whose entry has other bytes than it says is refused", async () => {
		const entry = put(await putImage(), MANIFEST);
		blobs.set(entry.digest, Buffer.from("{}"));
		list({ ...entry, ...platform("386") });
		await expect(resolve()).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringContaining(`is not ${entry.digest} of ${entry.size} bytes`),
		});
	});
});

describe("a registry that lies", () => {
	it("about a tag's digest is caught", async () => {
		const manifest = await putImage();
		before = (_request, response, path) => {
			if (!path.includes("/manifests/")) return false;
			response.writeHead(200, { "docker-content-digest": sha256(Buffer.from("x")) }).end(manifest);
			return true;
		};
		await expect(resolve()).rejects.toThrow(/, as the registry says, but sha256:/);
	});

	it("about a reference's digest is caught", async () => {
		const digest = sha256(Buffer.from("wanted"));
		blobs.set(digest, await putImage());
		await expect(source().resolve(`${host}/a/b@${digest}`, context())).rejects.toMatchObject({ code: "corrupt" });
	});

	it("about a configuration or a layer is caught, and nothing of the layer stays", async () => {
		await putImage();
		const lock = await resolve();
		const layer = lock.layers[0]?.digest ?? "";
		const honest = blobs.get(layer) ?? Buffer.alloc(0);
		blobs.set(layer, Buffer.alloc(honest.length));
		await expect(make(lock)).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringContaining("is not what the image's manifest says"),
			hint: "the registry's copy is damaged or tampered with",
		});
		expect(await context().downloader.cached({ sha256: layer.slice(7), sizeBytes: honest.length })).toBeUndefined();
		blobs.set(layer, honest.subarray(1));
		await expect(make(lock)).rejects.toThrow(/bytes instead of the \d+ of the image's manifest/);
		blobs.set(lock.config.digest, Buffer.from("{}"));
		await expect(resolve()).rejects.toThrow(/configuration of .* is not sha256:/);
	});

	it("by sending less than it promises is asked for the rest", async () => {
		await putImage();
		const config: string = JSON.parse(String(blobs.get("1"))).config.digest;
		let cut = true;
		before = (request, response, path) => {
			const bytes = blobs.get(path.slice(path.lastIndexOf("/") + 1));
			const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
			if (!path.includes("/blobs/") || bytes === undefined) return false;
			if (range !== undefined) {
				response.writeHead(206, { "content-range": `bytes ${range}-${bytes.length - 1}/${bytes.length}` });
				response.end(bytes.subarray(Number(range)));
				return true;
			}
			if (!cut || path.endsWith(config)) return false;
			cut = false;
			response.writeHead(200, { "content-length": bytes.length });
			response.write(bytes.subarray(0, 20), () => response.destroy());
			return true;
		};
		expect([...(await make()).tree.entries()]).toHaveLength(2);
		expect(cut).toBe(false);
	});
});

describe("a failure", () => {
	it("of one layer ends the downloads of all others", async () => {
		await putImage({ layers: [await tarOf({ a: "1" }), await tarOf({ b: "1" })] });
		const lock = await resolve();
		let closed: Promise<void> = Promise.resolve();
		before = (request, response, path) => {
			if (path.endsWith(lock.layers[0]?.digest ?? "-")) {
				// Never ends.
				response.writeHead(200).write("x");
				closed = new Promise((done) => request.once("close", done));
				return true;
			}
			response.writeHead(404).end();
			return true;
		};
		await expect(make(lock)).rejects.toMatchObject({ code: "not-found" });
		await closed;
	});

	it("is told as such when the build is cancelled", async () => {
		await putImage();
		const lock = await resolve();
		const controller = new AbortController();
		before = (_request, response) => {
			response.writeHead(200).write("x");
			controller.abort();
			return true;
		};
		const downloader = new Downloader({ folder: join(folder, "downloads"), log: silentLog, signal: controller.signal });
		const made = source().make(lock, context({ signal: controller.signal, downloader }));
		await expect(made).rejects.toMatchObject({ code: "cancelled" });
	});
});

describe("a redirect", () => {
	it("to another host gets no credentials, and the registry goes on getting them", async () => {
		await putImage();
		const seen: (string | undefined)[] = [];
		const other = await listen((request, response) => {
			seen.push(request.headers.authorization);
			response.end(blobs.get((request.url ?? "").slice(1)));
		});
		writeFileSync(join(folder, "config.json"), JSON.stringify({ auths: { [host]: { auth: btoa("u:p") } } }));
		before = (request, response, path) => {
			if (request.headers.authorization !== `Basic ${btoa("u:p")}`) {
				response.writeHead(401, { "www-authenticate": 'Basic realm="r"' }).end();
				return true;
			}
			if (!path.includes("/blobs/")) return false;
			response.writeHead(307, { location: `http://localhost:${other}/${path.slice(path.lastIndexOf("/") + 1)}` }).end();
			return true;
		};
		await make();
		expect(seen).toEqual([undefined, undefined]);
	});

	it.each([
		["http://registry.example/x", /leads to "http:\/\/registry\.example\/x", which is not HTTPS/],
		["ftp://127.0.0.1/x", /which is not HTTPS/],
		["http://u:p@127.0.0.1/x", /which is not HTTPS/],
		["http://[", /which is not HTTPS/],
		["/v2/a/b/manifests/1", /leads to more than 5 other addresses/],
	])("to %s is refused", async (location, message) => {
		before = (_request, response) => response.writeHead(302, { location }).end() !== undefined;
		await expect(resolve()).rejects.toThrow(message);
	});
});

describe("authentication", () => {
	const tokens: string[] = [];
	let asked: URL[];
	let users: (string | undefined)[];
	/** A token server that gives t1, t2 …; `accepts` says which are good. */
	const demand = async (
		accepts: (token: string) => boolean,
		answer: (token: string) => object = (token) => ({ token }),
	) => {
		asked = [];
		users = [];
		tokens.length = 0;
		const port = await listen((request, response) => {
			asked.push(new URL(request.url ?? "", "http://x"));
			users.push(request.headers.authorization);
			tokens.push(`t${tokens.length + 1}`);
			response.end(JSON.stringify(answer(tokens.at(-1) ?? "")));
		});
		before = (request, response) => {
			const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? "")?.[1];
			if (token !== undefined && accepts(token)) return false;
			const challenge = `Bearer realm="http://127.0.0.1:${port}/token?x=1",service="a service",scope="repository:a/b:pull"`;
			response.writeHead(401, { "www-authenticate": challenge }).end();
			return true;
		};
	};

	it("by token asks once for all requests, for the scope and service that the registry names", async () => {
		await putImage();
		await demand(() => true);
		await resolve();
		expect(asked.map(({ pathname, searchParams }) => [pathname, ...searchParams])).toEqual([
			["/token", ["x", "1"], ["service", "a service"], ["scope", "repository:a/b:pull"]],
		]);
		expect(users).toEqual([undefined]);
	});

	it("gets a new token when the old one has expired, one for all that are under way", async () => {
		await putImage({ layers: await Promise.all(["a", "b", "c"].map((name) => tarOf({ [name]: "1" }))) });
		let served = 0;
		await demand((token) => token === "t2" || served++ < 1);
		const lock = await resolve();
		expect(tokens).toEqual(["t1", "t2"]);
		await demand(() => true);
		await make(lock);
		expect(tokens).toEqual(["t1"]);
	});

	it("that is refused with a fresh token ends at once", async () => {
		await putImage();
		await demand(() => false);
		await expect(resolve()).rejects.toMatchObject({
			code: "network",
			message: `${host} refuses a/b to anonymous users (HTTP 401)`,
			hint: expect.stringMatching(
				/docker login: user and password are taken from "auths" in .*config\.json, credential helpers are not asked/,
			),
		});
		expect(tokens).toHaveLength(1);
	});

	it("tells the token server who the user is", async () => {
		await putImage();
		await demand(
			() => true,
			(access_token) => ({ access_token }),
		);
		writeFileSync(
			join(folder, "config.json"),
			JSON.stringify({ auths: { [`https://${host}/v2/`]: { auth: btoa("u:p") } } }),
		);
		await resolve();
		expect(users).toEqual([`Basic ${btoa("u:p")}`]);
	});

	it.each([
		[
			'Bearer realm="http://auth.example/token"',
			/wants tokens from "http:\/\/auth\.example\/token", which is not an HTTPS address/,
		],
		["Bearer", /wants tokens from "", which is not an HTTPS address/],
		['Basic realm="r"', /refuses a\/b to anonymous users \(HTTP 401\)/],
		["Negotiate", /refuses a\/b to anonymous users \(HTTP 401\)/],
	])("by %s is refused", async (challenge, message) => {
		before = (_request, response) => response.writeHead(401, { "www-authenticate": challenge }).end() !== undefined;
		await expect(resolve()).rejects.toThrow(message);
		expect(requests).toHaveLength(1);
	});

	it.each([{}, { token: 7 }, { token: "a\nb" }, { token: "" }])("that answers %j gives no token", async (answer) => {
		await demand(
			() => true,
			() => answer,
		);
		await expect(resolve()).rejects.toThrow(/answers without a token/);
	});

	it("with a config.json that cannot be read says what is wrong with it", async () => {
		before = (_request, response) =>
			response.writeHead(401, { "www-authenticate": 'Basic realm="r"' }).end() !== undefined;
		const path = join(folder, "config.json");
		for (const [text, reason] of [
			["secret", "it is no JSON"],
			['{"auths":{"h":{"auth":7}}}', "expected string"],
			[JSON.stringify({ auths: { [host]: { auth: btoa("nothing") } } }), "is not USER:PASSWORD in base64"],
		] as const) {
			writeFileSync(path, text);
			await expect(resolve()).rejects.toMatchObject({
				code: "invalid-argument",
				message: expect.stringContaining(reason),
			});
		}
	});

	it("is no matter where a registry takes no more requests", async () => {
		before = (_request, response) => response.writeHead(429).end() !== undefined;
		await expect(resolve()).rejects.toThrow(`${host} takes no more requests for now (HTTP 429)`);
		expect(requests).toHaveLength(1);
	});
});

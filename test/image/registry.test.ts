/** Container images from a real registry, made and pushed by real tools. */

import { execFileSync } from "node:child_process";
import { createHash, createPrivateKey, randomUUID, sign, X509Certificate } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type Server as HttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ContentStore } from "../../src/image/content-store.js";
import { Downloader, type DownloaderOptions } from "../../src/image/download.js";
import { ProgressTracker } from "../../src/image/progress.js";
import type { SourceContext } from "../../src/image/source.js";
import { createOciSource } from "../../src/image/sources/oci/oci.js";
import type { Tree } from "../../src/image/tree.js";
import { silentLog } from "../../src/log.js";
import {
	freePort,
	ImageLayout,
	missingPackages,
	RegistryServer,
	remoteDigest,
	remoteMediaTypes,
	writeFiles,
} from "./support.js";

const missing = missingPackages();
if (missing !== undefined) {
	process.stdout.write(`\ncontainer images are not tried with a real registry here: that takes ${missing}\n`);
}

const MIB = 1_048_576;
const folder = mkdtempSync(join(tmpdir(), "sandbox86-registry-"));
let registry: RegistryServer;
let layout: ImageLayout;
/** Of one test: cache, contents, settings. */
let work: string;
let store: ContentStore;

function context(options: Partial<DownloaderOptions> = {}): SourceContext {
	return {
		store,
		downloader: new Downloader({ folder: join(work, "downloads"), log: silentLog, ...options }),
		home: work,
		recipeFolder: work,
		packages: [],
		mirror: undefined,
		workInGuest: () => Promise.reject(new Error("a container image needs no guest")),
		progress: new ProgressTracker(() => {}),
		log: silentLog,
		signal: undefined,
	};
}

const source = () => createOciSource({ dockerConfigPath: join(work, "config.json") });

async function build(reference: string, options: Partial<DownloaderOptions> = {}) {
	const lock = await source().resolve(reference, context(options));
	return { lock, ...(await source().make(lock, context(options))) };
}

/** Paths of all files and links with what is in them. */
async function filesOf(tree: Tree): Promise<Record<string, string>> {
	const files: Record<string, string> = {};
	for (const [path, node] of tree.entries()) {
		if (node.kind === "file") files[path] = (await store.read(node.sha256)).toString();
		if (node.kind === "symlink") files[path] = `-> ${node.target}`;
	}
	return files;
}

/** Bytes that gzip makes no smaller. */
function noise(bytes: number): Buffer {
	const parts: Buffer[] = [];
	for (let at = 0; at * 32 < bytes; at++) parts.push(createHash("sha256").update(String(at)).digest());
	return Buffer.concat(parts).subarray(0, bytes);
}

describe.skipIf(missing !== undefined)(
	`a real registry${missing === undefined ? "" : ` (skipped: needs ${missing})`}`,
	() => {
		beforeAll(async () => {
			registry = new RegistryServer(join(folder, "registry"), await freePort());
			await registry.start();
			layout = new ImageLayout(join(folder, "layout"));
			layout.make(
				"layers",
				[
					(root) => {
						writeFiles(root, {
							"etc/motd": "first",
							"etc/gone": "1",
							"usr/lib/a": "a",
							"usr/lib/b": "b",
							"opaque/old": "1",
						});
						symlinkSync("usr/lib", join(root, "lib"));
					},
					(root) => {
						rmSync(join(root, "etc/gone"));
						rmSync(join(root, "usr/lib"), { recursive: true });
						writeFiles(root, { "etc/motd": "second", "usr/lib/c": "c" });
					},
				],
				{ env: ["PATH=/usr/bin", "GREETING=hello world"] },
			);
			const upper = join(folder, "upper");
			writeFiles(upper, { new: "2" });
			layout.replaceFolder("layers", upper, "/opaque");
			layout.make("other", [(root) => writeFiles(root, { other: "amd64" })], { architecture: "amd64" });
			layout.makeList("list", [
				{ tag: "other", architecture: "amd64" },
				{ tag: "layers", architecture: "386" },
			]);
			layout.makeList("unfit", [{ tag: "other", architecture: "amd64" }]);
		});
		afterAll(async () => {
			await registry?.kill();
			rmSync(folder, { recursive: true, force: true });
		});
		beforeEach(() => {
			work = mkdtempSync(join(folder, "work-"));
			store = new ContentStore(join(work, "files"));
		});

		const LAYERS = {
			"etc/motd": "second",
			lib: "-> usr/lib",
			"opaque/new": "2",
			"usr/lib/c": "c",
		};

		it("gives an image by its tag: layers over one another, with whiteouts and opaque folders", async () => {
			const reference = `${registry.host}/test/layers:1`;
			layout.push("layers", reference);
			const { lock, tree, env, epoch } = await build(reference);
			expect(await filesOf(tree)).toEqual(LAYERS);
			expect(lock.manifest).toBe(remoteDigest(reference));
			expect(lock.layers.length).toBe(3);
			expect(env).toEqual({ PATH: "/usr/bin", GREETING: "hello world" });
			// umoci writes the time of each step into the history.
			expect(Math.abs(epoch - Date.now() / 1000)).toBeLessThan(600);
		});

		it("gives it by its digest, though the tag is another's by now", async () => {
			const reference = `${registry.host}/test/moved:1`;
			layout.push("layers", reference);
			const digest = remoteDigest(reference);
			layout.push("other", reference);
			await expect(build(reference)).rejects.toThrow(
				/is for linux\/amd64, not for linux\/386; the guest is 32-bit x86/,
			);
			for (const name of [`${registry.host}/test/moved@${digest}`, `${reference}@${digest}`]) {
				expect((await build(name)).lock.manifest).toBe(digest);
			}
		});

		it("gives a lock from which the same tree is made when the tag is another's", async () => {
			const reference = `${registry.host}/test/locked:1`;
			layout.push("layers", reference);
			const lock = await source().resolve(reference, context());
			layout.push("other", reference);
			const { tree } = await source().make(source().lockSchema.parse(JSON.parse(JSON.stringify(lock))), context());
			expect(await filesOf(tree)).toEqual(LAYERS);
		});

		it.each([
			["oci"],
			["v2s2"],
		])("gives what fits of a list in the format %s, and says what there is where nothing does", async (format) => {
			const reference = `${registry.host}/test/list-${format}`;
			layout.push("list", reference, "--format", format);
			expect(remoteMediaTypes(reference)[0]).toBe(
				format === "oci"
					? "application/vnd.oci.image.index.v1+json"
					: "application/vnd.docker.distribution.manifest.list.v2+json",
			);
			expect(await filesOf((await build(reference)).tree)).toEqual(LAYERS);
			layout.push("unfit", `${reference}:unfit`, "--format", format);
			await expect(build(`${reference}:unfit`)).rejects.toMatchObject({
				code: "build-failed",
				message: `${reference}:unfit is for linux/amd64, not for linux/386; the guest is 32-bit x86`,
			});
		});

		it("gives layers of zstd, and those of Docker's own format", async () => {
			const zstd = `${registry.host}/test/zstd:1`;
			layout.pushZstd("layers", zstd);
			expect(remoteMediaTypes(zstd).slice(1)).toEqual(Array(3).fill("application/vnd.oci.image.layer.v1.tar+zstd"));
			expect(await filesOf((await build(zstd)).tree)).toEqual(LAYERS);
			const docker = `${registry.host}/test/docker:1`;
			layout.push("layers", docker, "--format", "v2s2");
			expect(remoteMediaTypes(docker)).toEqual([
				"application/vnd.docker.distribution.manifest.v2+json",
				...Array(3).fill("application/vnd.docker.image.rootfs.diff.tar.gzip"),
			]);
			expect(await filesOf((await build(docker)).tree)).toEqual(LAYERS);
		});

		it("says which image it does not have", async () => {
			const reference = `${registry.host}/test/nothing:1`;
			await expect(build(reference)).rejects.toMatchObject({
				code: "not-found",
				message: `${registry.host} has no ${reference}`,
			});
		});

		it("that died halfway through a layer is asked for the rest when it is back", async () => {
			layout.make("large", [(root) => writeFiles(root, { noise: noise(8 * MIB) })]);
			layout.push("large", `${registry.host}/test/large:1`);
			const proxy = new CuttingProxy(registry.port);
			const reference = `127.0.0.1:${await proxy.listen()}/test/large:1`;
			try {
				const lock = await source().resolve(reference, context());
				let restarted: Promise<void> | undefined;
				proxy.cutAfter(3 * MIB, () => {
					restarted = registry.kill().then(() => registry.start());
				});
				let received = 0;
				const { tree } = await source().make(lock, context({ onBytes: (bytes) => (received += bytes), rounds: 8 }));
				await restarted;
				expect(restarted).toBeDefined();
				expect(tree.get("noise")).toMatchObject({ sizeBytes: 8 * MIB });
				expect(received).toBe(lock.layers[0]?.sizeBytes);
			} finally {
				await proxy.close();
			}
		});

		it("whose disk has other bytes by now is caught at the layer, the configuration and the manifest", async () => {
			layout.make("changed", [(root) => writeFiles(root, { content: "of its own" })]);
			const reference = `${registry.host}/test/changed:1`;
			layout.push("changed", reference);
			const lock = await source().resolve(reference, context());
			const digest = remoteDigest(reference);
			const damage = (blob: string) => {
				const path = registry.blobPath(blob);
				const bytes = readFileSync(path);
				// Within a name or a number, so that it stays JSON.
				const at = bytes.length - 20;
				bytes[at] = (bytes[at] ?? 0) ^ 1;
				writeFileSync(path, bytes);
			};
			damage(lock.layers[0]?.digest ?? "");
			await expect(source().make(lock, context())).rejects.toMatchObject({
				code: "corrupt",
				message: expect.stringContaining("is not what the image's manifest says: its SHA-256 is"),
			});
			damage(lock.config.digest);
			await expect(source().resolve(reference, context())).rejects.toMatchObject({
				code: "corrupt",
				message: expect.stringContaining(`configuration of ${reference} is not ${lock.config.digest}`),
			});
			damage(digest);
			await expect(source().resolve(`${registry.host}/test/changed@${digest}`, context())).rejects.toMatchObject({
				code: "corrupt",
			});
		});

		describe("that wants to know who asks", () => {
			let guarded: RegistryServer;
			let tokens: HttpServer | undefined;
			beforeEach(async () => {
				layout.push("layers", `${registry.host}/test/private:1`);
				guarded = new RegistryServer(registry.folder, await freePort());
			});
			afterEach(async () => {
				await guarded.kill();
				tokens?.closeAllConnections();
				tokens?.close();
				tokens = undefined;
			});
			const logIn = (user: string, password: string) => {
				const auth = Buffer.from(`${user}:${password}`).toString("base64");
				writeFileSync(join(work, "config.json"), JSON.stringify({ auths: { [guarded.host]: { auth } } }));
			};

			it("by password takes the one of config.json, and says where it looked without", async () => {
				const path = join(work, "htpasswd");
				writeFileSync(path, execFileSync("htpasswd", ["-Bbn", "me", "pass:word"]));
				await guarded.start({ htpasswd: { realm: "test", path } });
				const reference = `${guarded.host}/test/private:1`;
				await expect(build(reference)).rejects.toMatchObject({
					code: "network",
					message: `${guarded.host} refuses test/private to anonymous users (HTTP 401)`,
					hint: expect.stringContaining(`user and password are taken from "auths" in ${join(work, "config.json")}`),
				});
				logIn("me", "wrong");
				await expect(build(reference)).rejects.toThrow(/refuses test\/private to the user that .*config\.json names/);
				logIn("me", "pass:word");
				expect(await filesOf((await build(reference)).tree)).toEqual(LAYERS);
			});

			it("by token gets one for what is asked, for anybody or for the user of config.json", async () => {
				const server = new TokenServer(work);
				tokens = server.http;
				await guarded.start({ token: await server.listen() });
				const reference = `${guarded.host}/test/private:1`;
				expect(await filesOf((await build(reference)).tree)).toEqual(LAYERS);
				expect(server.asked).toEqual([
					// One for resolving, one for making.
					{ user: undefined, service: "the registry", scope: "repository:test/private:pull" },
					{ user: undefined, service: "the registry", scope: "repository:test/private:pull" },
				]);
				server.onlyFor = "me:secret";
				await expect(build(reference)).rejects.toThrow(/refuses test\/private to anonymous users \(HTTP 401\)/);
				logIn("me", "secret");
				expect(await filesOf((await build(reference)).tree)).toEqual(LAYERS);
				expect(server.asked.at(-1)?.user).toBe("me:secret");
			});

			it("by token refuses one that has expired, and that is said", async () => {
				const server = new TokenServer(work);
				tokens = server.http;
				server.ageSeconds = 3600;
				await guarded.start({ token: await server.listen() });
				await expect(build(`${guarded.host}/test/private:1`)).rejects.toThrow(/to anonymous users \(HTTP 401\)/);
				expect(server.asked).toHaveLength(1);
			});
		});
	},
);

/** Hands bytes on both ways, and breaks everything off once when so many have come from the server. */
class CuttingProxy {
	readonly #target: number;
	readonly #server: Server;
	readonly #sockets = new Set<Socket>();
	#left = Number.POSITIVE_INFINITY;
	#onCut: () => void = () => {};

	constructor(target: number) {
		this.#target = target;
		this.#server = createServer((client) => this.#join(client));
	}

	async listen(): Promise<number> {
		await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
		return (this.#server.address() as AddressInfo).port;
	}

	cutAfter(bytes: number, onCut: () => void): void {
		this.#left = bytes;
		this.#onCut = onCut;
	}

	#join(client: Socket): void {
		const server = connect(this.#target, "127.0.0.1");
		for (const [from, to] of [
			[client, server],
			[server, client],
		] as const) {
			this.#sockets.add(from);
			from.on("error", () => {});
			from.on("close", () => {
				this.#sockets.delete(from);
				to.destroy();
			});
		}
		client.pipe(server);
		server.on("data", (bytes) => {
			if (this.#left < bytes.length) {
				this.#left = Number.POSITIVE_INFINITY;
				this.#onCut();
				this.#breakOff();
				return;
			}
			this.#left -= bytes.length;
			if (client.write(bytes)) return;
			server.pause();
			client.once("drain", () => server.resume());
		});
	}

	#breakOff(): void {
		for (const socket of this.#sockets) socket.destroy();
	}

	async close(): Promise<void> {
		this.#breakOff();
		await new Promise((resolve) => this.#server.close(resolve));
	}
}

/** Gives tokens as distribution.github.io/distribution/spec/auth/jwt says, signed with a key that the registry trusts. */
class TokenServer {
	readonly asked: { user: string | undefined; service: string | null; scope: string | null }[] = [];
	/** "USER:PASSWORD" that alone gets a token for what it asks for; undefined: everybody. */
	onlyFor: string | undefined;
	/** How long ago its tokens were given, s; they are good for 60 s. */
	ageSeconds = 0;
	readonly http: HttpServer;
	readonly #keyPath: string;
	readonly #certificatePath: string;

	constructor(folder: string) {
		mkdirSync(folder, { recursive: true });
		this.#keyPath = join(folder, "token.key");
		this.#certificatePath = join(folder, "token.crt");
		execFileSync(
			"openssl",
			["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens", "-days", "2"].concat([
				"-keyout",
				this.#keyPath,
				"-out",
				this.#certificatePath,
			]),
			{ stdio: "pipe" },
		);
		this.http = createHttpServer((request, response) => {
			const { searchParams } = new URL(request.url ?? "", "http://tokens");
			const basic = /^Basic (.*)$/.exec(request.headers.authorization ?? "")?.[1];
			const user = basic === undefined ? undefined : Buffer.from(basic, "base64").toString();
			const scope = searchParams.get("scope");
			this.asked.push({ user, service: searchParams.get("service"), scope });
			const isAllowed = this.onlyFor === undefined || user === this.onlyFor;
			response.end(JSON.stringify({ token: this.#tokenFor(isAllowed ? scope : null), expires_in: 60 }));
		});
	}

	/** Listens, and says how the registry is told of it. */
	async listen(): Promise<object> {
		await new Promise<void>((resolve) => this.http.listen(0, "127.0.0.1", resolve));
		return {
			realm: `http://127.0.0.1:${(this.http.address() as AddressInfo).port}/token`,
			service: "the registry",
			issuer: "the token server",
			rootcertbundle: this.#certificatePath,
		};
	}

	#tokenFor(scope: string | null): string {
		const [type, name, actions] = scope?.split(":") ?? [];
		const certificate = new X509Certificate(readFileSync(this.#certificatePath));
		const given = Math.floor(Date.now() / 1000) - this.ageSeconds;
		const header = { typ: "JWT", alg: "RS256", x5c: [certificate.raw.toString("base64")] };
		const claims = {
			iss: "the token server",
			sub: "",
			aud: "the registry",
			exp: given + 60,
			nbf: given - 10,
			iat: given,
			jti: randomUUID(),
			access: scope === null ? [] : [{ type, name, actions: actions?.split(",") }],
		};
		const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
		const key = createPrivateKey(readFileSync(this.#keyPath));
		return `${signed}.${sign("RSA-SHA256", Buffer.from(signed), key).toString("base64url")}`;
	}
}

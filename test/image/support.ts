/** A real registry (Debian's docker-registry) and real tools that make and push images (umoci, skopeo). */

import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { dirname, join } from "node:path";

/** Programs and the Debian packages that have them. */
const NEEDED = {
	"docker-registry": "docker-registry",
	skopeo: "skopeo",
	umoci: "umoci",
	zstd: "zstd",
	htpasswd: "apache2-utils",
	openssl: "openssl",
} as const;

/** The Debian packages that lack here; undefined: none. */
export function missingPackages(): string | undefined {
	const missing = Object.entries(NEEDED).filter(
		([program]) => spawnSync("sh", ["-c", `command -v ${program}`]).status !== 0,
	);
	return missing.length === 0 ? undefined : missing.map(([, name]) => name).join(" ");
}

export async function freePort(): Promise<number> {
	const server = createTcpServer();
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	const { port } = server.address() as AddressInfo;
	await new Promise((resolve) => server.close(resolve));
	return port;
}

/** docker-registry on a port of 127.0.0.1; several may serve one folder one after the other. */
export class RegistryServer {
	readonly folder: string;
	readonly port: number;
	#process: ChildProcess | undefined;

	constructor(folder: string, port: number) {
		this.folder = folder;
		this.port = port;
	}

	get host(): string {
		return `127.0.0.1:${this.port}`;
	}

	/** `auth`: the section of that name of its configuration (docs: distribution, "Configuring a registry"), as JSON. */
	async start(auth?: object): Promise<void> {
		const path = join(this.folder, "config.yml");
		mkdirSync(this.folder, { recursive: true });
		// YAML is a superset of JSON.
		const config = {
			version: "0.1",
			log: { level: "info", accesslog: { disabled: true } },
			storage: { filesystem: { rootdirectory: join(this.folder, "storage") } },
			http: { addr: this.host, secret: "of these tests" },
			...(auth === undefined ? {} : { auth }),
		};
		writeFileSync(path, JSON.stringify(config));
		const child = spawn("docker-registry", ["serve", path], { stdio: ["ignore", "ignore", "pipe"] });
		this.#process = child;
		let output = "";
		const listening = new Promise<void>((resolve) => {
			child.stderr?.on("data", (text) => {
				output = (output + text).slice(-4000);
				if (output.includes("listening on")) resolve();
			});
		});
		const ended = once(child, "exit").then(() => {
			throw new Error(`docker-registry ended: ${output}`);
		});
		ended.catch(() => undefined);
		await Promise.race([listening, ended]);
	}

	/** As a crash does. */
	async kill(): Promise<void> {
		const child = this.#process;
		this.#process = undefined;
		if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
		const ended = once(child, "exit");
		child.kill("SIGKILL");
		await ended;
	}

	/** Where it keeps a blob. */
	blobPath(digest: string): string {
		const hex = digest.slice("sha256:".length);
		return join(this.folder, "storage/docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
	}
}

export interface ImageOptions {
	readonly architecture?: string;
	readonly env?: readonly string[];
}

/** A folder in the OCI image layout, with images by tag. */
export class ImageLayout {
	readonly folder: string;

	constructor(folder: string) {
		this.folder = folder;
		umoci("init", "--layout", folder);
	}

	/** Makes an image of layers: each `change` gets the root folder that the layers below it make, and may change it. */
	make(tag: string, changes: readonly ((root: string) => void)[], options: ImageOptions = {}): void {
		const image = `${this.folder}:${tag}`;
		umoci("new", "--image", image);
		for (const [at, change] of changes.entries()) {
			const bundle = join(dirname(this.folder), `bundle-${tag}-${at}`);
			const rootless = process.getuid?.() === 0 ? [] : ["--rootless"];
			umoci("unpack", ...rootless, "--image", image, bundle);
			change(join(bundle, "rootfs"));
			umoci("repack", "--image", image, bundle);
		}
		const env = (options.env ?? []).flatMap((entry) => ["--config.env", entry]);
		umoci("config", "--image", image, "--os", "linux", "--architecture", options.architecture ?? "386", ...env);
	}

	/** Adds a layer that puts `source` in the place of a folder, whatever lay in that ("opaque"). */
	replaceFolder(tag: string, source: string, target: string): void {
		umoci("insert", "--image", `${this.folder}:${tag}`, "--opaque", source, target);
	}

	/** A list (image index) of other images of the layout. */
	makeList(tag: string, images: readonly { readonly tag: string; readonly architecture: string }[]): void {
		const index = this.#readIndex();
		const manifests = images.map(({ tag: name, architecture }) => {
			const { mediaType, digest, size } =
				index.manifests.find(({ annotations }) => annotations[REF_NAME] === name) ?? {};
			return { mediaType, digest, size, platform: { os: "linux", architecture } };
		});
		const bytes = JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests });
		const hex = createHash("sha256").update(bytes).digest("hex");
		writeFileSync(join(this.folder, "blobs/sha256", hex), bytes);
		index.manifests.push({
			mediaType: INDEX_TYPE,
			digest: `sha256:${hex}`,
			size: bytes.length,
			annotations: { [REF_NAME]: tag },
		});
		writeFileSync(join(this.folder, "index.json"), JSON.stringify(index));
	}

	/** Copies an image to a registry, with its layers compressed with zstd. */
	pushZstd(tag: string, to: string): void {
		// A push compresses nothing anew; a copy to a folder does.
		const folder = `${this.folder}-${tag}-zstd`;
		skopeo("copy", "--dest-compress", "--dest-compress-format", "zstd", `oci:${this.folder}:${tag}`, `dir:${folder}`);
		skopeo("copy", "--dest-tls-verify=false", `dir:${folder}`, `docker://${to}`);
	}

	#readIndex(): LayoutIndex {
		return JSON.parse(readFileSync(join(this.folder, "index.json"), "utf8"));
	}

	/** Copies an image or a list to a registry. `options`: of skopeo copy. */
	push(tag: string, to: string, ...options: string[]): void {
		skopeo("copy", "--all", "--dest-tls-verify=false", ...options, `oci:${this.folder}:${tag}`, `docker://${to}`);
	}
}

const INDEX_TYPE = "application/vnd.oci.image.index.v1+json";
const REF_NAME = "org.opencontainers.image.ref.name";

interface LayoutIndex {
	readonly manifests: {
		readonly mediaType: string;
		readonly digest: string;
		readonly size: number;
		readonly annotations: Readonly<Record<string, string>>;
	}[];
}

/** The digest that a registry has a tag under, as skopeo sees it. */
export function remoteDigest(reference: string): string {
	const raw = skopeo("inspect", "--raw", "--tls-verify=false", `docker://${reference}`);
	return `sha256:${createHash("sha256").update(raw).digest("hex")}`;
}

export function remoteMediaTypes(reference: string): string[] {
	const raw = JSON.parse(skopeo("inspect", "--raw", "--tls-verify=false", `docker://${reference}`).toString());
	return [raw.mediaType, ...(raw.layers ?? []).map(({ mediaType }: { mediaType: string }) => mediaType)];
}

function umoci(...args: string[]): void {
	execFileSync("umoci", args, { stdio: ["ignore", "ignore", "pipe"] });
}

function skopeo(...args: string[]): Buffer {
	return execFileSync("skopeo", ["--insecure-policy", ...args], { stdio: ["ignore", "pipe", "pipe"] });
}

/** Writes files below a folder, by their relative paths. */
export function writeFiles(folder: string, files: Readonly<Record<string, string | Uint8Array>>): void {
	for (const [path, content] of Object.entries(files)) {
		const target = join(folder, path);
		if (!existsSync(dirname(target))) mkdirSync(dirname(target), { recursive: true });
		writeFileSync(target, content);
	}
}

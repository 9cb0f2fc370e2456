/**
 * What registries hold beside layers: indices, manifests and configurations of the OCI image specification 1.1 and of
 * Docker's image manifest version 2, schema 2, which have the same fields. Annotations and unknown fields are left out.
 */

import { z } from "zod";
import { SandboxError } from "../../../errors.js";
import { limits } from "../../limits.js";
import { sha256Of } from "../../sha256.js";
import { isSha256 } from "./reference.js";

const INDEX_TYPES: readonly string[] = [
	"application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: readonly string[] = [
	"application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: readonly string[] = [
	"application/vnd.oci.image.config.v1+json",
	"application/vnd.docker.container.image.v1+json",
];
const LAYER_TYPES: readonly string[] = [
	"application/vnd.oci.image.layer.v1.tar",
	"application/vnd.oci.image.layer.v1.tar+gzip",
	"application/vnd.oci.image.layer.v1.tar+zstd",
	"application/vnd.docker.image.rootfs.diff.tar",
	"application/vnd.docker.image.rootfs.diff.tar.gzip",
	"application/vnd.docker.image.rootfs.diff.tar.zstd",
];
/** What a registry is asked for. */
export const ACCEPTED_TYPES = [...INDEX_TYPES, ...MANIFEST_TYPES].join(", ");

const OS = "linux";
const ARCHITECTURE = "386";
const THIS_PLATFORM = `${OS}/${ARCHITECTURE}`;

const digestSchema = z.string().refine(isSha256, 'must be "sha256:" and 64 digits of 0-9 a-f');
const sizeSchema = z.int().min(0);

const descriptorSchema = z.object({
	mediaType: z.string().max(255),
	digest: digestSchema,
	size: sizeSchema,
});
export type Descriptor = z.infer<typeof descriptorSchema>;

const platformSchema = z.object({
	os: z.string().max(64),
	architecture: z.string().max(64),
	variant: z.string().max(64).optional(),
});
type Platform = z.infer<typeof platformSchema>;

const indexSchema = z.object({
	schemaVersion: z.literal(2),
	mediaType: z.enum(INDEX_TYPES).optional(),
	manifests: z.array(descriptorSchema.extend({ platform: platformSchema.optional() })).max(limits.maxIndexManifests),
	layers: z.never().optional(),
	config: z.never().optional(),
});

const manifestSchema = z.object({
	schemaVersion: z.literal(2),
	mediaType: z.enum(MANIFEST_TYPES).optional(),
	config: descriptorSchema,
	layers: z.array(descriptorSchema).min(1).max(limits.maxLayers),
	manifests: z.never().optional(),
});

const configSchema = z.object({
	os: z.string().max(64),
	architecture: z.string().max(64),
	variant: z.string().max(64).optional(),
	created: z.string().nullish(),
	config: z.object({ Env: z.array(z.string()).nullish() }).nullish(),
	rootfs: z.object({ type: z.literal("layers"), diff_ids: z.array(digestSchema).max(limits.maxLayers) }),
	history: z.array(z.object({ created: z.string().nullish() })).nullish(),
});

export type Document =
	| { readonly kind: "index"; readonly chosen: Descriptor }
	| { readonly kind: "manifest"; readonly config: Descriptor; readonly layers: readonly Descriptor[] };

export interface ImageConfig {
	/** SHA-256 digests of the uncompressed layers, bottom first. */
	readonly diffIds: readonly string[];
	readonly env: Readonly<Record<string, string>>;
	/** Newest date of the configuration, seconds since 1970; 0 where it has none. */
	readonly createdSeconds: number;
}

/** Throws SandboxError("corrupt") unless the bytes are those that the descriptor names. */
export function verify(bytes: Uint8Array, { digest, size }: Pick<Descriptor, "digest" | "size">, what: string): void {
	const found = digestOf(bytes);
	if (bytes.length === size && found === digest) return;
	throw new SandboxError(
		"corrupt",
		`${what} is not ${digest} of ${size} bytes, but ${found} of ${bytes.length}`,
		"the registry's copy is damaged or tampered with",
	);
}

export function digestOf(bytes: Uint8Array): string {
	return `sha256:${sha256Of(bytes)}`;
}

/** Reads an index or a manifest and checks that this program can use it; of an index, the entry for linux/386 is chosen. */
export function readDocument(bytes: Uint8Array, what: string): Document {
	const value = parseJson(bytes, what);
	if (value.schemaVersion === 1) {
		throw unusable(
			`${what} has the manifest format of 2014 (schema 1)`,
			"ask its owner to push it anew: every client of today writes another format",
		);
	}
	if (value.manifests !== undefined) {
		const index = check(indexSchema, value, what);
		return { kind: "index", chosen: choosePlatform(index.manifests, what) };
	}
	const { config, layers } = check(manifestSchema, value, what);
	if (!CONFIG_TYPES.includes(config.mediaType)) {
		throw unusable(`${what} is not a container image but an artifact of the type ${config.mediaType}`);
	}
	for (const [at, { mediaType }] of layers.entries()) checkLayerType(mediaType, `layer ${at + 1} of ${what}`);
	const bytesInAll = layers.reduce((sum, { size }) => sum + size, 0);
	if (bytesInAll > limits.maxImageBytes) {
		throw unusable(`the layers of ${what} have ${bytesInAll} bytes, ${limits.maxImageBytes} are allowed`);
	}
	return { kind: "manifest", config, layers };
}

/** Reads an image's configuration and checks that it is for this guest and has an entry for each of the layers. */
export function readConfig(bytes: Uint8Array, layers: number, what: string): ImageConfig {
	const config = check(configSchema, parseJson(bytes, what), what);
	if (config.os !== OS || config.architecture !== ARCHITECTURE) {
		throw wrongPlatform(what, [config]);
	}
	const { diff_ids } = config.rootfs;
	if (diff_ids.length !== layers) {
		throw new SandboxError("corrupt", `${what} names ${diff_ids.length} layers, its manifest ${layers}`);
	}
	return {
		diffIds: diff_ids,
		env: readEnv(config.config?.Env ?? [], what),
		createdSeconds: newestDate([config.created, ...(config.history ?? []).map(({ created }) => created)]),
	};
}

function choosePlatform(
	manifests: readonly (Descriptor & { platform?: Platform | undefined })[],
	what: string,
): Descriptor {
	const usable = manifests.filter(
		({ mediaType }) => INDEX_TYPES.includes(mediaType) || MANIFEST_TYPES.includes(mediaType),
	);
	const fitting = usable.find(({ platform }) => platform?.os === OS && platform.architecture === ARCHITECTURE);
	if (fitting !== undefined) return fitting;
	// One that says nothing may fit: its configuration tells.
	const [silent, another] = usable.filter(({ platform }) => platform === undefined);
	if (silent !== undefined && another === undefined) return silent;
	throw wrongPlatform(
		what,
		usable.flatMap(({ platform }) => platform ?? []),
	);
}

function wrongPlatform(what: string, platforms: readonly Platform[]): SandboxError {
	// Signatures and provenance stand in lists as unknown/unknown.
	const names = platforms
		.filter(({ os }) => os !== "unknown")
		.map(({ os, architecture, variant }) => [os, architecture, variant].filter((part) => part !== undefined).join("/"));
	const there = names.length === 0 ? "no platform" : [...new Set(names)].slice(0, 20).join(", ");
	return unusable(
		`${what} is for ${there}, not for ${THIS_PLATFORM}; the guest is 32-bit x86`,
		"choose an image that is built for linux/386, as Debian's, Alpine's and busybox's are",
	);
}

function checkLayerType(mediaType: string, what: string): void {
	if (LAYER_TYPES.includes(mediaType)) return;
	if (mediaType.includes("nondistributable") || mediaType.includes(".foreign.")) {
		throw unusable(`${what} is not distributable (${mediaType}): registries do not hold it`);
	}
	if (mediaType.includes("encrypted")) throw unusable(`${what} is encrypted (${mediaType})`);
	throw unusable(`${what} has the unknown type ${mediaType}`);
}

/** Variables as "NAME=value". Those with a name that no shell can set are left out. */
function readEnv(entries: readonly string[], what: string): Record<string, string> {
	const bytes = entries.reduce((sum, entry) => sum + Buffer.byteLength(entry), 0);
	if (entries.length > limits.maxEnvVariables || bytes > limits.maxEnvBytes) {
		throw unusable(
			`${what} has ${entries.length} environment variables of ${bytes} bytes, ${limits.maxEnvVariables} of ${limits.maxEnvBytes} bytes are allowed`,
		);
	}
	return Object.fromEntries(
		entries.flatMap((entry) => {
			const match = /^([A-Za-z_][A-Za-z0-9_]*)=([^\0]*)$/.exec(entry);
			return match?.[1] === undefined || match[2] === undefined ? [] : [[match[1], match[2]]];
		}),
	);
}

/** Seconds since 1970. Dates that a 32-bit clock cannot show are left out. */
function newestDate(dates: readonly (string | null | undefined)[]): number {
	const seconds = dates.map((date) => Math.floor(Date.parse(date ?? "") / 1000));
	return Math.max(0, ...seconds.filter((value) => value >= 0 && value < 2 ** 31));
}

function parseJson(bytes: Uint8Array, what: string): Record<string, unknown> {
	let value: unknown;
	try {
		value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
	} catch (error) {
		throw new SandboxError("corrupt", `${what} is no JSON`, undefined, { cause: error });
	}
	if (typeof value !== "object" || value === null) throw new SandboxError("corrupt", `${what} is no JSON object`);
	return value as Record<string, unknown>;
}

function check<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
	const parsed = schema.safeParse(value);
	if (parsed.success) return parsed.data;
	const issues = parsed.error.issues.slice(0, 3).map(({ path, message }) => `${path.join(".")}: ${message}`);
	throw new SandboxError("corrupt", `${what} cannot be read: ${issues.join("; ").slice(0, 500)}`);
}

function unusable(message: string, hint?: string): SandboxError {
	return new SandboxError("build-failed", message, hint);
}

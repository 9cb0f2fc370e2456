/** Names of container images, as Docker reads them (github.com/distribution/reference: reference.go, normalize.go). */

import { isIPv4 } from "node:net";
import { SandboxError } from "../../../errors.js";
import { limits } from "../../limits.js";

export interface Reference {
	/** "docker.io", "ghcr.io", "localhost:5000". */
	readonly registry: string;
	/** "library/alpine". */
	readonly repository: string;
	/** "latest" where the reference has neither tag nor digest. */
	readonly tag: string | undefined;
	/** "sha256:<hex>"; it goes before the tag. */
	readonly digest: string | undefined;
}

const DOCKER_HUB = "docker.io";
const DOMAIN_NAME =
	/^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[A-Fa-f0-9:]+\])(?::[0-9]{1,5})?$/;
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;

/** Reads `[REGISTRY/]NAME[:TAG][@DIGEST]`. Throws SandboxError("invalid-argument") that says which part is wrong. */
export function parseReference(text: string): Reference {
	const refuse = (reason: string) =>
		new SandboxError(
			"invalid-argument",
			`not a reference of a container image: ${JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text)}: ${reason}`,
			"write NAME:TAG, REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…, e.g. alpine:3.21",
		);
	if (text === "") throw refuse("it is empty");
	if (text.length > limits.maxReferenceChars) {
		throw refuse(`it has ${text.length} characters, ${limits.maxReferenceChars} are allowed`);
	}
	const at = text.indexOf("@");
	const digest = at < 0 ? undefined : text.slice(at + 1);
	if (digest !== undefined) {
		if (!DIGEST.test(digest)) throw refuse(`${JSON.stringify(digest)} is no digest`);
		if (!isSha256(digest)) throw refuse(`the digest ${digest} is not "sha256:" and 64 digits of 0-9 a-f`);
	}
	const named = at < 0 ? text : text.slice(0, at);
	const colon = named.lastIndexOf(":");
	const hasTag = colon > named.lastIndexOf("/");
	const tag = hasTag ? named.slice(colon + 1) : undefined;
	if (tag !== undefined && !TAG.test(tag)) {
		throw refuse(`${JSON.stringify(tag)} is no tag (up to 128 of A-Z a-z 0-9 _ . -, the first no . or -)`);
	}
	const name = hasTag ? named.slice(0, colon) : named;
	if (name.length > limits.maxRepositoryChars) {
		throw refuse(`its name has ${name.length} characters, ${limits.maxRepositoryChars} are allowed`);
	}
	if (/^[0-9a-f]{64}$/.test(name)) throw refuse("64 hexadecimal digits are an image's id, not its name");
	const slash = name.indexOf("/");
	const first = slash < 0 ? "" : name.slice(0, slash);
	const isDomain = first === "localhost" || /[.:A-Z[]/.test(first);
	const domain = isDomain ? first : DOCKER_HUB;
	if (!DOMAIN_NAME.test(domain) || !URL.canParse(`http://${domain}`)) {
		throw refuse(`${JSON.stringify(domain)} is no registry (HOST or HOST:PORT)`);
	}
	const registry = domain === "index.docker.io" ? DOCKER_HUB : domain;
	const path = isDomain ? name.slice(slash + 1) : name;
	const repository = registry === DOCKER_HUB && !path.includes("/") ? `library/${path}` : path;
	for (const component of repository.split("/")) {
		if (!PATH_COMPONENT.test(component)) {
			throw refuse(`${JSON.stringify(component)} is no part of a name (a-z 0-9, with . _ __ or - between them)`);
		}
	}
	return { registry, repository, tag: tag ?? (digest === undefined ? "latest" : undefined), digest };
}

/** Whether these are parts of some reference in full. */
export function isName({ registry, repository }: Pick<Reference, "registry" | "repository">): boolean {
	const name = `${registry}/${repository}`;
	try {
		const read = parseReference(name);
		return read.registry === registry && read.repository === repository && read.tag === "latest";
	} catch {
		return false;
	}
}

/** The reference in full: "docker.io/library/alpine:latest". */
export function formatReference({ registry, repository, tag, digest }: Reference): string {
	return `${registry}/${repository}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}

/** The URL that a registry's API is below, without a slash at its end. Plain HTTP is for this host alone. */
export function registryUrl(registry: string): string {
	const host = registry === DOCKER_HUB ? "registry-1.docker.io" : registry;
	const plain = new URL(`http://${host}`);
	return (isLoopback(plain) ? plain : new URL(`https://${host}`)).origin;
}

/** localhost, 127.0.0.0/8 or ::1. */
export function isLoopback({ hostname }: URL): boolean {
	return hostname === "localhost" || hostname === "[::1]" || (isIPv4(hostname) && hostname.startsWith("127."));
}

export function isSha256(digest: string): boolean {
	return /^sha256:[0-9a-f]{64}$/.test(digest);
}

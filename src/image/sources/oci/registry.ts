/**
 * A repository of a registry: HTTP with its authentication and redirects (OCI distribution specification 1.1; Docker's
 * token authentication, distribution.github.io/distribution/spec/auth/token).
 */

import { z } from "zod";
import { SandboxError } from "../../../errors.js";
import { type Downloader, lasting, type Send, type ServerKind } from "../../download.js";
import { limits } from "../../limits.js";
import { type Challenge, parseChallenges } from "./challenge.js";
import { basicCredentials } from "./credentials.js";
import { ACCEPTED_TYPES, type Descriptor, digestOf, verify } from "./manifest.js";
import { isLoopback, registryUrl } from "./reference.js";

export interface RegistryOptions {
	/** "docker.io", "localhost:5000". */
	readonly registry: string;
	/** "library/alpine". */
	readonly repository: string;
	readonly downloader: Downloader;
	readonly dockerConfigPath: string;
}

const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];
const DAMAGED = "the registry's copy is damaged or tampered with";

const tokenAnswerSchema = z
	.object({ token: z.string().optional(), access_token: z.string().optional() })
	.transform(({ token, access_token }) => token ?? access_token)
	.pipe(z.string().regex(/^[\x21-\x7e]+$/));

export class Registry {
	readonly #options: RegistryOptions;
	readonly #url: string;
	/** Value of the header Authorization; undefined until the registry asks for one. */
	#authorization: Promise<string> | undefined;

	constructor(options: RegistryOptions) {
		this.#options = options;
		this.#url = registryUrl(options.registry);
	}

	/** The index or manifest under a tag, with the digest that its bytes have. */
	async fetchTagged(tag: string, what: string): Promise<{ bytes: Buffer; digest: string }> {
		let announced: string | null = null;
		const bytes = await this.#fetchManifest(tag, what, async (url, init) => {
			const response = await this.#send(url, init);
			announced = response.headers.get("docker-content-digest");
			return response;
		});
		const digest = digestOf(bytes);
		if (announced !== null && announced !== digest) {
			throw new SandboxError("corrupt", `${what} is not ${announced}, as the registry says, but ${digest}`, DAMAGED);
		}
		return { bytes, digest };
	}

	/** The index or manifest with a digest; its size is checked where it is known. */
	async fetchManifest(wanted: { digest: string; size?: number }, what: string): Promise<Buffer> {
		const bytes = await this.#fetchManifest(wanted.digest, what, this.#send);
		verify(bytes, { size: bytes.length, ...wanted }, what);
		return bytes;
	}

	/** A blob of at most `maxBytes`, in memory. */
	async fetchSmallBlob(blob: Pick<Descriptor, "digest" | "size">, maxBytes: number, what: string): Promise<Buffer> {
		const bytes = await this.#options.downloader.fetchSmall([this.#url], this.#blobPath(blob.digest), maxBytes, {
			server: this.#server(this.#send),
		});
		if (bytes === undefined) throw this.#missing(what);
		verify(bytes, blob, what);
		return bytes;
	}

	/** Path of the blob in the cache, after fetching what of it is missing. */
	async fetchBlob(blob: Pick<Descriptor, "digest" | "size">, onBytes: (bytes: number) => void): Promise<string> {
		const file = {
			paths: [this.#blobPath(blob.digest)],
			sha256: blob.digest.slice("sha256:".length),
			sizeBytes: blob.size,
		};
		return await this.#options.downloader.fetch([this.#url], file, { server: this.#server(this.#send), onBytes });
	}

	#blobPath(digest: string): string {
		return `v2/${this.#options.repository}/blobs/${digest}`;
	}

	#server(send: Send): ServerKind {
		return { send, promisedBy: "the image's manifest", hint: DAMAGED };
	}

	async #fetchManifest(tagOrDigest: string, what: string, send: Send): Promise<Buffer> {
		const path = `v2/${this.#options.repository}/manifests/${tagOrDigest}`;
		const bytes = await this.#options.downloader.fetchSmall([this.#url], path, limits.maxManifestBytes, {
			server: this.#server((url, { headers, signal }) =>
				send(url, { headers: { ...headers, accept: ACCEPTED_TYPES }, signal }),
			),
		});
		if (bytes === undefined) throw this.#missing(what);
		return bytes;
	}

	#missing(what: string): SandboxError {
		return new SandboxError("not-found", `${this.#options.registry} has no ${what}`, "look at its name and tag");
	}

	/** Sends a request with what the registry wants to be asked with; once more with new credentials where it refuses the old. */
	readonly #send: Send = async (url, { headers, signal }) => {
		const used = this.#authorization;
		const authorize = async (value: Promise<string> | undefined) =>
			value === undefined ? headers : { ...headers, authorization: await value };
		const response = await this.#follow(url, await authorize(used), signal);
		if (response.status === 401 && new URL(response.url).origin === this.#url) {
			await response.body?.cancel();
			// Another request may have got a new one meanwhile.
			if (this.#authorization === used) {
				const challenges = parseChallenges(response.headers.get("www-authenticate") ?? "");
				this.#authorization = this.#answer(challenges);
				this.#authorization.catch(() => undefined);
			}
			const renewed = await this.#follow(url, await authorize(this.#authorization), signal);
			if (renewed.status === 401) {
				await renewed.body?.cancel();
				throw await this.#denied(401);
			}
			return await this.#usable(renewed);
		}
		return await this.#usable(response);
	};

	async #usable(response: Response): Promise<Response> {
		if (response.status !== 403 && response.status !== 429) return response;
		await response.body?.cancel();
		if (response.status === 403) throw await this.#denied(403);
		throw lasting(
			new SandboxError(
				"network",
				`${new URL(response.url).host} takes no more requests for now (HTTP 429)`,
				"try again later; registries often allow more to users who log in with docker login",
			),
		);
	}

	/** One GET request and the redirects that it leads to. Another host gets no credentials. */
	async #follow(url: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Response> {
		let at = new URL(url);
		let sent: Readonly<Record<string, string>> = headers;
		for (let redirects = 0; redirects <= limits.maxRedirects; redirects++) {
			const response = await fetch(at, { headers: sent, signal, redirect: "manual" });
			const location = response.headers.get("location");
			if (!REDIRECTS.includes(response.status) || location === null) return response;
			await response.body?.cancel();
			const to = URL.canParse(location, at.href) ? new URL(location, at.href) : undefined;
			if (to === undefined || !mayAsk(to, at)) {
				throw lasting(
					new SandboxError(
						"network",
						`${at.host} leads to ${JSON.stringify(location.slice(0, 200))}, which is not HTTPS`,
					),
				);
			}
			if (to.origin !== at.origin) {
				const { authorization: _, ...others } = sent;
				sent = others;
			}
			at = to;
		}
		throw lasting(new SandboxError("network", `${url} leads to more than ${limits.maxRedirects} other addresses`));
	}

	/** The header Authorization that answers the challenges. */
	async #answer(challenges: readonly Challenge[]): Promise<string> {
		const { registry, dockerConfigPath } = this.#options;
		const bearer = challenges.find(({ scheme }) => scheme === "bearer");
		if (bearer !== undefined) return `Bearer ${await this.#fetchToken(bearer)}`;
		if (challenges.some(({ scheme }) => scheme === "basic")) {
			const credentials = await basicCredentials(registry, dockerConfigPath);
			if (credentials !== undefined) return `Basic ${credentials}`;
		}
		throw await this.#denied(401);
	}

	async #fetchToken({ parameters }: Challenge): Promise<string> {
		const { registry, repository, downloader, dockerConfigPath } = this.#options;
		const realm = parameters.get("realm") ?? "";
		const url = URL.canParse(realm) ? new URL(realm) : undefined;
		if (url === undefined || !mayAsk(url, new URL(this.#url))) {
			throw lasting(
				new SandboxError(
					"network",
					`${registry} wants tokens from ${JSON.stringify(realm.slice(0, 200))}, which is not an HTTPS address`,
				),
			);
		}
		const service = parameters.get("service");
		if (service !== undefined) url.searchParams.set("service", service);
		url.searchParams.set("scope", parameters.get("scope") ?? `repository:${repository}:pull`);
		const credentials = await basicCredentials(registry, dockerConfigPath);
		const send: Send = async (address, { headers, signal }) => {
			const asked = credentials === undefined ? headers : { ...headers, authorization: `Basic ${credentials}` };
			const response = await this.#follow(address, asked, signal);
			if (response.status !== 401) return await this.#usable(response);
			await response.body?.cancel();
			throw await this.#denied(401);
		};
		const path = `${url.pathname}${url.search}`.replace(/^\/+/, "");
		const bytes = await downloader.fetchSmall([url.origin], path, limits.maxTokenAnswerBytes, {
			server: this.#server(send),
		});
		if (bytes === undefined) {
			throw lasting(
				new SandboxError("network", `${registry} wants tokens from ${url.origin}${url.pathname}, which does not exist`),
			);
		}
		const answer = tokenAnswerSchema.safeParse(parseJson(bytes));
		if (!answer.success)
			throw lasting(new SandboxError("network", `${url.origin}${url.pathname} answers without a token`));
		return answer.data;
	}

	async #denied(status: number): Promise<SandboxError> {
		const { registry, repository, dockerConfigPath } = this.#options;
		const has = (await basicCredentials(registry, dockerConfigPath)) !== undefined;
		return lasting(
			new SandboxError(
				"network",
				`${registry} refuses ${repository} ${has ? `to the user that ${dockerConfigPath} names` : "to anonymous users"} (HTTP ${status})`,
				`${has ? "look at the image's name, and at who may read it" : "look at the image's name; if it is private, log in with docker login"}: user and password are taken from "auths" in ${dockerConfigPath}, credential helpers are not asked`,
			),
		);
	}
}

/** HTTPS may be asked always; plain HTTP only by a server of this host for a server of this host. */
function mayAsk(to: URL, from: URL): boolean {
	if (to.username !== "" || to.password !== "") return false;
	if (to.protocol === "https:") return true;
	return to.protocol === "http:" && isLoopback(to) && from.protocol === "http:" && isLoopback(from);
}

function parseJson(bytes: Buffer): unknown {
	try {
		return JSON.parse(bytes.toString("utf8"));
	} catch {
		return undefined;
	}
}

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as openpgp from "openpgp";
import { SandboxError } from "../../../errors.js";
import type { Log } from "../../../log.js";
import type { Downloader } from "../../download.js";
import { limits } from "../../limits.js";
import { packageFile } from "../../package-files.js";
import { parseStanzas } from "./control.js";

/** A suite's signed table of contents. */
export interface Release {
	/** The signed text as fetched (InRelease), or Release where the mirror has only that one and a detached signature. */
	readonly text: string;
	readonly signature: "inline" | "detached";
	readonly detachedSignature: Uint8Array | undefined;
	readonly codename: string;
	/** Its other name: "stable", "stable-updates"; the code name where it gives none. */
	readonly suite: string;
	/** Milliseconds since 1970. */
	readonly dateMs: number;
	readonly acquireByHash: boolean;
	/** Path below the suite's folder → what it must be. */
	readonly files: ReadonlyMap<string, { readonly sha256: string; readonly sizeBytes: number }>;
}

/** The keys that may sign Debian's archive, from the folder images/debian-archive-keyring of this package. */
export async function readArchiveKeys(folder = packageFile("images/debian-archive-keyring")): Promise<openpgp.Key[]> {
	const keys: openpgp.Key[] = [];
	for (const name of (await readdir(folder)).sort()) {
		if (name.endsWith(".gpg"))
			keys.push(...(await openpgp.readKeys({ binaryKeys: await readFile(join(folder, name)) })));
	}
	if (keys.length === 0) throw new SandboxError("internal", `${folder} holds no keys`);
	return keys;
}

export interface FetchReleaseOptions {
	readonly downloader: Downloader;
	readonly mirrors: readonly string[];
	/** "trixie", "trixie-security" … */
	readonly suite: string;
	readonly keys: readonly openpgp.Key[];
	readonly log: Log;
	readonly nowMs: number;
	/** When the index must not have expired. Default: now. */
	readonly validAtMs?: number;
}

/**
 * Fetches a suite's index from the first mirror whose signature, name and dates are right. Undefined where no mirror has
 * the suite. Throws SandboxError("corrupt") where all that is offered is signed by nobody known.
 */
export async function fetchRelease(options: FetchReleaseOptions): Promise<Release | undefined> {
	let failure: unknown;
	for (const mirror of options.mirrors) {
		try {
			const release = await fetchFrom(mirror, options);
			if (release !== undefined) return release;
		} catch (error) {
			if (!(error instanceof SandboxError) || (error.code !== "network" && error.code !== "corrupt")) throw error;
			options.log.debug(error.message);
			if (!(failure instanceof SandboxError) || failure.code !== "corrupt") failure = error;
		}
	}
	if (failure !== undefined) throw failure;
	return undefined;
}

async function fetchFrom(mirror: string, options: FetchReleaseOptions): Promise<Release | undefined> {
	const { downloader, suite, keys } = options;
	const folder = `dists/${suite}`;
	const source = `${mirror}/${folder}/InRelease`;
	const inline = await downloader.fetchSmall([mirror], `${folder}/InRelease`, limits.maxReleaseBytes);
	if (inline !== undefined) {
		const text = inline.toString("utf8");
		const signed = await verifyInline(text, keys, source);
		return checkRelease(signed, { text, signature: "inline", detachedSignature: undefined }, options, source);
	}
	const plain = await downloader.fetchSmall([mirror], `${folder}/Release`, limits.maxReleaseBytes);
	if (plain === undefined) return undefined;
	const signature = await downloader.fetchSmall([mirror], `${folder}/Release.gpg`, limits.maxReleaseBytes);
	if (signature === undefined) throw new SandboxError("corrupt", `${mirror}/${folder}/Release is not signed`);
	await verifyDetached(plain, signature, keys, `${mirror}/${folder}/Release`);
	const text = plain.toString("utf8");
	return checkRelease(text, { text, signature: "detached", detachedSignature: signature }, options, source);
}

/** The signed text of a clear-signed message. At least one signature must be by one of the keys and right. */
export async function verifyInline(text: string, keys: readonly openpgp.Key[], source: string): Promise<string> {
	return await verifying(source, async () => {
		const message = await openpgp.readCleartextMessage({ cleartextMessage: text });
		const { signatures } = await openpgp.verify({ message, verificationKeys: [...keys] });
		await requireOne(signatures, source);
		return message.getText();
	});
}

/** Checks a detached signature, armored or binary. */
export async function verifyDetached(
	content: Uint8Array,
	signature: Uint8Array,
	keys: readonly openpgp.Key[],
	source: string,
): Promise<void> {
	await verifying(source, async () => {
		const text = Buffer.from(signature).toString("latin1");
		const parsed = text.startsWith("-----BEGIN")
			? await openpgp.readSignature({ armoredSignature: text })
			: await openpgp.readSignature({ binarySignature: signature });
		const message = await openpgp.createMessage({ binary: content });
		const { signatures } = await openpgp.verify({ message, signature: parsed, verificationKeys: [...keys] });
		await requireOne(signatures, source);
	});
}

async function verifying<T>(source: string, work: () => Promise<T>): Promise<T> {
	try {
		return await work();
	} catch (error) {
		if (error instanceof SandboxError) throw error;
		throw unsigned(source, error instanceof Error ? error.message : String(error), error);
	}
}

async function requireOne(
	signatures: readonly { readonly verified: Promise<unknown> }[],
	source: string,
): Promise<void> {
	const reasons: string[] = [];
	for (const signature of signatures) {
		try {
			await signature.verified;
			return;
		} catch (error) {
			reasons.push(error instanceof Error ? error.message : String(error));
		}
	}
	throw unsigned(source, reasons.length === 0 ? "it holds no signature" : reasons.join("; "));
}

function unsigned(source: string, reason: string, cause?: unknown): SandboxError {
	return new SandboxError(
		"corrupt",
		`${source} is not signed by Debian's archive keys: ${reason}`,
		"the mirror is broken or tampered with; choose another one with --mirror",
		{ cause },
	);
}

function checkRelease(
	signed: string,
	how: Pick<Release, "text" | "signature" | "detachedSignature">,
	options: FetchReleaseOptions,
	source: string,
): Release {
	const { suite, nowMs, validAtMs = nowMs } = options;
	const [stanza] = parseStanzas(signed, source);
	const codename = stanza?.get("codename") ?? "";
	if (codename !== suite && stanza?.get("suite") !== suite) {
		throw new SandboxError("corrupt", `${source} is the index of ${JSON.stringify(codename)} instead of ${suite}`);
	}
	const dateMs = Date.parse(stanza?.get("date") ?? "");
	if (Number.isNaN(dateMs)) throw new SandboxError("corrupt", `${source} has no date`);
	const dayMs = 24 * 3600 * 1000;
	if (dateMs > nowMs + dayMs) {
		throw new SandboxError(
			"corrupt",
			`${source} was made in the future (${new Date(dateMs).toISOString()})`,
			"set this computer's clock",
		);
	}
	const validUntil = stanza?.get("valid-until");
	if (validUntil !== undefined && Date.parse(validUntil) < validAtMs) {
		throw new SandboxError(
			"corrupt",
			`${source} expired at ${validUntil}: the mirror is out of date`,
			"choose another mirror with --mirror, or set this computer's clock",
		);
	}
	const files = new Map<string, { sha256: string; sizeBytes: number }>();
	for (const line of (stanza?.get("sha256") ?? "").split("\n")) {
		const match = /^\s*([0-9a-f]{64})\s+(\d{1,12})\s+(\S+)$/.exec(line);
		if (match?.[1] !== undefined && match[2] !== undefined && match[3] !== undefined) {
			files.set(match[3], { sha256: match[1], sizeBytes: Number(match[2]) });
		}
	}
	if (files.size === 0) throw new SandboxError("corrupt", `${source} lists no SHA-256`);
	// It becomes part of an address.
	const suiteField = stanza?.get("suite") ?? "";
	return {
		...how,
		codename,
		suite: /^[a-z-]+$/.test(suiteField) ? suiteField : codename,
		dateMs,
		acquireByHash: stanza?.get("acquire-by-hash") === "yes",
		files,
	};
}

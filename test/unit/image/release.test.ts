import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import * as openpgp from "openpgp";
import { beforeAll, describe, expect, it } from "vitest";
import { SandboxError } from "../../../src/errors.js";
import { Downloader } from "../../../src/image/download.js";
import { sha256Of } from "../../../src/image/sha256.js";
import { fetchRelease, readArchiveKeys } from "../../../src/image/sources/debian/release.js";
import { type OpenRepositoryOptions, openRepository } from "../../../src/image/sources/debian/repository.js";
import { silentLog } from "../../../src/log.js";

const NOW = Date.now();
let ours: openpgp.PrivateKey;
let theirs: openpgp.PrivateKey;

beforeAll(async () => {
	const generate = async (name: string) =>
		(await openpgp.generateKey({ userIDs: [{ name }], format: "object", date: new Date(NOW - 60_000) })).privateKey;
	ours = await generate("archive");
	theirs = await generate("stranger");
});

function textOf(fields: Record<string, string> = {}): string {
	const all = { Codename: "trixie", Date: new Date(NOW - 3600_000).toUTCString(), "Acquire-By-Hash": "yes", ...fields };
	const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
	return `${lines.join("\n")}\nSHA256:\n ${"a".repeat(64)} 12 main/binary-i386/Packages.xz\n`;
}

async function sign(text: string, key = ours): Promise<string> {
	const message = await openpgp.createCleartextMessage({ text });
	return await openpgp.sign({ message, signingKeys: key });
}

/** Mirrors as tables of path → text; a missing path is a 404. */
function mirrors(...tables: Record<string, string>[]) {
	const fetchSmall = async ([mirror]: readonly string[], path: string) => {
		const found = tables[Number(mirror?.slice("http://".length))]?.[path];
		return found === undefined ? undefined : Buffer.from(found);
	};
	return { downloader: { fetchSmall } as unknown as Downloader, mirrors: tables.map((_, at) => `http://${at}`) };
}

async function fetchFrom(...tables: Record<string, string>[]) {
	return await fetchRelease({
		...mirrors(...tables),
		suite: "trixie",
		keys: [ours.toPublic()],
		log: silentLog,
		nowMs: NOW,
	});
}

const IN_RELEASE = "dists/trixie/InRelease";

describe("a signed index", () => {
	it("signed by an archive key is taken, with its files", async () => {
		const release = await fetchFrom({ [IN_RELEASE]: await sign(textOf()) });
		expect(release).toMatchObject({ codename: "trixie", acquireByHash: true, signature: "inline" });
		expect(release?.files.get("main/binary-i386/Packages.xz")).toEqual({ sha256: "a".repeat(64), sizeBytes: 12 });
	});

	it("signed apart (Release and Release.gpg) is taken too", async () => {
		const text = textOf();
		const signature = await openpgp.sign({
			message: await openpgp.createMessage({ binary: Buffer.from(text) }),
			signingKeys: ours,
			detached: true,
		});
		const release = await fetchFrom({ "dists/trixie/Release": text, "dists/trixie/Release.gpg": signature as string });
		expect(release?.signature).toBe("detached");
	});

	const refused: [string, () => Promise<Record<string, string>>, RegExp][] = [
		[
			"by a stranger's key",
			async () => ({ [IN_RELEASE]: await sign(textOf(), theirs) }),
			/is not signed by Debian's archive keys/,
		],
		[
			"changed after signing",
			async () => ({ [IN_RELEASE]: (await sign(textOf())).replace("aaaa", "bbbb") }),
			/is not signed by/,
		],
		["not signed at all", async () => ({ [IN_RELEASE]: textOf() }), /is not signed by/],
		["with Release but no signature", async () => ({ "dists/trixie/Release": textOf() }), /Release is not signed/],
		[
			"of another suite",
			async () => ({ [IN_RELEASE]: await sign(textOf({ Codename: "sid" })) }),
			/the index of "sid" instead of trixie/,
		],
		[
			"that has expired",
			async () => ({ [IN_RELEASE]: await sign(textOf({ "Valid-Until": new Date(NOW - 1000).toUTCString() })) }),
			/expired at/,
		],
		[
			"from the future",
			async () => ({ [IN_RELEASE]: await sign(textOf({ Date: new Date(NOW + 3 * 86_400_000).toUTCString() })) }),
			/was made in the future/,
		],
		["without a date", async () => ({ [IN_RELEASE]: await sign(textOf({ Date: "soon" })) }), /has no date/],
	];
	for (const [what, table, message] of refused) {
		it(`${what} is refused`, async () => {
			const failure = await fetchFrom(await table()).catch((error: unknown) => error);
			expect(failure).toBeInstanceOf(SandboxError);
			expect(failure).toMatchObject({ code: "corrupt", message: expect.stringMatching(message) });
		});
	}

	it("of the next mirror is taken where the first one's is not signed", async () => {
		const good = await sign(textOf());
		expect(await fetchFrom({ [IN_RELEASE]: textOf() }, { [IN_RELEASE]: good })).toMatchObject({ codename: "trixie" });
	});

	it("that no mirror has is undefined", async () => {
		expect(await fetchFrom({}, {})).toBeUndefined();
	});

	it("Debian's own keys are in the package: those of bookworm and trixie", async () => {
		const prints = (await readArchiveKeys()).map((key) => key.getFingerprint().toUpperCase());
		expect(prints).toHaveLength(6);
		expect(prints).toContain("04B54C3CDCA79751B16BC6B5225629DF75B188BD");
		expect(prints).toContain("41587F7DB8C774BCCF131416762F67A0B2C39DE4");
	});
});

describe("a suite whose packages are not those of its signed index", () => {
	const PACKAGES = gzipSync(
		`Package: a\nVersion: 1\nArchitecture: i386\nFilename: pool/a.deb\nSize: 1\nSHA256: ${"b".repeat(64)}\n`,
	);

	/** A mirror's files on a real server, and what is made of them. */
	async function open(files: Record<string, string | Buffer>, expected?: OpenRepositoryOptions["expected"]) {
		const server = createServer(({ url = "" }, response) => {
			const found = files[url.slice(1)];
			response.writeHead(found === undefined ? 404 : 200).end(found);
		});
		await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
		const mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
		const folder = mkdtempSync(join(tmpdir(), "sandbox86-release-"));
		const warnings: string[] = [];
		try {
			const { suites } = await openRepository({
				downloader: new Downloader({ folder, log: silentLog, retryMs: 1 }),
				mirrors: { archive: [mirror], security: [mirror] },
				codename: "trixie",
				keys: [ours.toPublic()],
				log: { ...silentLog, warn: (line: string) => warnings.push(line) },
				nowMs: NOW,
				...(expected === undefined ? {} : { expected }),
			});
			return { suites: suites.map(({ name, release }) => ({ name, dateMs: release.dateMs })), warnings };
		} finally {
			server.close();
			rmSync(folder, { recursive: true });
		}
	}

	function index(date: number, packages: Buffer, fields: Record<string, string> = {}): string {
		const sha256 = createHash("sha256").update(packages).digest("hex");
		const all = { Codename: "trixie", Suite: "stable", Date: new Date(date).toUTCString(), ...fields };
		const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}`);
		return `${lines.join("\n")}\nSHA256:\n ${sha256} ${packages.length} main/binary-i386/Packages.gz\n`;
	}

	const older = Math.floor(NOW / 1000 - 9 * 24 * 3600) * 1000;
	const PATH = "main/binary-i386/Packages.gz";
	const trixie = async () => ({
		[IN_RELEASE]: await sign(index(NOW - 3600_000, Buffer.alloc(PACKAGES.length))),
		[`dists/trixie/${PATH}`]: PACKAGES,
	});

	it("is taken by its other name where that one fits, which is said", async () => {
		const { suites, warnings } = await open({
			...(await trixie()),
			"dists/stable/InRelease": await sign(index(older, PACKAGES)),
			[`dists/stable/${PATH}`]: PACKAGES,
		});
		expect(suites).toEqual([{ name: "trixie", dateMs: older }]);
		const day = new Date(older).toISOString().slice(0, 10);
		expect(warnings).toContainEqual(expect.stringContaining(`trixie is taken from dists/stable, as of ${day}: `));
	});

	it("is found again as a lock file names it, though the mirror has a newer one by its code name", async () => {
		const text = await sign(index(older, PACKAGES, { "Valid-Until": new Date(older + 1000).toUTCString() }));
		const locked = { name: "trixie", date: new Date(older).toISOString(), sha256: sha256Of(text) };
		const newer = { [IN_RELEASE]: await sign(index(NOW - 3600_000, PACKAGES)), [`dists/trixie/${PATH}`]: PACKAGES };
		const stable = { "dists/stable/InRelease": text, [`dists/stable/${PATH}`]: PACKAGES };
		const { suites } = await open({ ...newer, ...stable }, [locked]);
		expect(suites).toEqual([{ name: "trixie", dateMs: older }]);
		await expect(open(newer, [locked])).rejects.toMatchObject({
			code: "mismatch",
			message: expect.stringContaining(`the lock file wants Debian trixie of ${locked.date}, the mirror has that of`),
		});
	});

	it("is refused where the other name is another release's, not signed or not there", async () => {
		const stable = { [`dists/stable/${PATH}`]: PACKAGES };
		const next = await sign(index(older, PACKAGES, { Codename: "forky" }));
		const strange = await sign(index(older, PACKAGES), theirs);
		for (const other of [{ "dists/stable/InRelease": next }, { "dists/stable/InRelease": strange }, {}]) {
			const opening = open({ ...(await trixie()), ...stable, ...other });
			await expect(opening).rejects.toThrow(/Packages\.gz.*SHA-256/);
		}
	});
});

import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runImageCommand } from "../../../src/image/commands.js";
import { type BuildProgress, createProgressRenderer, ProgressTracker } from "../../../src/image/progress.js";
import { listName } from "../../../src/image/sources/debian/apt-setup.js";
import { subjectHash } from "../../../src/image/sources/debian/ca-certificates.js";
import { DebFile } from "../../../src/image/sources/debian/deb.js";
import { chooseMirrors, PUBLIC_MIRRORS, parseSourcesList } from "../../../src/image/sources/debian/mirror.js";
import { createPathFilter, IMAGE_PATH_RULES } from "../../../src/image/sources/debian/path-filter.js";
import { debconfDefaults } from "../../../src/image/sources/debian/stand-ins.js";
import { silentLog } from "../../../src/log.js";

let folder: string;
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-debian-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("the mirror", () => {
	it("is what the host's apt uses where that is Debian's, with the public ones behind it", async () => {
		mkdirSync(join(folder, "sources.list.d"));
		writeFileSync(
			join(folder, "sources.list"),
			"deb [arch=amd64] http://mirror.example/debian/ bookworm main\ndeb http://other.example/apt stable-app main\n",
		);
		writeFileSync(
			join(folder, "sources.list.d", "security.sources"),
			"Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
		);
		writeFileSync(
			join(folder, "sources.list.d", "off.sources"),
			"Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: sid\n",
		);
		const { archive, security } = await chooseMirrors(undefined, folder);
		expect(archive).toEqual(["http://mirror.example/debian", ...PUBLIC_MIRRORS.archive]);
		expect(security).toEqual(["http://mirror.example/debian-security", ...PUBLIC_MIRRORS.security]);
	});

	it("is a public one on a host without apt, or with another distribution's", async () => {
		expect(await chooseMirrors(undefined, join(folder, "nothing"))).toEqual(PUBLIC_MIRRORS);
		writeFileSync(join(folder, "sources.list"), "deb http://archive.example/ubuntu jammy main\n");
		expect(await chooseMirrors(undefined, folder)).toEqual(PUBLIC_MIRRORS);
	});

	it("that the user names is the only one", async () => {
		const { archive, security } = await chooseMirrors("https://m.example/debian/", folder);
		expect(archive).toEqual(["https://m.example/debian"]);
		expect(security[0]).toBe("https://m.example/debian-security");
	});

	it("that is no URL is refused", async () => {
		for (const bad of ["ftp.us.debian.org", "file:///srv/debian", "http://m.example/debian?x=1"]) {
			await expect(chooseMirrors(bad, folder)).rejects.toMatchObject({ code: "invalid-argument" });
		}
	});

	it("source lines and comments of sources.list are left out", () => {
		expect(parseSourcesList("# deb http://a b c\ndeb-src http://a b c\n")).toEqual([]);
	});
});

describe("the path filter", () => {
	const isExcluded = createPathFilter(IMAGE_PATH_RULES);

	it("leaves out documentation, manuals and translations, and keeps licences", () => {
		expect(isExcluded("usr/share/doc/bash/README", "file")).toBe(true);
		expect(isExcluded("usr/share/doc/bash/copyright", "file")).toBe(false);
		expect(isExcluded("usr/share/man/man1/ls.1.gz", "file")).toBe(true);
		expect(isExcluded("usr/share/locale/de/LC_MESSAGES/x.mo", "file")).toBe(true);
		expect(isExcluded("usr/lib/locale/C.utf8/LC_CTYPE", "file")).toBe(false);
	});

	it("keeps the folders that a kept file needs", () => {
		expect(isExcluded("usr/share/doc/bash", "directory")).toBe(false);
		expect(isExcluded("usr/share/man/man1", "directory")).toBe(true);
	});
});

describe("a .deb", () => {
	const deb = (members: [string, Buffer][]) =>
		Buffer.concat([
			Buffer.from("!<arch>\n"),
			...members.flatMap(([name, data]) => [
				Buffer.from(
					`${name.padEnd(16)}${"0".padEnd(12)}${"0".padEnd(6)}${"0".padEnd(6)}${"100644".padEnd(8)}${String(data.length).padEnd(10)}\`\n`,
				),
				data,
				Buffer.alloc(data.length % 2, "\n"),
			]),
		]);
	const open = async (bytes: Buffer) => {
		writeFileSync(join(folder, "x.deb"), bytes);
		return await DebFile.open(join(folder, "x.deb"), "x");
	};
	const format: [string, Buffer] = ["debian-binary", Buffer.from("2.0\n")];
	const refused: [string, Buffer, RegExp][] = [
		["that is empty", Buffer.alloc(0), /cut off/],
		["that is no ar archive", Buffer.from("PK\x03\x04 and more"), /no ar archive/],
		["of another format", deb([["debian-binary", Buffer.from("3.0\n")]]), /not of format 2/],
		["without control", deb([format, ["data.tar", Buffer.alloc(8)]]), /no control\.tar/],
		["without data", deb([format, ["control.tar", Buffer.alloc(8)]]), /no data\.tar/],
		["that is cut off", deb([format, ["control.tar", Buffer.alloc(99)]]).subarray(0, 160), /cut off/],
	];
	for (const [what, bytes, message] of refused) {
		it(`${what} is refused`, async () => {
			await expect(open(bytes)).rejects.toMatchObject({ code: "corrupt", message: expect.stringMatching(message) });
		});
	}
});

describe("what maintainer scripts would do", () => {
	const bundle = "/etc/ssl/certs";
	const hasOpenssl = existsSync("/usr/bin/openssl") && existsSync("/usr/share/ca-certificates/mozilla/ACCVRAIZ1.crt");
	it.skipIf(!hasOpenssl)(
		`a certificate's hash is OpenSSL's${hasOpenssl ? "" : " (skipped: this host has no openssl and ca-certificates)"}`,
		() => {
			const names = readFileSync("/etc/ca-certificates.conf", "utf8")
				.split("\n")
				.filter((line) => line.startsWith("mozilla/"));
			for (const name of names) {
				const path = `/usr/share/ca-certificates/${name}`;
				const text = readFileSync(path, "latin1");
				const expected = execFileSync("openssl", ["x509", "-subject_hash", "-noout", "-in", path]).toString().trim();
				expect([name, subjectHash(new X509Certificate(text).raw, name)]).toEqual([name, expected]);
			}
			expect(names.length, bundle).toBeGreaterThan(50);
		},
		120_000,
	);

	it("debconf's defaults are taken from the templates, of questions that have one", () => {
		const text =
			"Template: a/b\nType: boolean\nDefault: false\nDescription: x\n\nTemplate: a/n\nType: note\nDescription: y\n\nTemplate: a/c\nType: string\nDescription: z\n";
		expect(debconfDefaults([text])).toBe("a/b\tfalse\n");
	});

	it("an index gets the name that apt gives it", () => {
		expect(listName("http://ftp.debian.org/debian")).toBe("ftp.debian.org_debian");
		expect(listName("https://user:pass@m.example:8080/my_debian")).toBe("m.example:8080_my%5fdebian");
	});
});

describe("progress", () => {
	it("never goes back, whatever is reported", () => {
		const seen: BuildProgress[] = [];
		const tracker = new ProgressTracker(
			(progress) => seen.push(progress),
			{},
			() => seen.length * 100,
		);
		tracker.update("index", 0.5, "a");
		tracker.update("packages", 0.9, "b");
		tracker.update("packages", 0.1, "c");
		tracker.update("snapshot", 1, "d");
		const fractions = seen.map(({ fraction }) => fraction);
		expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
		expect(fractions.at(-1)).toBe(1);
		expect(seen.at(-1)?.etaMs).toBe(0);
	});

	it("is one rewritten line on a terminal and few plain lines elsewhere", () => {
		const shown = (isTTY: boolean) => {
			let text = "";
			const renderer = createProgressRenderer({ isTTY, write: (piece) => (text += piece) });
			for (let at = 0; at <= 100; at++) {
				renderer.show({ phase: "packages", stage: "x", fraction: at / 1000, etaMs: 1000, bytesPerSecond: 2_000_000 });
			}
			renderer.end();
			return text;
		};
		expect(shown(true)).not.toContain("\n");
		expect(shown(false)).toBe(
			"  0 % x, 2.0 MB/s, 1 s left\n  5 % x, 2.0 MB/s, 1 s left\n 10 % x, 2.0 MB/s, 1 s left\n",
		);
	});
});

describe("sandbox86 image", () => {
	async function run(...args: string[]): Promise<{ code: number; text: string }> {
		let text = "";
		const output = { write: (piece: string) => (text += piece) };
		const code = await runImageCommand(args, { home: folder, log: silentLog, stdout: output, stderr: output });
		return { code, text };
	}

	it("lists what there is and what can be built", async () => {
		const { code, text } = await run("list");
		expect(code).toBe(0);
		expect(text).toMatch(/^base +missing/m);
		expect(text).toMatch(/^tiny +bundled/m);
	});

	it("verifies tiny", async () => {
		expect(await run("verify", "tiny")).toEqual({ code: 0, text: "image tiny: every file is as it was built\n" });
	});

	it("without a command shows how it is used", async () => {
		expect(await run()).toMatchObject({ code: 2, text: expect.stringContaining("usage: sandbox86 image build NAME") });
	});

	for (const args of [
		["frob"],
		["build"],
		["build", "a", "b"],
		["verify"],
		["rm", "--force", "x"],
		["list", "x"],
		["verify", "--mirror", "x", "tiny"],
	]) {
		it(`"${args.join(" ")}" is a usage error`, async () => {
			await expect(run(...args)).rejects.toMatchObject({ code: "invalid-argument" });
		});
	}
});

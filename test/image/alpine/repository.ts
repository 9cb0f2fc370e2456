/** A repository as Alpine has them, of packages made here: signed APKv2 files and their signed index. */

import { execFileSync } from "node:child_process";
import { createHash, createSign, generateKeyPairSync } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

export const KEY_NAME = "test@sandbox86.example-01.rsa.pub";

export interface ApkPackage {
	readonly name: string;
	readonly version: string;
	/** Content or a file of the host, by path in the guest without a leading slash; all are programs. */
	readonly files: Readonly<Record<string, string | Buffer>>;
}

/** A gzip member; `isCut`: without the end mark, so that another tar can follow. */
function member(entries: Readonly<Record<string, string | Buffer>>, isCut: boolean): Buffer {
	const folder = mkdtempSync(join(tmpdir(), "sandbox86-apk-"));
	try {
		for (const [path, content] of Object.entries(entries)) {
			mkdirSync(join(folder, path, ".."), { recursive: true });
			writeFileSync(join(folder, path), content, { mode: 0o755 });
		}
		const names = [...new Set(Object.keys(entries))];
		const tar = execFileSync("tar", [
			"-C",
			folder,
			"--format=ustar",
			"--owner=0",
			"--group=0",
			"-b1",
			"-cf",
			"-",
			...names,
		]);
		return gzipSync(isCut ? tar.subarray(0, -1024) : tar);
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
}

export class ApkRepository {
	readonly publicKey: string;
	readonly #privateKey: string;
	/** The folder that a web server serves. */
	readonly folder: string;
	readonly #stanzas: string[] = [];

	constructor(folder: string) {
		const { publicKey, privateKey } = generateKeyPairSync("rsa", {
			modulusLength: 2048,
			publicKeyEncoding: { type: "spki", format: "pem" },
			privateKeyEncoding: { type: "pkcs8", format: "pem" },
		});
		this.publicKey = publicKey;
		this.#privateKey = privateKey;
		this.folder = folder;
		mkdirSync(join(folder, "x86"), { recursive: true });
	}

	add({ name, version, files }: ApkPackage): void {
		const data = member(files, false);
		const datahash = createHash("sha256").update(data).digest("hex");
		const info = `pkgname = ${name}\npkgver = ${version}\narch = x86\nsize = ${data.length}\ndatahash = ${datahash}\n`;
		const control = member({ ".PKGINFO": info }, true);
		const file = Buffer.concat([this.#signature(control), control, data]);
		writeFileSync(join(this.folder, "x86", `${name}-${version}.apk`), file);
		const checksum = createHash("sha1").update(control).digest("base64");
		this.#stanzas.push(
			`C:Q1${checksum}\nP:${name}\nV:${version}\nA:x86\nS:${file.length}\nI:${data.length}\nT:${name}\n\n`,
		);
		const index = member({ DESCRIPTION: "test", APKINDEX: this.#stanzas.join("") }, false);
		writeFileSync(join(this.folder, "x86", "APKINDEX.tar.gz"), Buffer.concat([this.#signature(index), index]));
	}

	/** Changes one byte of a package's data, behind its signed part. */
	damage({ name, version }: ApkPackage): void {
		const path = join(this.folder, "x86", `${name}-${version}.apk`);
		cpSync(path, `${path}.good`);
		const bytes = readFileSync(path);
		bytes[bytes.length - 9] = (bytes[bytes.length - 9] ?? 0) ^ 1;
		writeFileSync(path, bytes);
	}

	#signature(content: Buffer): Buffer {
		const signature = createSign("RSA-SHA1").update(content).sign(this.#privateKey);
		return member({ [`.SIGN.RSA.${KEY_NAME}`]: signature }, true);
	}
}

/** Archives and a store of contents for tests of what comes from outside. */

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Header, pack } from "tar-stream";
import { ContentStore } from "../../../src/image/content-store.js";
import { Downloader } from "../../../src/image/download.js";
import { ProgressTracker } from "../../../src/image/progress.js";
import type { SourceContext } from "../../../src/image/source.js";
import { silentLog } from "../../../src/log.js";

export type Entry = Partial<Header> & { name: string; content?: string | Uint8Array };

export async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
	const packer = pack();
	for (const { content, ...header } of entries) packer.entry(header, Buffer.from(content ?? ""));
	packer.finalize();
	const chunks: Uint8Array[] = [];
	for await (const chunk of packer) chunks.push(chunk as Uint8Array);
	return Buffer.concat(chunks);
}

export async function* inPieces(bytes: Uint8Array, size = 700): AsyncGenerator<Uint8Array> {
	for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** A folder with a store in it; `remove` takes it away. */
export class Workplace {
	readonly folder = mkdtempSync(join(tmpdir(), "sandbox86-archive-"));
	readonly store = new ContentStore(join(this.folder, "store", "files"));

	/** As a source of a recipe in this folder gets it. */
	get context(): SourceContext {
		return {
			store: this.store,
			downloader: new Downloader({ folder: join(this.folder, "downloads"), log: silentLog }),
			home: this.folder,
			recipeFolder: this.folder,
			packages: [],
			mirror: undefined,
			workInGuest: async () => {
				throw new Error("no guest is needed");
			},
			progress: new ProgressTracker(() => {}),
			log: silentLog,
			signal: undefined,
		};
	}

	/** What lies in or beside the store that is no whole content. */
	leftovers(): string[] {
		return readdirSync(join(this.folder, "store"), { recursive: true })
			.map(String)
			.filter((name) => name !== "files" && !/^files.[0-9a-f]{64}$/.test(name));
	}

	remove(): void {
		rmSync(this.folder, { recursive: true, force: true });
	}
}

/** The first bytes of a program: enough for whoever asks which machine it is for. */
export function elfHeader(is64: boolean, machine: number, isLittle = true): Buffer {
	const head = Buffer.alloc(64);
	head.set([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, isLittle ? 1 : 2, 1]);
	if (isLittle) head.writeUInt16LE(machine, 18);
	else head.writeUInt16BE(machine, 18);
	return head;
}

export interface RawHeader {
	readonly type?: string;
	readonly link?: string;
	/** 12 bytes of the size field, or a number. */
	readonly size?: number | Buffer;
	/** Goes before the name, with a slash. */
	readonly prefix?: string;
}

/** One header block (POSIX ustar) with whatever an honest writer would not write. */
export function tarHeader(name: string, { type = "0", link = "", size = 0, prefix = "" }: RawHeader = {}): Buffer {
	const block = Buffer.alloc(512);
	block.write(name, 0, 100);
	block.write("000644 \0", 100);
	block.write("000000 \0", 108);
	block.write("000000 \0", 116);
	if (typeof size === "number") block.write(`${size.toString(8).padStart(11, "0")} `, 124);
	else size.copy(block, 124);
	block.write("00000000000 ", 136);
	block.write("        ", 148);
	block.write(type, 156, 1);
	block.write(link, 157, 100);
	block.write("ustar\x0000", 257);
	block.write(prefix, 345, 155);
	const sum = block.reduce((total, byte) => total + byte, 0);
	block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
	return block;
}

/** Bytes filled up to whole blocks. */
export function padded(content: string | Buffer): Buffer {
	const bytes = Buffer.from(content);
	return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}

/** A pax header for the next entry (or, with the type "g", for all that follow). */
export function paxHeader(records: Readonly<Record<string, string>>, type = "x"): Buffer {
	const lines = Object.entries(records).map(([key, value]) => {
		const rest = Buffer.byteLength(` ${key}=${value}\n`);
		let length = rest + 1;
		while (String(length).length + rest !== length) length = String(length).length + rest;
		return `${length} ${key}=${value}\n`;
	});
	const body = lines.join("");
	return Buffer.concat([tarHeader("pax", { type, size: Buffer.byteLength(body) }), padded(body)]);
}

export const TAR_END = Buffer.alloc(1024);

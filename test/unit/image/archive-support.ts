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

// deb(5): an ar archive of debian-binary ("2.0\n"), control.tar[.gz|.xz|.zst] and data.tar[.gz|.xz|.zst].
// ar: "!<arch>\n", then for each member name(16) mtime(12) uid(6) gid(6) mode(8) size(10) "`\n" and the data, padded to even.

import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { SandboxError } from "../../../errors.js";
import { decompress } from "../../decompress.js";
import { limits } from "../../limits.js";
import { readTar } from "../../tar-layer.js";
import { parseStanzas, type Stanza } from "./control.js";

const AR_MAGIC = "!<arch>\n";
const HEADER_BYTES = 60;
const SIZE_OFFSET = 48;
const END_OFFSET = 58;

interface Member {
	readonly name: string;
	readonly start: number;
	readonly sizeBytes: number;
}

/** What dpkg keeps of a package's control.tar. */
export interface ControlFiles {
	/** The file "control". */
	readonly control: Stanza;
	readonly controlText: string;
	/** All others: maintainer scripts, conffiles, triggers … */
	readonly files: ReadonlyMap<string, { readonly content: Buffer; readonly mode: number }>;
}

/** A package file on the host's disk. */
export class DebFile {
	readonly path: string;
	readonly #control: Member;
	readonly #data: Member;

	private constructor(path: string, control: Member, data: Member) {
		this.path = path;
		this.#control = control;
		this.#data = data;
	}

	/** Reads the table of members. `label` names the package in errors. */
	static async open(path: string, label: string): Promise<DebFile> {
		const corrupt = (what: string) => new SandboxError("corrupt", `${label} is no Debian package: ${what}`);
		const handle = await open(path, "r");
		try {
			const { size } = await handle.stat();
			const read = async (at: number, length: number) => {
				const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, at);
				if (bytesRead < length) throw corrupt("it is cut off");
				return buffer;
			};
			if ((await read(0, AR_MAGIC.length)).toString("latin1") !== AR_MAGIC) throw corrupt("no ar archive");
			const members: Member[] = [];
			for (let at = AR_MAGIC.length; at < size && members.length < 16; ) {
				const header = (await read(at, HEADER_BYTES)).toString("latin1");
				const sizeText = header.slice(SIZE_OFFSET, END_OFFSET).trim();
				if (header.slice(END_OFFSET) !== "`\n" || !/^\d{1,10}$/.test(sizeText)) throw corrupt("a damaged ar header");
				const sizeBytes = Number(sizeText);
				const start = at + HEADER_BYTES;
				if (start + sizeBytes > size) throw corrupt("it is cut off");
				members.push({ name: header.slice(0, 16).trim().replace(/\/$/, ""), start, sizeBytes });
				at = start + sizeBytes + (sizeBytes % 2);
			}
			const [format, control, ...rest] = members;
			const data = rest.find(({ name }) => !name.startsWith("_"));
			if (format?.name !== "debian-binary" || !(await read(format.start, 2)).toString("latin1").startsWith("2.")) {
				throw corrupt("not of format 2");
			}
			if (control === undefined || !control.name.startsWith("control.tar")) throw corrupt("no control.tar");
			if (data === undefined || !data.name.startsWith("data.tar")) throw corrupt("no data.tar");
			return new DebFile(path, control, data);
		} finally {
			await handle.close();
		}
	}

	/** The tar stream of the files to install. */
	data(label: string): AsyncIterable<Uint8Array> {
		return this.#tar(this.#data, label);
	}

	/** The control files. */
	async readControl(label: string): Promise<ControlFiles> {
		const files = new Map<string, { content: Buffer; mode: number }>();
		let total = 0;
		for await (const { header, read } of readTar(this.#tar(this.#control, label), `${label} (control)`)) {
			const chunks: Uint8Array[] = [];
			for await (const chunk of read()) {
				total += chunk.length;
				if (total > limits.maxControlBytes) {
					throw new SandboxError("corrupt", `${label}: more than ${limits.maxControlBytes} bytes of control files`);
				}
				chunks.push(chunk);
			}
			const name = header.name.replace(/^\.\//, "");
			if (header.type !== "file") continue;
			if (!/^[a-z0-9_-]+$/i.test(name))
				throw new SandboxError("corrupt", `${label}: a control file ${JSON.stringify(name)}`);
			files.set(name, { content: Buffer.concat(chunks), mode: (header.mode ?? 0o644) & 0o777 });
		}
		const controlText = files.get("control")?.content.toString("utf8") ?? "";
		const [control] = parseStanzas(controlText, `${label} (control)`);
		if (control === undefined) throw new SandboxError("corrupt", `${label}: no control file`);
		files.delete("control");
		return { control, controlText, files };
	}

	#tar({ start, sizeBytes }: Member, label: string): AsyncIterable<Uint8Array> {
		const stream = createReadStream(this.path, { start, end: start + sizeBytes - 1, highWaterMark: 256 * 1024 });
		return decompress(stream as AsyncIterable<Uint8Array>, label);
	}
}

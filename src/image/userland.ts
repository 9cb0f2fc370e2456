/** What a tree's programs are: whether the guest can run them, and who installs more. */

import { open } from "node:fs/promises";
import { SandboxError } from "../errors.js";
import type { ContentStore } from "./content-store.js";
import type { FileNode, Tree } from "./tree.js";

const SHELL = "/bin/sh";
/** Of a program: an ELF header has 52 or 64 bytes; the kernel reads a script's first line up to here (BINPRM_BUF_SIZE). */
const HEAD_BYTES = 256;
/** Scripts whose interpreters are scripts (Linux: 5). */
const MAX_INTERPRETERS = 5;

const ELF_MAGIC = Buffer.from("\x7fELF", "latin1");
const ELFCLASS32 = 1;
const ELFDATA2LSB = 1;
const EM_386 = 3;
const EM_X86_64 = 62;
/** e_machine of other common machines, with the names that Docker and Debian give them (elf.h). */
const MACHINES: Readonly<Record<number, string>> = {
	8: "MIPS (mips)",
	20: "32-bit PowerPC (ppc)",
	21: "64-bit PowerPC (ppc64)",
	22: "IBM Z (s390x)",
	40: "32-bit ARM (arm)",
	[EM_X86_64]: "x86-64 (amd64)",
	183: "64-bit ARM (arm64)",
	243: "RISC-V (riscv64)",
	258: "LoongArch (loong64)",
};

/** Throws SandboxError("build-failed") unless the tree has a shell that runs on the guest's processor. */
export async function checkUserland(tree: Tree, store: ContentStore): Promise<void> {
	let path = SHELL;
	for (let scripts = 0; scripts <= MAX_INTERPRETERS; scripts++) {
		const head = await readHead(store, findProgram(tree, path));
		const interpreter = interpreterOf(head);
		if (interpreter === undefined) return checkElf(head, path);
		path = interpreter;
	}
	throw unfit(`${SHELL} is a script whose interpreters are scripts`);
}

/** Who installs packages in the tree: told by its program, and not by what the tree says it is. */
export function packageManagerOf(tree: Tree): "apk" | "apt" | undefined {
	const isThere = (...paths: string[]) => paths.some((path) => tree.resolve(path)?.kind === "file");
	if (isThere("sbin/apk", "usr/sbin/apk", "usr/bin/apk", "bin/apk")) return "apk";
	if (isThere("usr/bin/apt-get", "bin/apt-get")) return "apt";
	return undefined;
}

function findProgram(tree: Tree, path: string): FileNode {
	const node = tree.resolve(path);
	if (node?.kind === "file") return node;
	const entry = tree.get(path);
	if (node !== undefined) throw unfit(`${path} is a folder`);
	if (entry?.kind === "symlink")
		throw unfit(`${path} is a link to ${JSON.stringify(entry.target)}, which is not there`);
	throw unfit(
		`there is no ${path}`,
		path === SHELL ? "an image needs a shell: images without one (scratch, distroless) can't be used" : undefined,
	);
}

async function readHead(store: ContentStore, { sha256 }: FileNode): Promise<Buffer> {
	const handle = await open(store.path(sha256), "r");
	try {
		const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
		return buffer.subarray(0, bytesRead);
	} finally {
		await handle.close();
	}
}

/** The program that a script's first line names; undefined for what is no script. */
function interpreterOf(head: Buffer): string | undefined {
	return /^#![ \t]*([^ \t\n]+)/.exec(head.toString("latin1"))?.[1];
}

function checkElf(head: Buffer, path: string): void {
	if (head.length < 52 || !head.subarray(0, 4).equals(ELF_MAGIC)) {
		throw unfit(`${path} is no program: it has no ELF header`);
	}
	const is32 = head[4] === ELFCLASS32;
	const isLittle = head[5] === ELFDATA2LSB;
	const machine = isLittle ? head.readUInt16LE(18) : head.readUInt16BE(18);
	if (is32 && isLittle && machine === EM_386) return;
	const name =
		machine === EM_X86_64 && is32
			? "x86-64 with 32-bit pointers (x32)"
			: (MACHINES[machine] ?? `a machine of ELF's number ${machine}`);
	throw unfit(`${path} is for ${name}; the machine is 32-bit x86`, "use the i386 or linux/386 variant of this image");
}

function unfit(message: string, hint?: string): SandboxError {
	return new SandboxError("build-failed", message, hint);
}

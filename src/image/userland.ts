/** Whether a tree can become a machine: the kernel and the agent need a shell for 32-bit x86, and nothing else. */

import { SandboxError } from "../errors.js";
import type { ContentStore } from "./content-store.js";
import type { Tree } from "./tree.js";

const SHELLS = ["bin/sh", "usr/bin/sh", "bin/bash", "usr/bin/bash"];
/** ELF, e_machine (elf.h). */
const MACHINES: Readonly<Record<number, string>> = {
	3: "32-bit x86",
	8: "MIPS",
	20: "PowerPC",
	21: "64-bit PowerPC",
	22: "S/390",
	40: "32-bit ARM",
	62: "x86-64 (amd64)",
	183: "64-bit ARM (arm64)",
	243: "RISC-V",
	258: "LoongArch",
};
const EM_386 = 3;
const ELF_MAGIC = 0x7f454c46;

/** Throws SandboxError("build-failed") that says what is wrong. */
export async function checkUserland(tree: Tree, store: ContentStore, source: string): Promise<void> {
	const path = SHELLS.find((each) => tree.resolve(each)?.kind === "file");
	const node = path === undefined ? undefined : tree.resolve(path);
	if (path === undefined || node?.kind !== "file") {
		throw new SandboxError(
			"build-failed",
			`${source} has no shell: none of ${SHELLS.map((each) => `/${each}`).join(", ")} is a file in it`,
			"a machine needs a POSIX shell; images without one (distroless, scratch) can't become machines",
		);
	}
	const head = (await store.read(node.sha256)).subarray(0, 20);
	if (head.length < 20 || head.readUInt32BE(0) !== ELF_MAGIC) {
		throw new SandboxError("build-failed", `/${path} of ${source} is no program (ELF)`);
	}
	const machine = head[5] === 2 ? head.readUInt16BE(18) : head.readUInt16LE(18);
	if (machine === EM_386 && head[4] === 1) return;
	throw new SandboxError(
		"build-failed",
		`/${path} of ${source} is for ${MACHINES[machine] ?? `a processor with the ELF number ${machine}`}`,
		"the machine is a 32-bit x86 PC: take the i386 or linux/386 variant of it",
	);
}

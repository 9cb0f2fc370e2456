/** A root that is shaped as Alpine's minirootfs is: musl, busybox with ash, apk's folders; packed as one tar.gz, with devices in dev/. */

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { KEY_NAME } from "./repository.js";

/** Debian's musl for i386 and what its programs are built with, unpacked and never installed. */
const MUSL_PACKAGES = ["musl:i386", "musl-dev:i386"];
/** The C library, which is its own loader. */
const MUSL_LIBRARY = "musl/lib/i386-linux-musl/libc.so";
const LOADER = "lib/ld-musl-i386.so.1";

/** Fetches musl with the machine's own apt into a folder; throws where that can't be. */
export function fetchMusl(folder: string): void {
	mkdirSync(folder, { recursive: true });
	execFileSync("apt-get", ["download", "-q", ...MUSL_PACKAGES], { cwd: folder, stdio: "pipe" });
	for (const name of MUSL_PACKAGES) {
		const deb = execFileSync("sh", ["-c", `echo ${name.split(":")[0]}_*.deb`], {
			cwd: folder,
			encoding: "utf8",
		}).trim();
		execFileSync("dpkg-deb", ["-x", deb, "musl"], { cwd: folder });
	}
}

/** A program that musl's loader runs: it is linked dynamically, as all of Alpine's are. */
export function compileWithMusl(folder: string, source: string): Buffer {
	const musl = join(folder, "musl", "usr");
	const library = join(musl, "lib", "i386-linux-musl");
	writeFileSync(join(folder, "program.c"), source);
	execFileSync(
		"gcc",
		[
			...["-m32", "-march=i686", "-O1", "-nostdinc", "-isystem", join(musl, "include", "i386-linux-musl")],
			...["-fno-pie", "-no-pie", "-fno-stack-protector", "-nostdlib", `-Wl,--dynamic-linker=/${LOADER}`],
			...["-o", "program", join(library, "crt1.o"), join(library, "crti.o"), "program.c"],
			...["-L", dirname(join(folder, MUSL_LIBRARY)), "-l:libc.so", join(library, "crtn.o")],
		],
		{ cwd: folder },
	);
	return readFileSync(join(folder, "program"));
}

/** Writes `minirootfs.tar.gz` into the folder. `busybox` is a file of the host, `applets` are its links. */
export function makeMinirootfs(
	folder: string,
	options: {
		readonly busybox: string;
		readonly applets: readonly string[];
		readonly publicKey: string;
		readonly repository: string;
	},
): void {
	const root = join(folder, "root");
	const put = (path: string, content: string | Buffer, mode = 0o644) => {
		mkdirSync(join(root, path, ".."), { recursive: true });
		writeFileSync(join(root, path), content, { mode });
	};
	for (const path of ["dev", "proc", "sys", "run", "tmp", "root", "var/cache/apk", "etc/apk/keys", "lib/apk/db"]) {
		mkdirSync(join(root, path), { recursive: true });
	}
	put("bin/busybox", readFileSync(options.busybox), 0o755);
	for (const path of options.applets) {
		if (path === "bin/busybox") continue;
		mkdirSync(join(root, path, ".."), { recursive: true });
		symlinkSync("/bin/busybox", join(root, path));
	}
	cpSync(join(folder, MUSL_LIBRARY), join(root, LOADER));
	symlinkSync("ld-musl-i386.so.1", join(root, "lib", "libc.musl-x86.so.1"));
	put("sbin/apk", readFileSync(join(import.meta.dirname, "apk")), 0o755);
	put("etc/alpine-release", "3.21.0\n");
	put("etc/os-release", 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.21.0\n');
	put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
	put("etc/group", "root:x:0:root\n");
	put("etc/profile", "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
	put("etc/apk/arch", "x86\n");
	put("etc/apk/world", "");
	put("etc/apk/repositories", `${options.repository}\n`);
	put(`etc/apk/keys/${KEY_NAME}`, options.publicKey);
	put("lib/apk/db/installed", "");
	if (process.getuid?.() === 0) execFileSync("mknod", [join(root, "dev", "null"), "c", "1", "3"]);
	const attributes = ["--owner=0", "--group=0", "--mtime=@1733000000"];
	execFileSync("tar", ["-C", root, ...attributes, "-czf", join(folder, "minirootfs.tar.gz"), "."]);
}

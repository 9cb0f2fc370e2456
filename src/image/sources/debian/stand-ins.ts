/**
 * Programs that are covered by stand-ins (bind mounts) while the packages are set up for the first time, because what they
 * do then is nothing, or is done in another way, and each of their starts costs seconds in the emulator.
 */

import type { Tree } from "../../tree.js";

export interface StandIn {
	/** The program, absolute. */
	readonly path: string;
	readonly content: string;
}

const NOTHING = "#!/bin/sh\nexit 0\n";

const PROGRAMS: readonly string[] = [
	// Moves configuration files of earlier versions. There are none at a first installation (`$2` is empty).
	"/usr/bin/dpkg-maintscript-helper",
	// Enable and start services of systemd and sysvinit. The image has neither.
	"/usr/bin/deb-systemd-helper",
	"/usr/bin/deb-systemd-invoke",
	"/usr/sbin/update-rc.d",
	"/usr/sbin/invoke-rc.d",
	// Compile Python's library. What is used at once is compiled afterwards (see guest-script.ts), the rest by Python itself.
	"/usr/bin/py3compile",
	"/usr/bin/py3clean",
];

/** debconf(7) for shell scripts, answering every question with the package's default and asking none. */
const CONFMODULE = `# debconf's confmodule, answering with the defaults of the packages' templates.
_answer() { RET=$(sed -n "s|^$1	||p" /run/sandbox86-build/debconf-defaults); }
db_get() { _answer "$1"; grep -q "^$1	" /run/sandbox86-build/debconf-defaults || return 10; }
db_metaget() { RET=; }
db_fget() { RET=false; }
db_input() { return 30; }
db_go() { return 0; }
db_capb() { RET=; }
db_version() { RET=2.0; }
for _f in title settitle info beginblock endblock purge register unregister subst set fset reset progress stop \\
	x_loadtemplatefile x_save previous_module clear; do
	eval "db_$_f() { RET=; return 0; }"
done
`;

/** The stand-ins for what the tree has. */
export function standInsFor(tree: Tree): StandIn[] {
	const wanted: StandIn[] = PROGRAMS.map((path) => ({ path, content: NOTHING }));
	wanted.push({ path: "/usr/share/debconf/confmodule", content: CONFMODULE });
	const lib = tree.resolve("usr/lib");
	if (lib?.kind === "directory") {
		for (const name of lib.children.keys()) {
			if (/^python3\.\d+$/.test(name)) wanted.push({ path: `/usr/lib/${name}/py_compile.py`, content: "" });
		}
	}
	return wanted.filter(({ path }) => tree.resolve(path)?.kind === "file");
}

/** "template\tdefault" lines out of the packages' debconf templates. */
export function debconfDefaults(templates: Iterable<string>): string {
	let lines = "";
	for (const text of templates) {
		for (const block of text.split(/\n\s*\n/)) {
			const template = /^Template:\s*(\S+)/im.exec(block)?.[1];
			const type = /^Type:\s*(\S+)/im.exec(block)?.[1];
			if (template === undefined || type === "note" || type === "title" || type === "text" || type === "error") continue;
			lines += `${template}\t${/^Default:[ \t]*(.*)$/im.exec(block)?.[1] ?? ""}\n`;
		}
	}
	return lines;
}

// dpkg's database (/var/lib/dpkg; dpkg's doc/spec and lib/dpkg/{dump,parse,trigdeferred}.c), as `dpkg --unpack` leaves it.

import { createHash } from "node:crypto";
import { SandboxError } from "../../../errors.js";
import type { ContentStore } from "../../content-store.js";
import type { Attributes, Tree } from "../../tree.js";
import type { ControlFiles } from "./deb.js";

/** "unpacked": the guest's dpkg configures it. "installed": nothing is left to do for it. */
export type PackageState = "unpacked" | "installed";

export interface UnpackedPackage {
	readonly name: string;
	readonly version: string;
	readonly architecture: string;
	readonly control: ControlFiles;
	/** Paths of data.tar in its order, no leading slash; left-out ones included, as dpkg has it. */
	readonly paths: readonly string[];
	readonly state: PackageState;
}

const FOLDER = "var/lib/dpkg";
/** dpkg's order of fields (lib/dpkg/parse.c, fieldinfos); others follow in the order of the control file. */
const FIELD_ORDER = [
	"Essential",
	"Protected",
	"Priority",
	"Section",
	"Installed-Size",
	"Maintainer",
	"Architecture",
	"Multi-Arch",
	"Source",
	"Version",
	"Replaces",
	"Provides",
	"Depends",
	"Pre-Depends",
	"Recommends",
	"Suggests",
	"Breaks",
	"Conflicts",
	"Enhances",
	"Conffiles",
	"Description",
];

/** Writes the database of all packages into the tree. Their files must be in the tree already. */
export async function writeDpkgDatabase(
	tree: Tree,
	store: ContentStore,
	packages: readonly UnpackedPackage[],
	mtime: number,
): Promise<void> {
	const put = async (path: string, content: string | Uint8Array, mode = 0o644) => {
		const attributes: Attributes = { mode, uid: 0, gid: 0, mtime };
		tree.set(`${FOLDER}/${path}`, { kind: "file", ...attributes, ...(await store.put(content)) });
	};
	for (const folder of ["info", "alternatives", "parts", "triggers", "updates"])
		tree.makeDirectory(`${FOLDER}/${folder}`);
	const stanzas: string[] = [];
	const interests: Interest[] = [];
	for (const found of [...packages].sort((a, b) => (a.name < b.name ? -1 : 1))) {
		const prefix = `info/${infoName(found)}`;
		// dpkg's own list starts with the root and writes folders without a slash.
		await put(`${prefix}.list`, ["/.", ...found.paths.map((path) => `/${path}`)].map((path) => `${path}\n`).join(""));
		for (const [name, { content, mode }] of found.control.files) {
			await put(`${prefix}.${name}`, content, mode & 0o111 ? 0o755 : 0o644);
		}
		stanzas.push(await statusStanza(found, tree, store));
		interests.push(...parseTriggers(found));
	}
	await put("status", stanzas.map((stanza) => `${stanza}\n`).join(""));
	await put("status-old", stanzas.map((stanza) => `${stanza}\n`).join(""));
	await put("available", "");
	await put("diversions", "");
	await put("statoverride", "");
	await put("info/format", "1\n");
	await put("lock", "", 0o640);
	await put("lock-frontend", "", 0o640);
	await put("triggers/Lock", "", 0o600);
	await put("triggers/Unincorp", "");
	const byName = new Map<string, string[]>();
	const fileTriggers: string[] = [];
	for (const { trigger, owner, await: waits } of interests) {
		const line = `${owner}${waits ? "" : "/noawait"}`;
		if (trigger.startsWith("/")) fileTriggers.push(`${trigger} ${line}\n`);
		else byName.set(trigger, [...(byName.get(trigger) ?? []), `${line}\n`]);
	}
	await put("triggers/File", fileTriggers.join(""));
	for (const [trigger, lines] of byName) await put(`triggers/${trigger}`, lines.join(""));
}

/** dpkg names a package's info files with the architecture where several architectures may be installed. */
function infoName({ name, architecture, control }: UnpackedPackage): string {
	return control.control.get("multi-arch") === "same" ? `${name}:${architecture}` : name;
}

async function statusStanza(found: UnpackedPackage, tree: Tree, store: ContentStore): Promise<string> {
	const fields = new Map<string, string>();
	for (const line of fieldLines(found.control.controlText)) fields.set(line.name, line.value);
	const conffiles = await conffileLines(found, tree, store);
	if (conffiles !== "") fields.set("Conffiles", conffiles);
	const ordered = ["Package", ...FIELD_ORDER.slice(0, 2), "Status", ...FIELD_ORDER.slice(2)];
	fields.set("Status", ` install ok ${found.state}`);
	const known = new Set(ordered);
	let text = "";
	for (const name of [...ordered, ...[...fields.keys()].filter((field) => !known.has(field))]) {
		const value = fields.get(name);
		if (value !== undefined) text += `${name}:${value}\n`;
	}
	return text;
}

/** The fields of a control file as they are written: each value with its leading space and its continuation lines. */
function fieldLines(text: string): { name: string; value: string }[] {
	const fields: { name: string; value: string }[] = [];
	for (const line of text.split("\n")) {
		if (line.trim() === "") continue;
		const last = fields[fields.length - 1];
		if (/^[ \t]/.test(line)) {
			if (last !== undefined) last.value += `\n${line}`;
			continue;
		}
		const colon = line.indexOf(":");
		const given = line.slice(0, colon);
		const name = FIELD_ORDER.find((known) => known.toLowerCase() === given.toLowerCase()) ?? given;
		fields.push({ name, value: ` ${line.slice(colon + 1).trim()}` });
	}
	return fields;
}

/** "\n /etc/x md5" for each conffile. They lie at their final place, so dpkg --configure keeps these hashes. */
async function conffileLines(found: UnpackedPackage, tree: Tree, store: ContentStore): Promise<string> {
	const text = found.control.files.get("conffiles")?.content.toString("utf8") ?? "";
	let lines = "";
	for (const line of text.split("\n")) {
		const path = line.trim();
		// "remove-on-upgrade /path" names a file that the package no longer has.
		if (!path.startsWith("/")) continue;
		const node = tree.resolve(path);
		if (node?.kind !== "file") continue;
		const md5 = createHash("md5")
			.update(await store.read(node.sha256))
			.digest("hex");
		lines += `\n ${path} ${md5}`;
	}
	return lines;
}

interface Interest {
	readonly trigger: string;
	/** As dpkg writes it: with the architecture for Multi-Arch: same. */
	readonly owner: string;
	readonly await: boolean;
}

/** deb-triggers(5). */
function parseTriggers(found: UnpackedPackage): Interest[] {
	const text = found.control.files.get("triggers")?.content.toString("utf8") ?? "";
	const interests: Interest[] = [];
	for (const line of text.split("\n")) {
		const [directive, trigger] = line.replace(/#.*$/, "").trim().split(/\s+/);
		if (directive === undefined || directive === "" || directive.startsWith("activate")) continue;
		if (trigger === undefined || !directive.startsWith("interest") || !/^[!-~]+$/.test(trigger)) {
			throw new SandboxError("corrupt", `${found.name}: not a trigger: ${JSON.stringify(line)}`);
		}
		if (!trigger.startsWith("/") && !/^[A-Za-z0-9_.+-]+$/.test(trigger)) {
			throw new SandboxError("corrupt", `${found.name}: not a trigger's name: ${JSON.stringify(trigger)}`);
		}
		interests.push({ trigger, owner: infoName(found), await: directive !== "interest-noawait" });
	}
	return interests;
}

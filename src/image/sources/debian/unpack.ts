import { SandboxError } from "../../../errors.js";
import type { ContentStore } from "../../content-store.js";
import { applyTarLayer } from "../../tar-layer.js";
import type { Tree } from "../../tree.js";
import { DebFile } from "./deb.js";
import type { UnpackedPackage } from "./dpkg-database.js";
import type { DebianPackage } from "./package-index.js";
import { createPathFilter, IMAGE_PATH_RULES } from "./path-filter.js";

const isExcluded = createPathFilter(IMAGE_PATH_RULES);

/** Lays a package's files over the tree as `dpkg --unpack` does, but runs none of its scripts. */
export async function unpackPackage(
	tree: Tree,
	store: ContentStore,
	found: DebianPackage,
	debPath: string,
): Promise<UnpackedPackage> {
	const label = `${found.name} ${found.version}`;
	const deb = await DebFile.open(debPath, label);
	const control = await deb.readControl(label);
	for (const [field, expected] of [
		["package", found.name],
		["version", found.version],
		["architecture", found.architecture],
	] as const) {
		if (control.control.get(field) !== expected) {
			throw new SandboxError("corrupt", `${label}: its control file says ${field} ${control.control.get(field)}`);
		}
	}
	const paths: string[] = [];
	await applyTarLayer(tree, store, deb.data(label), {
		source: label,
		whiteouts: false,
		directorySymlinks: "follow",
		exclude: isExcluded,
		onEntry: (path) => paths.push(path),
	});
	return {
		name: found.name,
		version: found.version,
		architecture: found.architecture,
		control,
		paths,
		state: "unpacked",
	};
}

/** The links of a merged /usr, which Debian's installers make before they unpack anything. */
export function makeMergedUsr(tree: Tree, mtime: number): void {
	for (const name of ["bin", "lib", "sbin"]) {
		tree.makeDirectory(`usr/${name}`, { mode: 0o755, uid: 0, gid: 0, mtime });
		tree.set(name, { kind: "symlink", mode: 0o777, uid: 0, gid: 0, mtime, target: `usr/${name}` });
	}
}

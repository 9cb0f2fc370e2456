/** What is installed in a tree, as its own package manager's database says. */

import type { ContentStore } from "./content-store.js";
import type { Tree } from "./tree.js";

export interface InstalledPackage {
	readonly name: string;
	readonly version: string;
}

/** dpkg's status file (deb822) and apk's installed database (one letter, a colon and the value on each line). */
const DATABASES = [
	{
		path: "var/lib/dpkg/status",
		name: /^Package: (.+)$/m,
		version: /^Version: (.+)$/m,
		present: /^Status: .* installed$/m,
	},
	{ path: "lib/apk/db/installed", name: /^P:(.+)$/m, version: /^V:(.+)$/m, present: /^P:/m },
] as const;

/** In the order of their names; empty where no known package manager keeps a database. */
export async function installedPackages(tree: Tree, store: ContentStore): Promise<InstalledPackage[]> {
	for (const database of DATABASES) {
		const node = tree.resolve(database.path);
		if (node?.kind !== "file") continue;
		const text = (await store.read(node.sha256)).toString("utf8");
		const found: InstalledPackage[] = [];
		for (const stanza of text.split(/\n\s*\n/)) {
			const name = database.name.exec(stanza)?.[1]?.trim();
			const version = database.version.exec(stanza)?.[1]?.trim();
			if (name === undefined || version === undefined || !database.present.test(stanza)) continue;
			found.push({ name: name.slice(0, 256), version: version.slice(0, 256) });
		}
		return found.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.version < b.version ? -1 : 1));
	}
	return [];
}

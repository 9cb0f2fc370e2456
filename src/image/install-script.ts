/** The scripts that install a recipe's packages with the guest's own package manager. */

import { SandboxError } from "../errors.js";
import type { InstalledPackage } from "./installed-packages.js";
import type { Tree } from "./tree.js";
import { packageManagerOf } from "./userland.js";

/** Lists of packages that are fresh enough are used as they are; otherwise they are fetched first. */
const APT = (packages: string) => `export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io ${packages}; }
install || { apt-get update && install; } || exit
apt-get clean`;
const APK = (packages: string) => `apk add --no-cache ${packages}`;

/**
 * Installs packages, in the versions of `locked` where it names them. Throws SandboxError("build-failed") where the tree
 * has no package manager that is known.
 */
export function installScript(
	tree: Tree,
	packages: readonly string[],
	locked: readonly InstalledPackage[] | undefined,
): string {
	const versions = new Map(locked?.map(({ name, version }) => [name, version]));
	const words = packages.map((name) => {
		const version = versions.get(name);
		return quoted(version === undefined ? name : `${name}=${version}`);
	});
	const manager = packageManagerOf(tree);
	if (manager === "apk") return APK(words.join(" "));
	if (manager === "apt") return APT(words.join(" "));
	throw new SandboxError(
		"build-failed",
		`the recipe wants packages (${packages.slice(0, 5).join(", ")}), but its source has neither apk nor apt-get`,
		'install them with commands in "run"',
	);
}

/** One word for a POSIX shell: versions come from a lock file, which may hold anything. */
function quoted(word: string): string {
	return `'${word.replaceAll("'", "'\\''")}'`;
}

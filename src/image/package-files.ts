import { fileURLToPath } from "node:url";

/** Absolute path of a file of the installed package, e.g. `packageFile("images/kernel/bzImage")`. */
export function packageFile(path: string): string {
	// This module is src/image/package-files.ts or dist/image/package-files.js: the package's root is two folders up.
	return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}

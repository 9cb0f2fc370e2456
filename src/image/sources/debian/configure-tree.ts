import type { GuestWork } from "../../guest-work.js";
import type { Tree } from "../../tree.js";
import type { UnpackedPackage } from "./dpkg-database.js";
import { CLEAN, COMPILE_PIP, COMPILE_PYTHON, configureScript, guestFiles, INDEX_APT } from "./guest-script.js";
import { standInsFor } from "./stand-ins.js";

/** Sets the unpacked packages up in a guest, with dpkg and their own scripts. */
export async function configureTree(
	tree: Tree,
	packages: readonly UnpackedPackage[],
	workInGuest: (tree: Tree, work: GuestWork) => Promise<void>,
): Promise<void> {
	const standIns = standInsFor(tree);
	const toConfigure = packages.filter(({ state }) => state === "unpacked").length;
	const withPreinst = packages.filter(({ control }) => control.files.has("preinst")).length;
	await workInGuest(tree, {
		files: guestFiles(packages, standIns),
		steps: [
			{
				title: "setting up packages",
				script: configureScript(packages, standIns),
				weight: 70,
				expected: toConfigure + withPreinst,
				counts: /^(Setting up|Preparing) /,
			},
			{ title: "compiling Python modules", script: COMPILE_PYTHON, weight: 20 },
			{ title: "compiling pip", script: COMPILE_PIP, weight: 20 },
			{ title: "indexing packages for apt", script: INDEX_APT, weight: 60 },
			{ title: "cleaning up", script: CLEAN, weight: 5 },
		],
	});
}

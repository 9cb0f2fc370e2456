/** Where a server gets an image that is not in its data folder: from an installed package, else by building it. */

import { SandboxError } from "../errors.js";
import type { MachineImage } from "../vm/machine-image.js";
import { type BuildOptions, buildImage } from "./build.js";
import { findImagePackage, importFromPackage } from "./image-package.js";
import { isRecipePath } from "./recipe.js";

/** The error of loadImage, as "image-missing" where only an installed package has an image of that name. */
export async function explainMissing(name: string, error: unknown): Promise<unknown> {
	if (!(error instanceof SandboxError) || error.code !== "not-found") return error;
	const found = await findImagePackage(name);
	if (found === undefined) return error;
	return new SandboxError(
		"image-missing",
		`the image ${name} is in the package ${found.packageName}, not taken over yet`,
	);
}

/** Takes the image over from an installed package where there is one; else builds it from the recipe of its name. */
export async function obtainImage(home: string, name: string, options: BuildOptions): Promise<MachineImage> {
	const { log, signal, onProgress } = options;
	if (isRecipePath(name)) return await buildImage(home, name, options);
	const found = await importFromPackage(home, name, {
		log,
		...(signal === undefined ? {} : { signal }),
		onProgress: (progress) => onProgress?.({ ...progress, phase: "commit" }),
	});
	return found ?? (await buildImage(home, name, options));
}

import { SandboxError } from "../errors.js";

/** The characters of an image's name, which is also its folder's. */
export const IMAGE_NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;

/** A folder's name can't end in a dot on Windows, and NAME.old is where an image lies while another one takes its place. */
export function isImageName(name: string): boolean {
	return IMAGE_NAME.test(name) && !name.endsWith(".") && !name.endsWith(".old");
}

/** Throws SandboxError("invalid-argument"). */
export function checkImageName(name: string): void {
	if (isImageName(name)) return;
	throw new SandboxError(
		"invalid-argument",
		`not an image name: ${JSON.stringify(name)}`,
		"use up to 64 of a-z 0-9 . _ - and start with a letter or digit",
	);
}

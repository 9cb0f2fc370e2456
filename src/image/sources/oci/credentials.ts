/** Users and passwords that `docker login` left in ~/.docker/config.json. Credential helpers are not asked. */

import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { SandboxError } from "../../../errors.js";
import { readBoundedText } from "../../disk.js";
import { limits } from "../../limits.js";

const configSchema = z.object({
	auths: z.record(z.string(), z.object({ auth: z.string().optional() })).optional(),
});

export function dockerConfigPath(): string {
	return join(homedir(), ".docker", "config.json");
}

/**
 * The value of `Authorization: Basic` for a registry: base64 of USER:PASSWORD. Undefined where the file has none for it.
 * Throws SandboxError("invalid-argument") where the file cannot be read.
 */
export async function basicCredentials(registry: string, path: string): Promise<string | undefined> {
	const refuse = (reason: string) =>
		new SandboxError(
			"invalid-argument",
			`${path} cannot be read: ${reason}`,
			"mend it, or log in anew with docker login",
		);
	const text = await readBoundedText(path, limits.maxDockerConfigBytes, refuse);
	if (text === undefined) return undefined;
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch {
		// The parser's message would quote the file.
		throw refuse("it is no JSON");
	}
	const config = configSchema.safeParse(value);
	if (!config.success) throw refuse(z.prettifyError(config.error).replaceAll("\n", " "));
	const names = registry === "docker.io" ? ["docker.io", "index.docker.io", "registry-1.docker.io"] : [registry];
	for (const [key, { auth }] of Object.entries(config.data.auths ?? {})) {
		const host = key.replace(/^https?:\/\//, "").replace(/\/.*$/, "");
		if (!names.includes(host) || auth === undefined || auth === "") continue;
		const bytes = Buffer.from(auth, "base64");
		const user = bytes.toString("latin1").indexOf(":");
		if (user < 1 || user === bytes.length - 1)
			throw refuse(`the "auth" of ${JSON.stringify(key)} is not USER:PASSWORD in base64`);
		return bytes.toString("base64");
	}
	return undefined;
}

import { readFile } from "node:fs/promises";
import { z } from "zod";
import { errnoOf, SandboxError } from "../errors.js";

/** What is known about a built image; `manifest.json` in its folder. */
const manifestSchema = z.strictObject({
	format: z.literal(1),
	name: z.string(),
	/** ISO 8601, UTC. */
	created: z.string(),
	/** Version of sandbox86 that built it. */
	builtBy: z.string(),
	/** SHA-256 over the recipe and the exact inputs: two builds with the same one start from the same bytes. */
	inputsDigest: z.string().regex(/^[0-9a-f]{64}$/),
	source: z.strictObject({
		kind: z.literal("debian"),
		architecture: z.string(),
		suites: z.array(z.strictObject({ name: z.string(), date: z.string() })),
		/** The archive that the guest's apt is set up for. */
		guestMirror: z.string(),
	}),
	packages: z.array(z.strictObject({ name: z.string(), version: z.string() })),
	/** SHA-256 of fs.json. */
	treeSha256: z.string().regex(/^[0-9a-f]{64}$/),
	entries: z.number().int(),
	/** Bytes of all different files. */
	fileBytes: z.number().int(),
	/** Bytes of the packages that were downloaded, or came from the cache. */
	packageBytes: z.number().int(),
	buildMs: z.number(),
	warmCommands: z.array(z.string()),
});

export type ImageManifest = z.infer<typeof manifestSchema>;

/** Reads a manifest; undefined where there is none, SandboxError("corrupt") where it is damaged. */
export async function readManifest(path: string): Promise<ImageManifest | undefined> {
	let text: string;
	try {
		text = await readFile(path, "utf8");
	} catch (error) {
		if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
		throw error;
	}
	const damaged = (reason: string) =>
		new SandboxError("corrupt", `${path} is damaged: ${reason}`, "remove the image and build it again");
	let value: unknown;
	try {
		value = JSON.parse(text);
	} catch (error) {
		throw damaged(error instanceof Error ? error.message : String(error));
	}
	const parsed = manifestSchema.safeParse(value);
	if (!parsed.success) throw damaged(z.prettifyError(parsed.error).replaceAll("\n", " "));
	return parsed.data;
}

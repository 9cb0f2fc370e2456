import { createHash } from "node:crypto";
import { z } from "zod";

/** 64 hex digits in lower case. */
export const SHA256_HEX = /^[0-9a-f]{64}$/;

export const sha256Schema = z.string().regex(SHA256_HEX, "not a SHA-256 in hex");

/** SHA-256 (hex) of bytes, or of a text's UTF-8. */
export function sha256Of(content: Uint8Array | string): string {
	return createHash("sha256").update(content).digest("hex");
}

import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { SandboxError } from "../errors.js";

const MACHINE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const SECRET_BYTES = 32;

export type Access =
	| { readonly kind: "granted"; readonly machine: string | undefined }
	| { readonly kind: "unknown-path" }
	| { readonly kind: "wrong-token" };

/**
 * The paths that open the relay: /TOKEN for a machine without a name, /TOKEN/NAME for a named one. Each name has a token
 * of its own (HMAC-SHA-256 of a random secret, 256 bits), so that whoever knows one can't take another machine's place.
 */
export class AccessTokens {
	readonly #secret = randomBytes(SECRET_BYTES);

	/** Throws SandboxError("invalid-argument") where `machine` is no name. */
	path(machine?: string): string {
		if (machine === undefined) return `/${this.#token("")}`;
		if (!MACHINE_NAME.test(machine)) {
			throw new SandboxError(
				"invalid-argument",
				`${JSON.stringify(machine.slice(0, 100))} is no machine name: up to 64 of A-Z a-z 0-9 . _ - are needed`,
			);
		}
		return `/${this.#token(machine)}/${machine}`;
	}

	/** What the path of a request (with its query) opens. */
	check(target: string): Access {
		const [path = ""] = target.split("?", 1);
		const [lead, token = "", machine, ...rest] = path.split("/");
		if (lead !== "" || token === "" || rest.length > 0) return { kind: "unknown-path" };
		if (machine !== undefined && !MACHINE_NAME.test(machine)) return { kind: "unknown-path" };
		if (!sameText(token, this.#token(machine ?? ""))) return { kind: "wrong-token" };
		return { kind: "granted", machine };
	}

	#token(machine: string): string {
		return createHmac("sha256", this.#secret).update(machine).digest("base64url");
	}
}

/** In a time that says nothing about where they differ. */
function sameText(a: string, b: string): boolean {
	const digest = (text: string) => createHash("sha256").update(text).digest();
	return timingSafeEqual(digest(a), digest(b));
}

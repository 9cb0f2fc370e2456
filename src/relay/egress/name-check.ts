import { readFirstBytes } from "./first-bytes.js";
import type { EgressRequest, Policy, Refused } from "./policy.js";

export type NameCheckResult =
	/** Hold the bytes back; call again when there are more of them. */
	| { readonly kind: "need-more" }
	/** Let everything through, now and later. `name`: what the flow calls its server. */
	| { readonly kind: "pass"; readonly name: string | undefined }
	/** Reset the flow; nothing of what it said goes out. */
	| { readonly kind: "refused"; readonly verdict: Refused };

/** Asks the policy about the name that a TCP flow's first bytes carry. */
export class NameCheck {
	readonly #policy: Policy;
	readonly #request: EgressRequest;

	constructor(policy: Policy, request: EgressRequest) {
		this.#policy = policy;
		this.#request = request;
	}

	/** `bytes`: everything that the guest has sent in the flow so far. */
	inspect(bytes: Uint8Array): NameCheckResult {
		const first = readFirstBytes(bytes);
		switch (first.kind) {
			case "need-more":
				return { kind: "need-more" };
			case "other":
				return { kind: "pass", name: undefined };
			case "unreadable":
				return { kind: "refused", verdict: this.#refuse(first.reason) };
			case "name": {
				const verdict = this.#policy.decideNamed(this.#request, first.name);
				return verdict.allowed ? { kind: "pass", name: first.name } : { kind: "refused", verdict };
			}
		}
	}

	#refuse(reason: string): Refused {
		return { allowed: false, rule: "unreadable name", reason, name: undefined };
	}
}

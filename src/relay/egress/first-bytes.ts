/** What the first bytes of a TCP flow tell of the server that it is for. */
export type FirstBytes =
	| { readonly kind: "need-more" }
	/** In lower case, without port. */
	| { readonly kind: "name"; readonly name: string }
	/** A protocol that names no server there. */
	| { readonly kind: "other" }
	/** TLS or HTTP, but the name can't be made out. */
	| { readonly kind: "unreadable"; readonly reason: string };

export function readFirstBytes(_bytes: Uint8Array): FirstBytes {
	return { kind: "other" };
}

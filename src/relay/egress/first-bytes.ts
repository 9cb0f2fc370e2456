import { FIRST_BYTES_MAX } from "../limits.js";
import { isTlsStart, readClientHello } from "./client-hello.js";
import { isHttpStart, readHttpRequest } from "./http-request.js";

/** What the first bytes of a TCP flow tell of the server that it is for. */
export type FirstBytes =
	| { readonly kind: "need-more" }
	/** In lower case, without port. */
	| { readonly kind: "name"; readonly name: string }
	/** A protocol that names no server there. */
	| { readonly kind: "other" }
	/** TLS or HTTP, but the name can't be made out. */
	| { readonly kind: "unreadable"; readonly reason: string };

/** Whatever else stands there, such as "/" or NUL, servers and we could read differently. */
const NAME = /^[a-z0-9._:[\]-]+$/;

/** Reads the name out of a TLS ClientHello or an HTTP/1 request. `bytes`: all that the client has sent so far. */
export function readFirstBytes(bytes: Uint8Array): FirstBytes {
	if (bytes.length === 0) return { kind: "need-more" };
	const first = bytes.subarray(0, FIRST_BYTES_MAX);
	let found: FirstBytes = { kind: "other" };
	if (isTlsStart(first)) found = readClientHello(first);
	else if (isHttpStart(first)) found = readHttpRequest(first);
	if (found.kind === "name" && !NAME.test(found.name)) return { kind: "unreadable", reason: "a malformed host name" };
	if (found.kind !== "need-more" || bytes.length < FIRST_BYTES_MAX) return found;
	return { kind: "unreadable", reason: `no name in the first ${FIRST_BYTES_MAX} bytes` };
}

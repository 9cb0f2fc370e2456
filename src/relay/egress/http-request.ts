import type { FirstBytes } from "./first-bytes.js";

/** What servers take for a method (RFC 9110 9.1 allows more); all that are registered are shorter. */
const METHOD_START = /^[a-z_-]{1,32}(?:[ \t]|$)/i;
const REQUEST_LINE = /^([a-z_-]{1,32})[ \t]+(\S+)[ \t]+HTTP\/(\d+)\.\d+\s*$/i;
const ABSOLUTE_TARGET = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#]*)/i;
/** "host", "host:port", "[v6]:port". */
const AUTHORITY = /^(\[[^\]]*\]|[^:]*)(?::\d*)?$/;

const NEED_MORE: FirstBytes = { kind: "need-more" };
const OTHER: FirstBytes = { kind: "other" };

/** Whether bytes may be the start of a request; empty lines before it are allowed (RFC 9112 2.2). */
export function isHttpStart(bytes: Uint8Array): boolean {
	const text = latin1(bytes.subarray(0, 64)).replace(/^(?:\r?\n)+\r?/, "");
	return text === "" || text === "\r" || METHOD_START.test(text);
}

/** The name that an HTTP/1 request is for: of its target if that is absolute, else of its Host (RFC 9112 3.2.2). */
export function readHttpRequest(bytes: Uint8Array): FirstBytes {
	const text = latin1(bytes).replace(/^(?:\r?\n)+/, "");
	const lines = text.split(/\r?\n/);
	// The last one is not ended yet.
	lines.pop();
	const [requestLine, ...fields] = lines;
	if (requestLine === undefined) return NEED_MORE;
	const request = REQUEST_LINE.exec(requestLine);
	if (request === null) return OTHER;
	const [, method = "", target = "", major] = request;
	// "PRI * HTTP/2.0": the names come compressed (RFC 9113 3.4).
	if (major !== "1") return unreadable("HTTP/2 without TLS");
	const end = fields.indexOf("");
	if (end < 0) return NEED_MORE;
	const isConnect = method.toUpperCase() === "CONNECT";
	return nameOf(isConnect ? target : ABSOLUTE_TARGET.exec(target)?.[1], fields.slice(0, end));
}

function nameOf(authority: string | undefined, fields: readonly string[]): FirstBytes {
	const found = new Set<string>();
	if (authority !== undefined) found.add(hostOf(authority));
	for (const field of fields) {
		// A line that goes on with the one before could hide a name from us that the server sees (RFC 9112 5.2).
		if (/^[ \t]|\r/.test(field)) return unreadable("a folded header line");
		const colon = field.indexOf(":");
		if (colon >= 0 && field.slice(0, colon).trim().toLowerCase() === "host")
			found.add(hostOf(field.slice(colon + 1).trim()));
	}
	const [name, ...others] = found;
	if (name === undefined) return OTHER;
	if (others.length > 0) return unreadable("an HTTP request for more than one host");
	return name === "" ? OTHER : { kind: "name", name };
}

function hostOf(authority: string): string {
	// What is no authority is kept as it is: no rule allows it.
	const host = (AUTHORITY.exec(authority)?.[1] ?? authority).toLowerCase();
	return host.endsWith(".") ? host.slice(0, -1) : host;
}

function latin1(bytes: Uint8Array): string {
	return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

function unreadable(reason: string): FirstBytes {
	return { kind: "unreadable", reason };
}

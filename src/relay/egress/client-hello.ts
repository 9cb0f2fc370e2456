import { readUint16 } from "../wire/bytes.js";
import type { FirstBytes } from "./first-bytes.js";

// RFC 8446 5.1, a record: type(1) version(2) length(2), then a piece of the handshake
const RECORD_HEADER_BYTES = 5;
const RECORD_LENGTH_OFFSET = 3;
const HANDSHAKE_RECORD = 22;
/** RFC 8446 5.1; no record of a handshake's first flight is empty. */
const MAX_RECORD_BYTES = 16_384;
// RFC 8446 4, a handshake message: type(1) length(3)
const MESSAGE_HEADER_BYTES = 4;
const CLIENT_HELLO = 1;
// RFC 8446 4.1.2, ClientHello: version(2) random(32) session<1> suites<2> compressions<1> extensions<2>
const SESSION_OFFSET = 34;
const SERVER_NAME = 0;
const HOST_NAME = 0;

const NEED_MORE: FirstBytes = { kind: "need-more" };
const OTHER: FirstBytes = { kind: "other" };

/** Whether bytes may be the start of TLS: a handshake record of version 3.x. */
export function isTlsStart(bytes: Uint8Array): boolean {
	return bytes[0] === HANDSHAKE_RECORD && (bytes.length < 2 || bytes[1] === 3);
}

/** The server's name of a ClientHello (RFC 6066 3), over however many records it is spread. */
export function readClientHello(bytes: Uint8Array): FirstBytes {
	const handshake = joinRecords(bytes);
	if (handshake === undefined) return unreadable("a TLS record that no client sends");
	if (handshake.length > 0 && handshake[0] !== CLIENT_HELLO) return unreadable("a TLS handshake without ClientHello");
	if (handshake.length < MESSAGE_HEADER_BYTES) return NEED_MORE;
	const length = ((handshake[1] ?? 0) << 16) | readUint16(handshake, 2);
	if (handshake.length < MESSAGE_HEADER_BYTES + length) return NEED_MORE;
	return readExtensions(handshake.subarray(MESSAGE_HEADER_BYTES, MESSAGE_HEADER_BYTES + length));
}

/** The handshake's bytes that are there; undefined if their record is malformed. */
function joinRecords(bytes: Uint8Array): Uint8Array | undefined {
	const pieces: Uint8Array[] = [];
	for (let at = 0; at < bytes.length; ) {
		if (bytes[at] !== HANDSHAKE_RECORD) break;
		if (bytes.length < at + RECORD_HEADER_BYTES) break;
		const length = readUint16(bytes, at + RECORD_LENGTH_OFFSET);
		if (length === 0 || length > MAX_RECORD_BYTES) return undefined;
		const start = at + RECORD_HEADER_BYTES;
		pieces.push(bytes.subarray(start, start + length));
		at = start + length;
	}
	return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces);
}

function readExtensions(hello: Uint8Array): FirstBytes {
	const suites = SESSION_OFFSET + 1 + (hello[SESSION_OFFSET] ?? 0);
	const compressions = suites + 2 + readUint16(hello, suites);
	const extensions = compressions + 1 + (hello[compressions] ?? 0);
	if (extensions > hello.length) return unreadable("a malformed ClientHello");
	// Before TLS 1.2 there need be none.
	if (extensions === hello.length) return OTHER;
	const end = extensions + 2 + readUint16(hello, extensions);
	if (end !== hello.length) return unreadable("a malformed ClientHello");
	let found: FirstBytes = OTHER;
	for (let at = extensions + 2; at < end; ) {
		const next = at + 4 + readUint16(hello, at + 2);
		if (at + 4 > end || next > end) return unreadable("a malformed ClientHello");
		if (readUint16(hello, at) === SERVER_NAME) {
			if (found.kind !== "other") return unreadable("a ClientHello with two server names");
			found = readServerName(hello.subarray(at + 4, next));
			if (found.kind !== "name") return found;
		}
		at = next;
	}
	return found;
}

/** list<2>, of type(1) name<2>; there is one type and one name of it. */
function readServerName(extension: Uint8Array): FirstBytes {
	const length = readUint16(extension, 3);
	const isWhole =
		extension.length === 5 + length &&
		readUint16(extension, 0) === 3 + length &&
		extension[2] === HOST_NAME &&
		length > 0;
	if (!isWhole) return unreadable("a malformed server name");
	const name = Buffer.from(extension.subarray(5)).toString("latin1").toLowerCase();
	return { kind: "name", name: name.endsWith(".") ? name.slice(0, -1) : name };
}

function unreadable(reason: string): FirstBytes {
	return { kind: "unreadable", reason };
}

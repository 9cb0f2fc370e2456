/**
 * Domain names as text (RFC 1035 5.1): labels with dots between them, no dot at the end, "." for the root. Bytes other than
 * letters, digits and plain punctuation are written \DDD, so that a dot inside a label is no border of labels.
 */

const MAX_LABEL_BYTES = 63;
/** With the length bytes and the root's. */
const MAX_NAME_BYTES = 255;
const POINTER = 0xc0;
/** More than a name has labels is of no use. */
const MAX_POINTERS = 127;

export interface ReadName {
	readonly name: string;
	/** Just behind the name where it stands; a pointer's target is elsewhere. */
	readonly end: number;
}

/** Reads a name that may be compressed (RFC 1035 4.1.4). Pointers must lead backwards, so there is no loop. */
export function readDnsName(bytes: Uint8Array, start: number): ReadName | undefined {
	const labels: string[] = [];
	let nameBytes = 1;
	let at = start;
	/** A pointer from here must lead to before this. */
	let border = start;
	let end: number | undefined;
	let pointers = 0;
	for (;;) {
		const length = bytes[at];
		if (length === undefined) return undefined;
		if (length === 0) return { name: labels.join(".") || ".", end: end ?? at + 1 };
		if ((length & POINTER) === POINTER) {
			const low = bytes[at + 1];
			if (low === undefined) return undefined;
			const target = ((length & 0x3f) << 8) | low;
			pointers += 1;
			if (target >= border || pointers > MAX_POINTERS) return undefined;
			end ??= at + 2;
			border = target;
			at = target;
			continue;
		}
		const next = at + 1 + length;
		nameBytes += 1 + length;
		if (length > MAX_LABEL_BYTES || next > bytes.length || nameBytes > MAX_NAME_BYTES) return undefined;
		labels.push(labelText(bytes, at + 1, next));
		at = next;
	}
}

/** The labels' bytes; undefined if it is no name. The inverse of what readDnsName makes. */
export function dnsNameLabels(name: string): Uint8Array[] | undefined {
	if (name === ".") return [];
	const labels: Uint8Array[] = [];
	let nameBytes = 1;
	for (const text of name.split(".")) {
		const label = labelBytes(text);
		if (label === undefined || label.length === 0 || label.length > MAX_LABEL_BYTES) return undefined;
		nameBytes += 1 + label.length;
		labels.push(label);
	}
	return nameBytes > MAX_NAME_BYTES ? undefined : labels;
}

/** For comparing: case does not matter in ASCII letters (RFC 4343). */
export function canonicalDnsName(name: string): string {
	return name.toLowerCase();
}

function labelText(bytes: Uint8Array, start: number, end: number): string {
	let text = "";
	for (let at = start; at < end; at++) {
		const byte = bytes[at] ?? 0;
		const isPlain = byte > 0x20 && byte < 0x7f && byte !== 0x2e && byte !== 0x5c;
		text += isPlain ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, "0")}`;
	}
	return text;
}

function labelBytes(text: string): Uint8Array | undefined {
	const bytes: number[] = [];
	for (let at = 0; at < text.length; at++) {
		let code = text.charCodeAt(at);
		if (code === 0x5c) {
			const digits = text.slice(at + 1, at + 4);
			if (!/^\d{3}$/.test(digits)) return undefined;
			code = Number(digits);
			at += 3;
		}
		if (code > 0xff) return undefined;
		bytes.push(code);
	}
	return Uint8Array.from(bytes);
}

/** Bytes of a frame as a capture shows them: hexadecimal, white space is for the eye. */
export function fromHex(text: string): Uint8Array {
	return Uint8Array.from(text.replace(/\s+/g, "").match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** What a parser must have taken. */
export function accepted<T>(parsed: { ok: true; value: T } | { ok: false; reason: string }): T {
	if (!parsed.ok) throw new Error(parsed.reason);
	return parsed.value;
}

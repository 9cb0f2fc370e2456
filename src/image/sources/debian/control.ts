// deb822 (Debian Policy 5.1): stanzas of "Field: value" lines, continued by lines that start with a space or tab.

import { SandboxError } from "../../../errors.js";
import { limits } from "../../limits.js";

/** Field names in lower case, with their values; lines of a folded value are separated by "\n". */
export type Stanza = ReadonlyMap<string, string>;

/** All stanzas of a text. Throws SandboxError("corrupt") on a line that is none of deb822's. */
export function parseStanzas(text: string, source: string): Stanza[] {
	return text
		.replace(/\r\n/g, "\n")
		.split(/\n[ \t]*\n/)
		.filter((block) => block.trim() !== "")
		.map((block) => parseStanza(block, source))
		.filter((stanza) => stanza.size > 0);
}

/** One stanza. `wanted` (lower case) leaves out all other fields. */
export function parseStanza(block: string, source: string, wanted?: ReadonlySet<string>): Stanza {
	if (block.length > limits.maxStanzaChars) {
		throw new SandboxError("corrupt", `${source}: a stanza is longer than ${limits.maxStanzaChars} characters`);
	}
	const fields = new Map<string, string>();
	let current: string | undefined;
	for (const line of block.split("\n")) {
		if (line === "" || line.startsWith("#")) continue;
		if (line.startsWith(" ") || line.startsWith("\t")) {
			if (current === undefined) {
				if (fields.size === 0) throw badLine(source, line);
				continue;
			}
			fields.set(current, `${fields.get(current) ?? ""}\n${line}`);
			continue;
		}
		const colon = line.indexOf(":");
		if (colon <= 0 || /[\s]/.test(line.slice(0, colon))) throw badLine(source, line);
		const name = line.slice(0, colon).toLowerCase();
		if (fields.has(name)) throw new SandboxError("corrupt", `${source}: the field ${name} occurs twice`);
		if (wanted !== undefined && !wanted.has(name) && fields.size > 0) {
			current = undefined;
			continue;
		}
		fields.set(name, line.slice(colon + 1).trim());
		current = name;
	}
	return fields;
}

function badLine(source: string, line: string): SandboxError {
	return new SandboxError("corrupt", `${source}: not a "Field: value" line: ${JSON.stringify(line.slice(0, 80))}`);
}

/** Reads stanzas from a stream of text, one at a time. `wanted` as in parseStanza. */
export async function* readStanzas(
	chunks: AsyncIterable<Uint8Array>,
	source: string,
	wanted?: ReadonlySet<string>,
): AsyncGenerator<Stanza> {
	const decoder = new TextDecoder();
	let rest = "";
	for await (const chunk of chunks) {
		rest += decoder.decode(chunk, { stream: true });
		let start = 0;
		for (;;) {
			const end = rest.indexOf("\n\n", start);
			if (end < 0) break;
			const block = rest.slice(start, end);
			start = end + 2;
			if (block.trim() !== "") yield parseStanza(block, source, wanted);
		}
		rest = rest.slice(start);
		if (rest.length > limits.maxStanzaChars) {
			throw new SandboxError("corrupt", `${source}: a stanza is longer than ${limits.maxStanzaChars} characters`);
		}
	}
	rest += decoder.decode();
	if (rest.trim() !== "") yield parseStanza(rest, source, wanted);
}

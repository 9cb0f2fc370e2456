/** What a server wants to be asked with: the header WWW-Authenticate (RFC 9110, sections 11.2 to 11.6.1). */

export interface Challenge {
	/** In lower case: "bearer", "basic". */
	readonly scheme: string;
	/** By names in lower case. */
	readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
const SEPARATORS = /[ \t,]*/y;
const PARAMETER = new RegExp(`(${TOKEN})[ \\t]*=[ \\t]*(?:"((?:[^"\\\\]|\\\\.)*)"|(${TOKEN}))(?=[ \\t,]|$)`, "y");
const SCHEME = new RegExp(`(${TOKEN})(?=[ \\t,]|$)`, "y");

/** All challenges of the header, as far as it can be read. */
export function parseChallenges(header: string): Challenge[] {
	const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
	let at = 0;
	const take = (pattern: RegExp) => {
		pattern.lastIndex = at;
		const match = pattern.exec(header);
		if (match !== null) at = pattern.lastIndex;
		return match;
	};
	for (;;) {
		take(SEPARATORS);
		const parameter = take(PARAMETER);
		const name = parameter?.[1];
		if (name !== undefined) {
			const value = parameter?.[2]?.replace(/\\(.)/g, "$1") ?? parameter?.[3] ?? "";
			challenges.at(-1)?.parameters.set(name.toLowerCase(), value);
			continue;
		}
		const scheme = take(SCHEME)?.[1];
		if (scheme === undefined) return challenges;
		challenges.push({ scheme: scheme.toLowerCase(), parameters: new Map() });
	}
}

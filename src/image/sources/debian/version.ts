// Debian Policy 5.6.12: [epoch:]upstream_version[-debian_revision]

const EPOCH = /^(\d{1,9}):/;
const UPSTREAM = /^[0-9A-Za-z.+~:-]+$/;
const REVISION = /^[0-9A-Za-z.+~]+$/;

export interface DebianVersion {
	readonly epoch: number;
	readonly upstream: string;
	/** "" where there is none, which counts as "0". */
	readonly revision: string;
}

/** The parts of a version, or undefined where Policy does not allow it. */
export function parseVersion(text: string): DebianVersion | undefined {
	const epochMatch = EPOCH.exec(text);
	const epoch = epochMatch ? Number(epochMatch[1]) : 0;
	const rest = epochMatch ? text.slice(epochMatch[0].length) : text;
	const dash = rest.lastIndexOf("-");
	const upstream = dash < 0 ? rest : rest.slice(0, dash);
	const revision = dash < 0 ? "" : rest.slice(dash + 1);
	if (!UPSTREAM.test(upstream) || (dash >= 0 && !REVISION.test(revision))) return undefined;
	if (upstream.includes(":") && !epochMatch) return undefined;
	return { epoch, upstream, revision };
}

/** Negative, 0 or positive as dpkg orders `a` and `b`. A text that is no version is ordered as its characters say. */
export function compareVersions(a: string, b: string): number {
	const left = splitVersion(a);
	const right = splitVersion(b);
	return (
		left.epoch - right.epoch ||
		compareParts(left.upstream, right.upstream) ||
		compareParts(left.revision, right.revision)
	);
}

function splitVersion(text: string): DebianVersion {
	return parseVersion(text) ?? { epoch: 0, upstream: text, revision: "" };
}

/** Alternating runs of non-digits (`~` first, then the end, letters, the rest) and of digits (by number). */
function compareParts(a: string, b: string): number {
	let i = 0;
	let j = 0;
	while (i < a.length || j < b.length) {
		while ((i < a.length && !isDigit(a.charCodeAt(i))) || (j < b.length && !isDigit(b.charCodeAt(j)))) {
			const difference = order(a.charCodeAt(i)) - order(b.charCodeAt(j));
			if (difference !== 0) return difference;
			i++;
			j++;
		}
		while (a.charCodeAt(i) === ZERO) i++;
		while (b.charCodeAt(j) === ZERO) j++;
		let firstDifference = 0;
		while (isDigit(a.charCodeAt(i)) && isDigit(b.charCodeAt(j))) {
			firstDifference ||= a.charCodeAt(i) - b.charCodeAt(j);
			i++;
			j++;
		}
		if (isDigit(a.charCodeAt(i))) return 1;
		if (isDigit(b.charCodeAt(j))) return -1;
		if (firstDifference !== 0) return firstDifference;
	}
	return 0;
}

const ZERO = 0x30;
const TILDE = 0x7e;

function isDigit(code: number): boolean {
	return code >= ZERO && code <= ZERO + 9;
}

/** The end of the text (NaN) and digits are 0, `~` sorts before them, letters before all other characters. */
function order(code: number): number {
	if (Number.isNaN(code) || isDigit(code)) return 0;
	if (code === TILDE) return -1;
	const isLetter = (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a);
	return isLetter ? code : code + 256;
}

/** Shell scripts as an agent might write them: every way of quoting, heredocs, unicode, options, functions, pipes. */

import fc from "fast-check";

const text = fc
	.array(
		fc.constantFrom(
			"a",
			"B",
			"0",
			" ",
			"  ",
			"*",
			"?",
			"~",
			"#",
			"!",
			"%",
			"=",
			"/",
			";",
			"&",
			"|",
			"<",
			">",
			"(",
			")",
			"{",
			"}",
			"[",
			"]",
			"é",
			"ß",
			"日",
			"🦊",
			"\t",
		),
		{ maxLength: 8 },
	)
	.map((parts) => parts.join(""));

const singleQuoted = text.map((value) => `'${value}'`);
const doubleQuoted = text.map((value) => `"${value.replaceAll("!", "")}"`);
const escaped = text.map((value) => value.replace(/[^a-zA-Z0-9é-🿿]/gu, (c) => (c === "\t" ? "" : `\\${c}`)) || "''");
const ansiQuoted = fc.constantFrom("$'tab\\there'", "$'it\\'s'", "$'\\u00e9'", "$'new\\nline'", "$'\\x41'");
const expansion = fc.constantFrom(
	'"$v"',
	"$((3 * 7))",
	'"${v:-none}"',
	'"${u:-none}"',
	'"${#v}"',
	'"${v%b*}"',
	'"${v#*a}"',
	'"${v//b/X}"',
	'"${v^^}"',
	'"$(echo sub)"',
	'"`echo tick`"',
	'"$(printf "%s" "nested $(echo deep)")"',
	'"${a[1]}"',
	'"${#a[@]}"',
	'"${a[@]}"',
	"$v",
	'"$?"',
	'"$#"',
	"{x,y}{1..3}",
);
const word = fc.oneof(singleQuoted, doubleQuoted, escaped, ansiQuoted, expansion);
const words = fc.array(word, { minLength: 1, maxLength: 4 }).map((list) => list.join(" "));

const heredoc = fc.tuple(text, fc.constantFrom("EOF", "'EOF'", '"EOF"', "-EOF")).map(([body, tag]) => {
	const safe = body.replace(/[`$\\]/g, "");
	return `cat <<${tag}\n${safe}\n\tindented "q" 'q' $v $((1+1))\nEOF`;
});

const simple = fc.oneof(
	{ weight: 4, arbitrary: words.map((list) => `printf '[%s]\\n' ${list}`) },
	{ weight: 2, arbitrary: words.map((list) => `echo ${list}`) },
	{ weight: 2, arbitrary: heredoc },
	{ weight: 1, arbitrary: word.map((each) => `v=${each}x`) },
	{ weight: 1, arbitrary: words.map((list) => `a=(${list})`) },
	{ weight: 1, arbitrary: words.map((list) => `echo ${list} >&2`) },
	{ weight: 1, arbitrary: fc.integer({ min: 0, max: 255 }).map((code) => `(exit ${code})`) },
	{
		weight: 1,
		arbitrary: fc.constantFrom(
			"false",
			"true",
			":",
			"test -n ''",
			"[[ abc == a* ]]",
			"((0))",
			"read -r line",
			"cat",
			"wc -c <<<'here string'",
		),
	},
	{
		weight: 1,
		arbitrary: fc.constantFrom(
			"cd /nonexistent",
			"no_such_command_here",
			"ls /nonexistent",
			"[ 1 -eq x ]",
			"shift 5",
			"return 3",
			"break",
		),
	},
);

const script: fc.Arbitrary<string> = fc.letrec<{ line: string; block: string }>((tie) => ({
	block: fc.array(tie("line"), { minLength: 1, maxLength: 4 }).map((lines) => lines.join("\n")),
	line: fc.oneof(
		{ depthSize: "small", withCrossShrink: true },
		{ weight: 8, arbitrary: simple },
		{
			weight: 1,
			arbitrary: fc
				.tuple(
					words,
					fc.constantFrom("sort", "tr a-z A-Z", "cat -A", "head -n 1", "wc -l", "sed 's/a/Z/g'", "grep -c ."),
				)
				.map(([list, filter]) => `printf '%s\\n' ${list} | ${filter}`),
		},
		{ weight: 1, arbitrary: tie("block").map((block) => `if true; then\n${block}\nfi`) },
		{
			weight: 1,
			arbitrary: fc
				.tuple(words, tie("block"))
				.map(([list, block]) => `for i in ${list}; do\n${block}\necho "i=$i"\ndone`),
		},
		{
			weight: 1,
			arbitrary: fc
				.tuple(tie("block"), words)
				.map(([block, list]) => `f() {\nlocal v=inner\n${block}\necho "args $# $1"\n}\nf ${list}`),
		},
		{ weight: 1, arbitrary: tie("block").map((block) => `(\nset -e\n${block}\necho unreached after a failure\n)`) },
		{ weight: 1, arbitrary: tie("block").map((block) => `{\n${block}\n} 2>&1 | cat`) },
		{
			weight: 1,
			arbitrary: fc
				.tuple(fc.constantFrom("-u", "-o pipefail", "-f", "-e"), tie("block"))
				.map(([flag, block]) => `( set ${flag}\n${block}\n)`),
		},
		{
			weight: 1,
			arbitrary: word.map((each) => `case ${each} in\n*a*) echo has a ;;\n'') echo empty ;;\n*) echo other ;;\nesac`),
		},
	),
})).block;

/** Whole scripts; a final exit code is part of some. */
export const scripts: fc.Arbitrary<string> = fc
	.tuple(script, fc.option(fc.integer({ min: 0, max: 255 })))
	.map(([body, code]) => `v=abc; a=(1 "2 3"); unset u\n${body}${code === null ? "" : `\n(exit ${code})`}`);

// dpkg's path-exclude and path-include (dpkg.cfg(5), src/main/filters.c): the last rule that matches decides.

export interface PathRule {
	readonly kind: "exclude" | "include";
	/** A glob over the absolute path; `*` and `?` match slashes too. */
	readonly pattern: string;
}

/** What an image leaves out of every package: documentation, manuals, translations. Licences stay. */
export const IMAGE_PATH_RULES: readonly PathRule[] = [
	{ kind: "exclude", pattern: "/usr/share/doc/*" },
	{ kind: "include", pattern: "/usr/share/doc/*/copyright" },
	{ kind: "exclude", pattern: "/usr/share/man/*" },
	{ kind: "exclude", pattern: "/usr/share/info/*" },
	{ kind: "exclude", pattern: "/usr/share/groff/*" },
	{ kind: "exclude", pattern: "/usr/share/lintian/*" },
	{ kind: "exclude", pattern: "/usr/share/linda/*" },
	{ kind: "exclude", pattern: "/usr/share/bug/*" },
	{ kind: "exclude", pattern: "/usr/share/locale/*" },
	{ kind: "include", pattern: "/usr/share/locale/locale.alias" },
];

/** The rules as a file of /etc/dpkg/dpkg.cfg.d. */
export function serializePathRules(rules: readonly PathRule[]): string {
	return rules.map(({ kind, pattern }) => `path-${kind}=${pattern}\n`).join("");
}

/** A test for dpkg's answer to "is this path left out?"; `path` has no leading slash. */
export function createPathFilter(
	rules: readonly PathRule[],
): (path: string, kind: "directory" | "file" | "symlink") => boolean {
	const compiled = rules.map(({ kind, pattern }) => ({
		kind,
		regex: new RegExp(
			`^${pattern
				.replace(/[.+^${}()|[\]\\]/g, "\\$&")
				.replace(/\*/g, ".*")
				.replace(/\?/g, ".")}$`,
			"s",
		),
		// Folders above a re-included path are kept, as far as its pattern has no wildcard.
		fixed: pattern.replace(/[*?[\\].*$/s, "").replace(/\/+$/, ""),
	}));
	return (path, kind) => {
		const absolute = `/${path}`;
		let excluded = false;
		for (const rule of compiled) if (rule.regex.test(absolute)) excluded = rule.kind === "exclude";
		if (!excluded || kind === "file") return excluded;
		return !compiled.some((rule) => rule.kind === "include" && absolute.startsWith(rule.fixed));
	};
}

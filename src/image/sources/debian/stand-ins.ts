/**
 * Programs that are covered by stand-ins (bind mounts) while the packages are set up for the first time, because what they
 * do then is nothing, or is done in another way, and each of their starts costs seconds in the emulator.
 */

import type { Tree } from "../../tree.js";

export interface StandIn {
	/** The program, absolute. */
	readonly path: string;
	readonly content: string;
}

const NOTHING = "#!/bin/sh\nexit 0\n";

const PROGRAMS: readonly string[] = [
	// Moves configuration files of earlier versions. There are none at a first installation (`$2` is empty).
	"/usr/bin/dpkg-maintscript-helper",
	// Enable and start services of systemd and sysvinit. The image has neither.
	"/usr/bin/deb-systemd-helper",
	"/usr/bin/deb-systemd-invoke",
	"/usr/sbin/update-rc.d",
	"/usr/sbin/invoke-rc.d",
	// Compile Python's library. What is used at once is compiled afterwards (see guest-script.ts), the rest by Python itself.
	"/usr/bin/py3compile",
	"/usr/bin/py3clean",
];

/** debconf(7) for shell scripts, answering every question with the package's default and asking none. */
const CONFMODULE = `# debconf's confmodule, answering with the defaults of the packages' templates.
_answer() { RET=$(sed -n "s|^$1	||p" /run/sandbox86-build/debconf-defaults); }
db_get() { _answer "$1"; grep -q "^$1	" /run/sandbox86-build/debconf-defaults || return 10; }
db_metaget() { RET=; }
db_fget() { RET=false; }
db_input() { return 30; }
db_go() { return 0; }
db_capb() { RET=; }
db_version() { RET=2.0; }
for _f in title settitle info beginblock endblock purge register unregister subst set fset reset progress stop \\
	x_loadtemplatefile x_save previous_module clear; do
	eval "db_$_f() { RET=; return 0; }"
done
`;

/** The same for Perl scripts (pam-auth-update), which the real one starts three times over. What is set is what is got. */
const PERL_CONFMODULE = `package Debconf::Client::ConfModule;
use strict;
use Exporter 'import';
my @commands = qw(version capb stop reset title input beginblock endblock go unset set get register unregister clear
	previous_module start_frontend fset fget subst purge metaget visible exist settitle info progress data
	x_loadtemplatefile x_save);
our @EXPORT_OK = @commands;
our %EXPORT_TAGS = (all => [@commands]);
my %values;
sub answer { my ($text) = @_; return wantarray ? (0, $text) : $text; }
sub set { my ($name, $value) = @_; $values{$name} = $value; return answer($value); }
sub get { my ($name) = @_; return answer(defined $values{$name} ? $values{$name} : ''); }
sub input { return wantarray ? (30, 'question skipped') : 'question skipped'; }
sub fget { return answer('false'); }
for my $name (@commands) {
	no strict 'refs';
	*{$name} = sub { return answer(''); } unless defined &{$name};
}
1;
`;

/** The stand-ins for what the tree has. */
export function standInsFor(tree: Tree): StandIn[] {
	const wanted: StandIn[] = PROGRAMS.map((path) => ({ path, content: NOTHING }));
	wanted.push({ path: "/usr/share/debconf/confmodule", content: CONFMODULE });
	wanted.push({ path: "/usr/share/perl5/Debconf/Client/ConfModule.pm", content: PERL_CONFMODULE });
	const lib = tree.resolve("usr/lib");
	if (lib?.kind === "directory") {
		for (const name of lib.children.keys()) {
			if (/^python3\.\d+$/.test(name)) wanted.push({ path: `/usr/lib/${name}/py_compile.py`, content: "" });
		}
	}
	return wanted.filter(({ path }) => tree.resolve(path)?.kind === "file");
}

/** "template\tdefault" lines out of the packages' debconf templates. */
export function debconfDefaults(templates: Iterable<string>): string {
	let lines = "";
	for (const text of templates) {
		for (const block of text.split(/\n\s*\n/)) {
			const template = /^Template:\s*(\S+)/im.exec(block)?.[1];
			const type = /^Type:\s*(\S+)/im.exec(block)?.[1];
			if (template === undefined || type === "note" || type === "title" || type === "text" || type === "error")
				continue;
			// Without a default it is a config script that answers; those are not run, and the script has its own default.
			const answer = /^Default:[ \t]*(.*)$/im.exec(block)?.[1] ?? "";
			if (answer !== "") lines += `${template}\t${answer}\n`;
		}
	}
	return lines;
}

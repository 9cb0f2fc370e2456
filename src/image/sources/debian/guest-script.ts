import type { UnpackedPackage } from "./dpkg-database.js";
import { debconfDefaults, type StandIn } from "./stand-ins.js";

/** Folder in the guest for what only the build needs; gone before the changes are exported. */
export const WORK = "/run/sandbox86-build";

/** Configured before all others, in this order, as debootstrap does: the others' scripts use them unasked. */
const FIRST = ["base-passwd", "base-files", "libc6", "dpkg", "mawk", "debconf"];

/** Files for the guest, by absolute path. */
export function guestFiles(packages: readonly UnpackedPackage[], standIns: readonly StandIn[]): Map<string, string> {
	const templates = packages.flatMap(({ control }) => {
		const found = control.files.get("templates");
		return found === undefined ? [] : [found.content.toString("utf8")];
	});
	const files = new Map<string, string>([[`${WORK}/debconf-defaults`, debconfDefaults(templates)]]);
	for (const [at, { content }] of standIns.entries()) files.set(`${WORK}/${at}`, content);
	return files;
}

/**
 * The script that sets the packages up: their preinst scripts with the argument that a first installation gives them, then
 * `dpkg --configure`. Ends with code 0 only if all of it worked and `dpkg --audit` finds nothing.
 */
export function configureScript(packages: readonly UnpackedPackage[], standIns: readonly StandIn[]): string {
	const names = new Set(packages.map(({ name }) => name));
	const first = FIRST.filter((name) => names.has(name));
	const withPreinst = packages.filter(({ control }) => control.files.has("preinst"));
	withPreinst.sort((a, b) => rank(a.name) - rank(b.name));
	const mounts = standIns.map(({ path }, at) => `chmod 755 ${WORK}/${at}\nmount --bind ${WORK}/${at} ${path}\n`);
	const unmounts = standIns.map(({ path }) => `umount ${path}\n`);
	const preinsts = withPreinst.map(
		({ name, architecture, control }) =>
			`echo "Preparing ${name}"\nDPKG_MAINTSCRIPT_PACKAGE=${name} DPKG_MAINTSCRIPT_ARCH=${architecture} ` +
			`DPKG_MAINTSCRIPT_NAME=preinst DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= ` +
			`/var/lib/dpkg/info/${name}${control.control.get("multi-arch") === "same" ? `:${architecture}` : ""}.preinst install\n`,
	);
	return `(
set -e
exec </dev/null
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true DEBCONF_NOWARNINGS=yes
umask 022
cd /
${mounts.join("")}${preinsts.join("")}dpkg --force-unsafe-io --force-depends --configure ${first.join(" ")}
dpkg --force-unsafe-io --configure -a
cd /
${unmounts.join("")}problems=$(dpkg --audit)
if [ -n "$problems" ]; then echo "$problems" >&2; exit 1; fi
)`;
}

function rank(name: string): number {
	const at = FIRST.indexOf(name);
	return at < 0 ? FIRST.length : at;
}

/**
 * Compile what Python needs at its start and for common work, and what pip needs, by using it: compiled files that are not
 * in the image are compiled again in every machine, which takes seconds each time. The rest is left to Python.
 */
export const COMPILE_PYTHON = pythonStep(`python3 -c '
import argparse, base64, collections, contextlib, csv, dataclasses, datetime, enum, functools, glob, hashlib, inspect, io, itertools
import json, logging, os, pathlib, random, re, shlex, shutil, socket, ssl, string, subprocess, sys, tempfile, textwrap, threading
import time, traceback, typing, urllib.request, venv
'`);
export const COMPILE_PIP = pythonStep(
	"if [ -d /usr/lib/python3/dist-packages/pip ]; then python3 -m pip list >/dev/null; fi",
);

function pythonStep(commands: string): string {
	return `(
set -e
exec </dev/null
export HOME=/root LC_ALL=C.UTF-8
cd /
command -v python3 >/dev/null || exit 0
${commands}
)`;
}

/**
 * Prepares apt's own cache of the indices: two minutes of parsing that every machine would otherwise spend at its first
 * use of apt. The other half (pkgcache.bin, as long again) follows the installed packages and is made from it in seconds.
 */
export const INDEX_APT = `(
set -e
exec </dev/null
cd /
command -v apt-cache >/dev/null || exit 0
apt-cache gencaches
rm -f /var/cache/apt/pkgcache.bin
)`;

/** Removes what tells of the build and what is made again when needed. */
export const CLEAN = `(
set -e
cd /
rm -rf ${WORK} /tmp/* /var/tmp/* /var/cache/apt/archives/*.deb /root/.cache
rm -f /var/log/dpkg.log /var/log/alternatives.log /var/log/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache
rm -f /var/lib/dpkg/*-old /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /root/.bash_history /root/.python_history
)`;

#!/bin/bash
# Makes the smallest userland: Debian's busybox-static (i386) and a handful of text files, as a v86 9p tree.
#   build.sh           writes fs.json and files/
#   build.sh --check   builds elsewhere and compares
# Set BUSYBOX_DEB to use a package already at hand.
set -euo pipefail
cd "$(dirname "$0")"

BUSYBOX_VERSION=1:1.35.0-4+deb12u1+b1
BUSYBOX_SHA256=725ef9e6fbac4ab79b353165b05005e8c140d6e42177ebbc202ff1e13ded8b7c

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -n "${BUSYBOX_DEB:-}" ]]; then
	cp "$BUSYBOX_DEB" "$work/busybox.deb"
else
	(cd "$work" && apt-get download -q "busybox-static:i386=$BUSYBOX_VERSION" && mv busybox-static_*.deb busybox.deb)
fi
echo "$BUSYBOX_SHA256  $work/busybox.deb" | sha256sum --check --quiet
dpkg-deb -x "$work/busybox.deb" "$work/busybox"
python3 make-tree.py "$work/busybox/bin/busybox" applets.txt "$work/tree"

if [[ "${1:-}" == --check ]]; then
	cmp "$work/tree/fs.json" fs.json
	diff -r "$work/tree/files" files
	echo "fs.json and files/ are what build.sh makes"
else
	rm -rf files
	cp -r "$work/tree/files" "$work/tree/fs.json" .
	sha256sum fs.json
fi

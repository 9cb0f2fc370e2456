#!/bin/bash
# Builds `init` (static, i386, musl) and `initramfs.cpio`, the same bytes every time.
#   build.sh                 build into this folder
#   build.sh --check         build elsewhere and compare with what is committed
#   build.sh --install-deps  install what the build needs (Debian 12, as root)
# The C library is Debian's musl-dev:i386, unpacked beside and never installed; set MUSL_DEB to use a package already at hand.
set -euo pipefail
cd "$(dirname "$0")"

MUSL_PACKAGE=musl-dev:i386
MUSL_VERSION=1.2.3-1
MUSL_SHA256=e7e49904a302b4c986cc7729b1af9117f7a01a928b12c43e75bdd015697bff82
SOURCES=(main.c boot.c channel.c clock.c command.c environment.c export.c files.c leftover.c power.c process.c shell.c)

if [[ "${1:-}" == --install-deps ]]; then
	dpkg --print-foreign-architectures | grep -qx i386 || dpkg --add-architecture i386
	apt-get update -q || echo "build.sh: some package indices could not be fetched; going on with those there are" >&2
	apt-get install -q -y --no-install-recommends gcc gcc-multilib lib32gcc-12-dev binutils libc6-dev linux-libc-dev python3
	exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [[ -n "${MUSL_DEB:-}" ]]; then
	cp "$MUSL_DEB" "$work/musl.deb"
else
	(cd "$work" && apt-get download -q "$MUSL_PACKAGE=$MUSL_VERSION" && mv musl-dev_*.deb musl.deb)
fi
echo "$MUSL_SHA256  $work/musl.deb" | sha256sum --check --quiet
dpkg-deb -x "$work/musl.deb" "$work/musl"
include=$work/musl/usr/include/i386-linux-musl
library=$work/musl/usr/lib/i386-linux-musl

# Kernel headers (linux/, asm/, asm-generic/) come from the host's linux-libc-dev; libc headers only from musl.
mkdir "$work/kernel"
for folder in linux asm-generic; do ln -s "/usr/include/$folder" "$work/kernel/$folder"; done
ln -s "/usr/include/$(gcc -print-multiarch)/asm" "$work/kernel/asm"

flags=(-m32 -march=i686 -std=gnu11 -Os -Wall -Wextra -Werror -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
	-nostdinc -isystem "$include" -isystem "$(gcc -m32 -print-file-name=include)" -isystem "$work/kernel"
	-fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables -ffunction-sections -fdata-sections
	-ffile-prefix-map="$work=/build" -frandom-seed=init)
libgcc=$(gcc -m32 -print-libgcc-file-name)
gcc "${flags[@]}" -static -no-pie -nostdlib -Wl,--gc-sections -Wl,--build-id=none -Wl,-z,noseparate-code -s -o "$work/init" \
	"$library/crt1.o" "$library/crti.o" "${SOURCES[@]}" -Wl,--start-group "$library/libc.a" "$libgcc" -Wl,--end-group "$library/crtn.o"
objcopy --remove-section=.comment "$work/init"

python3 - "$work/init" "$work/initramfs.cpio" <<'PYTHON'
# newc: 070701, thirteen fields of eight hex digits, the name with its NUL, the data; name and data padded to four bytes.
import sys

def entry(inode, name, mode, data=b"", links=1, major=0, minor=0):
    fields = [inode, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

archive = entry(1, "dev", 0o040755, links=2)
archive += entry(2, "dev/console", 0o020600, major=5, minor=1)
archive += entry(3, "init", 0o100755, open(sys.argv[1], "rb").read())
archive += entry(0, "TRAILER!!!", 0)
open(sys.argv[2], "wb").write(archive + bytes(-len(archive) % 512))
PYTHON

if [[ "${1:-}" == --check ]]; then
	cmp "$work/init" init
	cmp "$work/initramfs.cpio" initramfs.cpio
	echo "init and initramfs.cpio are what the sources make"
else
	install -m 755 "$work/init" init
	install -m 644 "$work/initramfs.cpio" initramfs.cpio
	sha256sum init initramfs.cpio
fi

#!/usr/bin/env bash
# Builds the sandbox86 guest kernel from Debian's packaged Linux source with Debian's own tools.
# Same source version and compiler in, same bytes out: see PROVENANCE.md.
set -euo pipefail

SERIES=6.12
SOURCE_VERSION=6.12.117-1~deb12u1
CC_PACKAGE=gcc-12
# What Debian 12 must have installed (gcc-12 and binutils build i386 code without a cross compiler).
DEPENDENCIES=(gcc-12 binutils make flex bison bc libelf-dev libssl-dev xz-utils perl python3-minimal cpio)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=
output=$here
jobs=$(nproc)
install_dependencies=false
keep=false
check=false
source_archive=

usage() {
  cat <<TEXT
usage: build.sh [options]
  --work DIR        work in DIR and keep it (default: a new temporary folder, removed at the end)
  --output DIR      put bzImage and config there (default: beside this script)
  --source TAR      use this linux-source-$SERIES.tar.xz instead of fetching the Debian package with apt
  --check           build, compare with the bzImage beside this script, write nothing there
  --jobs N          parallel compilations (default: $jobs)
  --keep            keep the temporary folder
  --install-deps    first install with apt-get: ${DEPENDENCIES[*]}
  --help            this text
Needs Debian 12 and these packages: ${DEPENDENCIES[*]}
Fetches linux-source-$SERIES=$SOURCE_VERSION with apt-get download, which checks it against the archive's signature.
TEXT
}

die() { echo "build.sh: $*" >&2; exit 1; }

while (($#)); do
  case $1 in
    --work) work=${2:?--work needs a folder}; keep=true; shift 2 ;;
    --output) output=${2:?--output needs a folder}; shift 2 ;;
    --source) source_archive=$(realpath "${2:?--source needs a file}"); shift 2 ;;
    --jobs) jobs=${2:?--jobs needs a number}; shift 2 ;;
    --check) check=true; shift ;;
    --keep) keep=true; shift ;;
    --install-deps) install_dependencies=true; shift ;;
    --help|-h) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
  esac
done

if $install_dependencies; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${DEPENDENCIES[@]}"
fi
missing=()
for package in "${DEPENDENCIES[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
((${#missing[@]} == 0)) || die "missing packages: ${missing[*]} (apt-get install them, or pass --install-deps)"

if [[ -z $work ]]; then work=$(mktemp -d -t sandbox86-kernel.XXXXXX); fi
mkdir -p "$work" "$output"
work=$(realpath "$work")
output=$(realpath "$output")
if ! $keep; then trap 'rm -rf "$work"' EXIT; fi
cd "$work"

if [[ -z $source_archive ]]; then
  source_archive=$work/usr/src/linux-source-$SERIES.tar.xz
  if [[ ! -e $source_archive ]]; then
    apt-get download "linux-source-$SERIES=$SOURCE_VERSION"
    dpkg-deb --fsys-tarfile linux-source-"$SERIES"_*.deb | tar x "./usr/src/linux-source-$SERIES.tar.xz"
  fi
fi
tree=$work/linux-source-$SERIES
rm -rf "$tree"
tar xJf "$source_archive"
cd "$tree"

# Nothing of the builder, the day or the folder may reach the image.
unset KCFLAGS KCPPFLAGS CFLAGS LDFLAGS KCONFIG_CONFIG
export LC_ALL=C TZ=UTC
export SOURCE_DATE_EPOCH=1767225600
export KBUILD_BUILD_TIMESTAMP='2026-01-01 00:00:00 UTC'
export KBUILD_BUILD_USER=sandbox86 KBUILD_BUILD_HOST=sandbox86 KBUILD_BUILD_VERSION=1
make_kernel=(make ARCH=i386 "CC=$CC_PACKAGE")

"${make_kernel[@]}" tinyconfig >configure.log
scripts/kconfig/merge_config.sh -m .config "$here/kernel.fragment" >>configure.log
"${make_kernel[@]}" olddefconfig >>configure.log

# An option of the fragment that the configuration did not take is an error, not a surprise in the guest.
lost=0
while IFS='=' read -r option wanted; do
  got=$(grep -E "^$option=" .config | cut -d= -f2- || true)
  [[ $wanted == n ]] && wanted=
  [[ $got == "$wanted" ]] || { echo "build.sh: $option: fragment says '${wanted:-n}', config has '${got:-n}'" >&2; lost=1; }
done < <(grep -E '^CONFIG_' "$here/kernel.fragment")
((lost == 0)) || die "kernel.fragment and linux-source-$SERIES disagree"

"${make_kernel[@]}" -j"$jobs" bzImage >build.log

image=arch/x86/boot/bzImage
size=$(stat -c %s "$image")
((size <= 4000000)) || die "bzImage has $size bytes, more than 4 MB"
sha256sum "$image" .config
if $check; then
  cmp "$image" "$here/bzImage" || die "this build differs from the bzImage in the repository"
  cmp .config "$here/config" || die "this config differs from the one in the repository"
  echo "identical to the repository's bzImage"
else
  install -m 0644 "$image" "$output/bzImage"
  install -m 0644 .config "$output/config"
fi

#!/bin/sh
# Starts Node.js from a snapshot of its own start, which Debian's build is without: half the instructions.
# V8 takes a snapshot only of the same build with the same options, so its name says which files it is of, and whatever
# could set options goes without: NODE_OPTIONS, and options on the command line but for -e, -p and -c.
plain() { exec /usr/bin/node "$@"; }
[ -z "$NODE_OPTIONS" ] || plain "$@"
case $1 in
-e | -p | -c)
	case $2 in -*) plain "$@" ;; esac
	case $3 in -*) plain "$@" ;; esac
	;;
-*) plain "$@" ;;
esac
snapshot=/usr/local/lib/node-start/$(stat -Lc %s-%Y /usr/lib/*/libnode.so.*)
[ -f "$snapshot" ] || plain "$@"
exec /usr/bin/node --snapshot-blob "$snapshot" "$@"

#!/bin/sh
# nix.sh SUITE: makes a root directory of a Debian suite with its Nix, once, in a cache outside the
# checkout, and prints where it is. Needs root.
#
# Its /usr is mounted over the machine's where that Nix is wanted, so it has what else is called
# from there: git, and a static busybox. A suite's root is renewed by removing it.
set -eu
suite=${1:?usage: nix.sh SUITE}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pontoon/nix
root=$cache/$suite
if [ ! -d "$root" ]; then
    if ! command -v debootstrap > /dev/null; then
        echo "missing: debootstrap; scripts/install.sh run installs it" >&2
        exit 1
    fi
    mirror=$("$(dirname "$0")/mirror.sh")
    mkdir -p "$cache"
    exec 9>"$cache/lock-$suite"
    flock 9
    if [ ! -d "$root" ]; then
        # A root that is there is whole: it gets its name last.
        rm -rf "$cache/.$suite"
        # In a mount namespace, what debootstrap mounts goes with it. Without libdbi-perl nix-bin
        # is left unconfigured.
        unshare --mount debootstrap --variant=minbase \
            --include=nix-bin,libdbi-perl,ca-certificates,git,busybox-static \
            "$suite" "$cache/.$suite" "$mirror" > "$cache/log-$suite" 2>&1 || {
            tail -n 20 "$cache/log-$suite" >&2
            exit 1
        }
        rm -rf "$cache/.$suite/var/cache/apt/archives"
        mv "$cache/.$suite" "$root"
    fi
fi
echo "$root"

#!/usr/bin/env bash
# install.sh build|lint|run: makes sure that what a make target uses is there.
#   build: what compiles a static executable.
#   lint:  that, and what checks shell scripts.
#   run:   what compiles, and what the demo, the tests and the benchmark use.
# As root it installs what is missing from Debian packages. Otherwise it prints the line that an
# administrator runs, and fails. When nothing is missing it does nothing and says nothing.
set -euo pipefail

what=${1:?usage: install.sh build|lint|run}
missing=()

# need PROBE PACKAGE…: PROBE is a command, or a file if it starts with a slash.
need() {
    local probe=$1
    shift
    case $probe in
        /*) [ -e "$probe" ] || missing+=("$@") ;;
        *) command -v "$probe" > /dev/null || missing+=("$@") ;;
    esac
}

need cc gcc
# The static C library: the executable links it.
need /usr/lib/x86_64-linux-gnu/libc.a libc6-dev
[ "$what" != lint ] || need shellcheck shellcheck
if [ "$what" = run ]; then
    # With its build users (group nixbld): as root, no builder runs as uid 0.
    need nix nix-bin nix-setup-systemd
    need git git
    need newuidmap uidmap
    need runuser util-linux
    need useradd passwd
    need sqlite3 sqlite3
    need tcc tcc
    # What a BuildKit daemon runs containers with; the daemon itself is built by Go.
    need runc runc
    # Newer versions of Nix, each in a root of its own.
    need debootstrap debootstrap
    # Tests read the logs that Nix keeps.
    need bzcat bzip2
    need /usr/lib/x86_64-linux-musl/libc.a musl-dev
    # The shell inside sandboxes: it must not need a loader.
    if ! busybox true 2> /dev/null || ldd "$(command -v busybox)" > /dev/null 2>&1; then
        missing+=(busybox-static)
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get install --yes --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        echo "missing: ${missing[*]}; an administrator installs them with" >&2
        echo "    apt-get update && $install" >&2
        exit 1
    elif ! command -v apt-get > /dev/null; then
        echo "missing: the Debian packages ${missing[*]}, or what is their like here" >&2
        exit 1
    fi
    echo "installing: ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    $install -qq
fi

if ! command -v cargo > /dev/null; then
    echo "missing: cargo; rustup (https://rustup.rs) installs it, and reads rust-toolchain.toml" >&2
    exit 1
fi

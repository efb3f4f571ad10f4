#!/bin/sh
# get.sh WHAT...: makes each of these once, in a cache outside the checkout, and prints the
# directory that holds it, a line each.
#   buildkit  buildkitd and buildctl, built from their Go module
#   docker29  dockerd 29, likewise; the module does not say which, so it is named after the 29.7.2
#             that it follows
#   debian    Debian's dockerd, containerd, docker-proxy and docker-registry, unpacked from their
#             packages: nothing is installed, and a docker of the machine is neither used nor touched
# `go install` refuses both modules (their go.mod excludes or replaces versions), so a module of
# ours requires each.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/local/go/bin
caches=${XDG_CACHE_HOME:-$HOME/.cache}/pontoon/daemons

# whole DIR: whether it is there. It gets its mark last.
whole() { [ -e "$1/whole" ]; }

# go_built MODULE-DIR MODULE VARIABLE PREFIX COMMAND...: with the version in VARIABLE.
go_built() {
    from=$1 module=$2 variable=$3 prefix=$4
    shift 4
    version=$(sed -n "s|^require $module v||p" "$from/go.mod")
    cache=$caches/$from-$version
    if ! whole "$cache"; then
        if ! command -v go > /dev/null; then
            echo "missing: Go 1.21 or newer (https://go.dev/dl), which fetches the version it needs" >&2
            exit 1
        fi
        mkdir -p "$cache"
        exec 9> "$cache/lock"
        flock 9
        for command in "$@"; do
            whole "$cache" && break
            echo "building: $command $version" >&2
            (cd "$from" && CGO_ENABLED=0 go build -mod=readonly -trimpath \
                -ldflags "-X $variable=$prefix$version" \
                -o "$cache/.$command" "$module/cmd/$command") >&2
            mv "$cache/.$command" "$cache/$command"
        done
        touch "$cache/whole"
    fi
    echo "$cache"
}

# unpacked: what a Debian docker.io needs, but for runc and libraries that every Debian has.
unpacked() {
    # shellcheck source=/dev/null
    cache=$caches/debian-$(. /etc/os-release && echo "$VERSION_ID")
    packages="docker.io containerd docker-registry libdevmapper1.02.1"
    if ! whole "$cache"; then
        mkdir -p "$cache"
        exec 9> "$cache/lock"
        flock 9
        if ! whole "$cache"; then
            echo "unpacking: $packages" >&2
            new=$cache/.new
            rm -rf "$new"
            mkdir "$new"
            # The lists may be missing, or older than what the mirror still has.
            # shellcheck disable=SC2086
            (cd "$new" && { apt-get download -qq $packages ||
                { apt-get update -qq && apt-get download -qq $packages; }; }) >&2
            for package in "$new"/*.deb; do
                dpkg -x "$package" "$new"
                rm "$package"
            done
            rm -rf "${cache:?}/usr" "${cache:?}/lib"
            mv "$new/usr" "$new/lib" "$cache"
            rm -rf "$new"
            touch "$cache/whole"
        fi
    fi
    echo "$cache"
}

for what in "${@:?usage: get.sh buildkit|docker29|debian ...}"; do
    case $what in
        buildkit)
            go_built buildkit github.com/moby/buildkit \
                github.com/moby/buildkit/version.Version v buildctl buildkitd
            ;;
        docker29)
            go_built docker29 github.com/moby/moby/v2 \
                github.com/moby/moby/v2/dockerversion.Version 29.7.2- dockerd
            ;;
        debian) unpacked ;;
        *)
            echo "unknown: $what" >&2
            exit 2
            ;;
    esac
done

#!/bin/sh
# Builds buildkitd and buildctl from their Go module, once, into a cache outside the checkout, and
# prints the directory that holds them. `go install` refuses the module (its go.mod excludes
# versions), so a module of ours requires it.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/local/go/bin
version=$(sed -n 's|^\s*github.com/moby/buildkit \(v[^ ]*\).*|\1|p; s|^require github.com/moby/buildkit ||p' go.mod | head -n 1)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pontoon/daemons/buildkit-$version
if [ ! -x "$cache/buildkitd" ] || [ ! -x "$cache/buildctl" ]; then
    if ! command -v go > /dev/null; then
        echo "missing: Go 1.21 or newer (https://go.dev/dl), which fetches the version it needs" >&2
        exit 1
    fi
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    for command in buildctl buildkitd; do
        [ -x "$cache/$command" ] && continue
        # A file that is there is whole: it gets its name last.
        CGO_ENABLED=0 go build -mod=readonly -trimpath \
            -ldflags "-X github.com/moby/buildkit/version.Version=$version" \
            -o "$cache/.$command" "github.com/moby/buildkit/cmd/$command" >&2
        mv "$cache/.$command" "$cache/$command"
    done
fi
echo "$cache"

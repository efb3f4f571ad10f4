#!/usr/bin/env bash
# lint.sh: format, clippy, docs, and the licences, bans and sources of the dependencies.
# cargo-deny is built once into the user's cache. Its advisory database is not asked for: it is
# fetched from the network at every run, and a gate must not depend on that.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; "$@"; }

step cargo xfmt --check
step cargo clippy --locked --all-targets -- -D warnings
RUSTDOCFLAGS='-D warnings' step cargo doc --locked --no-deps --document-private-items

tools=${XDG_CACHE_HOME:-$HOME/.cache}/pontoon/tools
deny=$(command -v cargo-deny || echo "$tools/bin/cargo-deny")
if [ ! -x "$deny" ]; then
    # Outside the checkout, whose target and toolchain are not this tool's.
    (cd / && step cargo install --quiet --locked cargo-deny --root "$tools")
fi
step "$deny" --locked check bans licenses sources
step shellcheck .ci/run scripts/*.sh example/*.sh integration/*/*.sh

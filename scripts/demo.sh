#!/usr/bin/env bash
# demo.sh PONTOON [DIR]: shows the whole idea with the executable PONTOON, below DIR (default:
# demo/ in the checkout), and checks what it shows. As root it then does the same as an ordinary
# user, whom it makes, with a copy of the executable.
set -euo pipefail

kit=$(cd "$(dirname "$0")/.." && pwd)
pontoon=$(realpath "${1:?usage: demo.sh PONTOON [DIR]}")
dir=$(realpath -m "${2:-$kit/demo}")
user="pontoon-demo"

# Colour only for a terminal that wants it.
bold='' dim='' plain=''
if [ -t 1 ] && [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\033[1m' dim=$'\033[2m' plain=$'\033[0m'
fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$plain" >&2; "$@"; }
fail() { printf '\ndemo: %s\n' "$*" >&2; exit 1; }

fresh() {
    [ ! -e "$1" ] || { chmod -R u+w "$1" && rm -rf "$1"; }
    mkdir -p "$1"
}

# Starts the receiver on some free port: sets `url` and `receiver`.
start_receiver() {
    local port
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        port=$((20000 + RANDOM % 20000))
        "$kit/scripts/receiver.sh" "$dir/receiver" "$port" "$DEMO_TOKEN" 2> /dev/null &
        receiver=$!
        url=http://127.0.0.1:$port/cgi-bin/publish
        for _ in $(seq 50); do
            kill -0 $receiver 2> /dev/null || continue 2
            ! (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || return 0
            sleep 0.1
        done
        kill $receiver
    done
    fail "the receiver does not start"
}

published() { find "$dir/receiver/received" -mindepth 1 -maxdepth 1 | wc -l; }

real_nix() { nix --extra-experimental-features nix-command "$@"; }

say "as $(id -un): an example flake, with its tools from installed packages, in $dir"
fresh "$dir"
cp -R "$kit/example" "$dir/flake"
"$kit/scripts/seed.sh" "$dir/flake/seed"
DEMO_TOKEN=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
export DEMO_TOKEN
start_receiver
trap 'kill $receiver' EXIT
flake=path:$dir/flake
store=$dir/store

say "what would happen"
show "$pontoon" plan "$flake#checks.x86_64-linux.unit" --store "$store"
show "$pontoon" run "$flake#release" --dry-run --store "$store" --fact "receiver=$url"
[ "$(published)" = 0 ] || fail "a plan published something"

say "the first run builds, then publishes"
show "$pontoon" run "$flake#release" --store "$store" --fact "receiver=$url"
[ "$(published)" = 1 ] || fail "the receiver got $(published) publications, not 1"
built=$(real_nix path-info --all --json --store "$store" | grep -o '"ultimate": *true' | wc -l)
[ "$built" -ge 4 ] || fail "real Nix sees $built built outputs, not 4 or more"

say "the second run builds nothing and publishes again"
show "$pontoon" run "$flake#release" --store "$store" --fact "receiver=$url" --json > "$dir/events.jsonl"
if grep '"event":"node-started"' "$dir/events.jsonl" | grep '"kind":"build"'; then
    fail "the second run built something"
fi
grep '"event":"run-finished"' "$dir/events.jsonl" | grep '"built":0' || fail "no summary says that nothing was built"
[ "$(published)" = 2 ] || fail "the receiver got $(published) publications, not 2"
cat "$dir/receiver/received/2/index.html"

say "real Nix agrees with the store, and the program runs"
show nix-store --verify --check-contents --store "$store"
hello=$("$pontoon" build "$flake#hello" --store "$store" --no-link --print-out-paths)
show "$store$hello/bin/hello" "$(id -un)"
# Silent about what an ordinary user may not read of his builders' directories: root reads all.
! grep -rqsF "$DEMO_TOKEN" "$store" "$dir/events.jsonl" || fail "the token is where it must not be"

say "as $(id -un): $built outputs built once, 2 publications"
if [ "${PONTOON_DEMO_PART:-}" = user ]; then
    exit
elif [ "$(id -u)" -ne 0 ]; then
    echo "(The same as another user is left out: making one needs root.)"
    exit
fi

id -u $user > /dev/null 2>&1 || useradd --create-home --user-group $user
home=$(getent passwd $user | cut -d: -f6)
fresh "$home/demo"
fresh "$home/kit"
cp -R "$kit/example" "$kit/scripts" "$home/kit/"
cp "$pontoon" "$home/kit/pontoon"
chown -R $user: "$home/kit" "$home/demo"
cd "$home"
runuser -u $user -- env -i HOME="$home" PATH="$PATH" TERM="${TERM:-dumb}" LC_ALL=C.UTF-8 PONTOON_DEMO_PART=user \
    "$home/kit/scripts/demo.sh" "$home/kit/pontoon" "$home/demo"

#!/bin/sh
# Writes tests/golden with BuildKit's own Go package; with --check, compares instead.
# Go keeps its modules where `go env GOMODCACHE` says, outside the checkout.
set -eu
cd "$(dirname "$0")"
golden=../../tests/golden
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
go build -mod=readonly -o "$made/golden" .
mkdir "$made/out"
"$made/golden" "$made/out"
# Without this git takes some of them for text.
echo "*.pb binary" >"$made/out/.gitattributes"
for file in "$made"/out/*.pb; do "$made/golden" -remarshal "$file"; done
case "${1:-}" in
--check) diff -r "$made/out" "$golden" && echo "golden vectors are as BuildKit writes them" ;;
'') rm -rf "$golden" && cp -r "$made/out" "$golden" ;;
*) echo "usage: regenerate.sh [--check]" >&2; exit 2 ;;
esac

#!/usr/bin/env bash
# seed.sh DIR: fills DIR with what the example builds with, copied from installed Debian packages:
# a static shell (busybox-static) and a C toolchain (tcc with its glibc loader, musl as the libc
# that programs are linked with statically). About 6 MB; nothing of it is committed.
set -euo pipefail

seed=${1:?usage: seed.sh DIR}
libc=/usr/lib/x86_64-linux-musl
tcc=/usr/lib/x86_64-linux-gnu/tcc

rm -rf "$seed"
mkdir -p "$seed"/shell/bin "$seed"/compiler/{lib/tcc,libc/lib,libexec}
cp "$(command -v busybox)" "$seed/shell/bin/busybox"

cp "$(command -v tcc)" "$seed/compiler/libexec/tcc"
# The loader and every library tcc names, under the names it names them by.
ldd "$(command -v tcc)" | grep -o '/[^ ]*' | while read -r library; do
    cp -L "$library" "$seed/compiler/lib/$(basename "$library")"
done
cp -R "$tcc/include" "$tcc/libtcc1.a" "$seed/compiler/lib/tcc/"
cp -R /usr/include/x86_64-linux-musl "$seed/compiler/libc/include"
cp "$libc"/{crt1.o,crti.o,crtn.o,libc.a} "$seed/compiler/libc/lib/"

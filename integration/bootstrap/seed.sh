#!/bin/sh
# Fetches what the bootstrap starts from, once, into a cache outside the checkout, and prints the
# directory that holds it:
#
#   debs/NAME.deb               a C compiler, make, a shell and the rest of a build's tools, with
#                               all that they depend on: Debian's own packages
#   sources/NAME.orig.tar.*     Debian's source packages of what is built
#   sources/NAME.debian.tar.*
#   busybox/bin/busybox         what unpacks the first of them: a static executable
#   seed.json                   each file's SHA-256, written when it was fetched
#
# Mirrors, suites and keys are those apt is configured with; apt itself checks what it fetches. Its
# own lists and cache are not touched: all of apt's state is below the new directory.
set -eu
tools='gcc libc6-dev make bash coreutils sed grep gawk tar gzip xz-utils bzip2 patch diffutils
    findutils tcl patchelf busybox-static'
sources='hello zlib lua5.4 sqlite3'

cache=${XDG_CACHE_HOME:-$HOME/.cache}/pontoon/bootstrap
seed=$cache/seed
if [ ! -d "$seed" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
fi
if [ ! -d "$seed" ]; then
    new=$cache/.seed
    apt=$cache/.apt
    rm -rf "$new" "$apt"
    mkdir -p "$new/debs" "$new/sources" "$new/busybox/bin" "$apt/lists/partial" \
        "$apt/cache/archives/partial"
    "$(dirname "$0")/../debian/mirror.sh" > "$apt/mirror"
    # apt may be configured for packages alone; the archive that has them has their sources.
    for kind in 'deb Origin' 'deb-src Label'; do
        apt-get indextargets --format "${kind% *} \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
            'Created-By: Packages' "${kind#* }: Debian" | sort -u
    done > "$apt/sources.list"
    # Nothing is installed, so that apt names every dependency.
    : > "$apt/status"
    cat > "$apt/apt.conf" << CONF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Keep-Downloaded-Packages "true";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
DPkg::Post-Invoke "";
APT::Update::Post-Invoke "";
CONF
    export APT_CONFIG="$apt/apt.conf"
    apt-get update -qq >&2
    # shellcheck disable=SC2086 # a list
    apt-get install -qq --yes --download-only $tools >&2
    for deb in "$apt"/cache/archives/*.deb; do
        name=$(basename "$deb")
        mv "$deb" "$new/debs/${name%%_*}.deb"
    done
    for source in $sources; do
        (cd "$apt" && apt-get source -qq --download-only --only-source "$source" >&2)
        for kind in orig debian; do
            for file in "$apt/${source}_"*".$kind.tar."*; do
                # Beside an archive may lie its signature.
                case $file in
                    *.asc) ;;
                    *) mv "$file" "$new/sources/$source.$kind.tar.${file##*.}" ;;
                esac
            done
        done
    done
    dpkg-deb --fsys-tarfile "$new/debs/busybox-static.deb" |
        tar --extract --file - --to-stdout --wildcards '*bin/busybox' > "$new/busybox/bin/busybox"
    chmod 755 "$new/busybox/bin/busybox"
    (
        cd "$new"
        echo '{'
        separator=''
        for file in debs/* sources/*; do
            printf '%s"%s": "%s"' "$separator" "$file" "$(sha256sum "$file" | cut -d ' ' -f 1)"
            separator=',
'
        done
        printf '\n}\n'
    ) > "$new/seed.json"
    rm -rf "$apt"
    # A seed that is there is whole: it gets its name last.
    mv "$new" "$seed"
fi
echo "$seed"

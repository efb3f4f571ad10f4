#!/bin/sh
# Prints the Debian mirror that apt is configured with.
set -eu
ask() {
    # shellcheck disable=SC2016 # apt fills it in
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1
}
mirror=$(ask)
if [ -z "$mirror" ]; then
    # What a mirror is is known once its release file is there.
    apt-get update -qq >&2
    mirror=$(ask)
fi
if [ -z "$mirror" ]; then
    echo "apt is configured with no Debian mirror: see sources.list(5)" >&2
    exit 1
fi
echo "$mirror"

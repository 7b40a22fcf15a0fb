# Sourced by the scripts beside it: where things lie, and which docker command builds.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/bloomery/docker"
export root cache

say() { printf '[docker] %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# The first 16 digits of a hash of what is given: file names, then "--", then texts.
key() {
    local text=""
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        text+="$(sha256sum <"$1")"
        shift
    done
    printf '%s' "$text" "${@:2}" | sha256sum | cut -c 1-16
}

# A client with BuildKit: docker 23 and later need the buildx plugin for it, older ones (Debian's) have it inside.
find_client() {
    local candidate major
    for candidate in "$(command -v docker)" /usr/bin/docker; do
        major="$("$candidate" --version 2>/dev/null | sed -n 's/^Docker version \([0-9]*\)\..*/\1/p')"
        if [ -n "$major" ] && { [ "$major" -lt 23 ] || "$candidate" buildx version >/dev/null 2>&1; }; then
            echo "$candidate"
            return
        fi
    done
    die "no docker command that can build with BuildKit: docker/setup installs Debian's; for a newer docker, install buildx"
}

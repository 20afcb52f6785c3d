#!/usr/bin/env bash
# Installs what a build needs on a Debian-like machine, and says what. Sourced by run.sh and test.sh, or run by itself.
# Rust itself: rustup's installer, if there is no cargo.
set -euo pipefail

# Each line: a command or a file that shows the package to be there, and the package's name.
needs() {
    cat <<'LIST'
gcc gcc
make make
pkg-config pkg-config
/usr/include/libelf.h libelf-dev
/usr/include/zlib.h zlib1g-dev
curl curl
ip iproute2
LIST
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "this needs root and there is no sudo: $*" >&2
        return 1
    fi
}

# install PACKAGE...: through apt-get, refreshing its lists only if they do not know a package.
install_packages() {
    if ! command -v apt-get >/dev/null; then
        echo "please install these packages first (no apt-get here): $*" >&2
        exit 3
    fi
    echo "installing: $*"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get install -y -q "$@" >/dev/null 2>&1 ||
        { as_root apt-get update -q >/dev/null && as_root apt-get install -y -q "$@" >/dev/null; }
}

install_missing() {
    local missing=() sign package
    while read -r sign package; do
        case $sign in
            /*) [ -e "$sign" ] || missing+=("$package") ;;
            *) command -v "$sign" >/dev/null || missing+=("$package") ;;
        esac
    done < <(needs; for extra in "$@"; do echo "$extra"; done)
    [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    if ! command -v cargo >/dev/null; then
        echo "installing: Rust, by rustup"
        curl -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal -c rustfmt -c clippy
        PATH=$HOME/.cargo/bin:$PATH
    fi
    export PATH
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    install_missing "$@"
fi

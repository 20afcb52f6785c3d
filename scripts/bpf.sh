#!/bin/sh
# Rebuilds the objects in bpf/; only needed after a change of a C file.
# Installs clang if there is none. Usage: scripts/bpf.sh [FOLDER]
set -eu
cd "$(dirname "$0")/.."
folder=${1:-bpf}

# Debian names them with and without a version.
find_tool() {
    for name in "$1" "$1-14" "$1-15" "$1-16" "$1-17" "$1-18" "$1-19"; do
        if command -v "$name" >/dev/null; then
            echo "$name"
            return
        fi
    done
}
if [ -z "$(find_tool clang)" ] || [ -z "$(find_tool llvm-strip)" ]; then
    echo "bpf.sh: installing clang and llvm (only the XDP program needs them)" >&2
    apt-get install -y -qq clang llvm linux-libc-dev >&2
fi
clang=$(find_tool clang)
strip=$(find_tool llvm-strip)

# Debian keeps asm/types.h in a directory that clang's BPF target does not search.
include=/usr/include/$(uname -m)-linux-gnu

# build SOURCE OUTPUT [FLAG...]. The source's hash goes into the object, so that a test can tell a
# stale object without a compiler.
build() {
    source=$1
    output=$2
    shift 2
    sum=$(sha256sum "$source" | cut -d' ' -f1)
    "$clang" -O2 -g -mcpu=v3 -target bpf -Wall -Wextra -Werror -std=gnu11 \
        -idirafter "$include" -DSOURCE_SHA256="\"$sum\"" "$@" \
        -fdebug-compilation-dir=. -c "$source" -o "$output"
    # Debug sections, line tables and labels go; the BTF that describes the maps stays.
    "$strip" -g -x -R .BTF.ext -R .rel.BTF.ext "$output"
    echo "bpf.sh: $output: $(wc -c <"$output") bytes, $("$clang" --version | head -n1)"
}
build bpf/shakedown.bpf.c "$folder/shakedown.bpf.o"
build bpf/shakedown.bpf.c "$folder/shakedown-vlan.bpf.o" -DTAG_BESIDE
build bpf/tagger.bpf.c "$folder/tagger.bpf.o"

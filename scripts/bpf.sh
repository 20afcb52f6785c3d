#!/bin/sh
# Rebuilds bpf/shakedown.bpf.o from bpf/shakedown.bpf.c; only needed after a change of the C file.
# Installs clang if there is none. Usage: scripts/bpf.sh [OUTPUT]
set -eu
cd "$(dirname "$0")/.."
output=${1:-bpf/shakedown.bpf.o}

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

# The source's hash goes into the object, so that a test can tell a stale object without a compiler.
sum=$(sha256sum bpf/shakedown.bpf.c | cut -d' ' -f1)
# Debian keeps asm/types.h in a directory that clang's BPF target does not search.
include=/usr/include/$(uname -m)-linux-gnu
"$clang" -O2 -g -mcpu=v3 -target bpf -Wall -Wextra -Werror -std=gnu11 \
    -idirafter "$include" -DSOURCE_SHA256="\"$sum\"" \
    -fdebug-compilation-dir=. -c bpf/shakedown.bpf.c -o "$output"
# Debug sections, line tables and labels go; the BTF that describes the maps stays.
"$strip" -g -x -R .BTF.ext -R .rel.BTF.ext "$output"
echo "bpf.sh: $output: $(wc -c <"$output") bytes, $("$clang" --version | head -n1)"

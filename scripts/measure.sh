#!/usr/bin/env bash
# What the scripts that measure share. Sourced by them, from the root of the project.
set -euo pipefail

shakedown=${SHAKEDOWN:-target/release/shakedown}
cores=$(nproc)

# What a figure depends on, exported as SD_COMMIT, SD_DIRTY, SD_KERNEL, SD_CPU, SD_CORES and SD_DATE.
machine() {
    SD_COMMIT=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
    SD_DIRTY=no
    [ -z "$(git status --porcelain 2>/dev/null)" ] || SD_DIRTY=yes
    SD_KERNEL=$(uname -r)
    SD_CPU=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
    SD_CORES=$cores
    SD_DATE=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    export SD_COMMIT SD_DIRTY SD_KERNEL SD_CPU=${SD_CPU:-unknown} SD_CORES SD_DATE
}

# The same for people, in a line.
machine_line() {
    local changed=""
    [ "$SD_DIRTY" = no ] || changed=" and changes not committed"
    echo "commit $SD_COMMIT$changed, Linux $SD_KERNEL, $SD_CPU, $SD_CORES cores, $SD_DATE"
}

# report FILE ARGUMENT...: runs shakedown and writes its JSON report to FILE. Fails as it does; by 124 when it hangs.
report() {
    local file=$1
    shift
    timeout 120 "$shakedown" "$@" -q --json - >"$file"
}

# rate NAME ARGUMENT...: prints NAME and the connections a second of a bench that came out well: all of them were opened
# and closed at both ends, or it would have failed.
rate() {
    local name=$1 file status=0
    shift
    file=$(mktemp)
    report "$file" "$@" || status=$?
    if [ "$status" -eq 0 ]; then
        python3 - "$name" "$file" <<'PYTHON'
import json, sys
name, path = sys.argv[1:]
print(name, json.load(open(path))["client"]["handshakes_per_second"])
PYTHON
    else
        echo "$name: failed with $status: $shakedown $*" >&2
    fi
    rm -f "$file"
    return "$status"
}

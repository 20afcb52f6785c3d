#!/usr/bin/env bash
# Builds target/pgo/shakedown, laid out by what was seen to run (profile-guided optimisation), and measures it beside the
# ordinary release build.
#   scripts/pgo.sh [--rounds N] [--seconds N]      5 rounds of 2 s unless said otherwise; --rounds 0 only builds
#
# It learns from benches in memory and, as root, over veth pairs: handshakes, HTTP, requests and responses, streams.
# Needs rustup, for the tools that fit its compiler. Other scripts measure with it if SHAKEDOWN=target/pgo/shakedown.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
. scripts/measure.sh

rounds=5 seconds=2
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --seconds) [[ ${2-} =~ ^[0-9]+$ ]] || { echo "usage: $0 [--rounds N] [--seconds N]" >&2; exit 2; } ;;
        *) echo "usage: $0 [--rounds N] [--seconds N]" >&2; exit 2 ;;
    esac
    declare "${1#--}=$2"
    shift 2
done
install_missing "python3 python3"
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
if [ ! -x "$profdata" ]; then
    command -v rustup >/dev/null || { echo "$0: needs rustup, for llvm-profdata of the compiler's version" >&2; exit 3; }
    rustup --quiet component add llvm-tools
fi

folder=$PWD/target/pgo
# build FLAG: with a flag of the compiler's, for the host as a target, or build scripts would be built with it too.
build() {
    RUSTFLAGS=$1 cargo build --release --quiet --target "$host" --target-dir "$folder/build"
}

rm -rf "$folder/raw"
build "-Cprofile-generate=$folder/raw"
learner=$folder/build/$host/release/shakedown
links=(memory)
if [ "$(id -u)" -eq 0 ]; then
    links+=(veth)
else
    echo "not root: it learns nothing of AF_XDP"
fi
for link in "${links[@]}"; do
    for workload in handshake http rr stream; do
        "$learner" bench --link "$link" --workload "$workload" -d 2s -q --no-sandbox >/dev/null
    done
done
"$profdata" merge -o "$folder/profile" "$folder"/raw/*.profraw
build "-Cprofile-use=$folder/profile"
cp "$learner" "$folder/shakedown"
echo "built target/pgo/shakedown"
[ "$rounds" -gt 0 ] || exit 0

cargo build --release --quiet
machine
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for link in "${links[@]}"; do
        for workload in handshake http; do
            for build in release pgo; do
                [ $build = release ] && shakedown=target/release/shakedown || shakedown=target/pgo/shakedown
                rate "$link/$workload/$build" bench --link "$link" --workload "$workload" -d "${seconds}s" >>"$scratch/rates"
            done
        done
    done
done
machine_line
python3 - "$scratch/rates" <<'PYTHON'
import collections, statistics, sys
rates = collections.defaultdict(list)
for line in open(sys.argv[1]):
    name, rate = line.split()
    rates[tuple(name.split("/"))].append(float(rate))
print("link    workload      release          pgo   ratio [min..max of a round]")
for link, workload in sorted({name[:2] for name in rates}):
    plain, guided = rates[link, workload, "release"], rates[link, workload, "pgo"]
    ratios = sorted(b / a for a, b in zip(plain, guided))
    print(f"{link:7} {workload:10} {statistics.median(plain):>10.0f} {statistics.median(guided):>12.0f}"
          f"   {statistics.median(ratios):.2f} [{ratios[0]:.2f}..{ratios[-1]:.2f}]")
PYTHON

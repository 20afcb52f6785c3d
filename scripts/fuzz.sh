#!/usr/bin/env bash
# Coverage-guided runs of every target of tests/fuzz/targets, one at a time, SECONDS (60) each, or of those that are named:
#   scripts/fuzz.sh 600 wire engine
# Prints executions and coverage; keeps what it finds in tests/fuzz/regressions/TARGET, which the tests replay.
# The corpus grows in target/fuzz/corpus and is used again. Exits with 1 if anything was found.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
install_missing "g++ g++"

seconds=${1:-60}
shift || true
known=$(sed -n 's/^mod \(.*\);/\1/p' tests/fuzz/targets/mod.rs)
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz asks of LLVM, but for the address sanitizer, which needs a nightly compiler.
sancov="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
RUSTFLAGS=$(echo $sancov) cargo build --quiet --release --manifest-path tests/fuzz/Cargo.toml \
    --target "$host" --target-dir target/fuzz
binary=target/fuzz/$host/release/shakedown-fuzz

# seed TARGET FOLDER: what a target may begin with.
seed() {
    case $1 in
        config) cp configs/*.toml "$2/" ;;
        script) cp tests/scripts/*.pkt "$2/" ;;
    esac
}

found=0
for target in ${@:-$known}; do
    corpus=target/fuzz/corpus/$target kept=tests/fuzz/regressions/$target log=target/fuzz/$target.log
    mkdir -p "$corpus" "$kept"
    seed "$target" "$corpus"
    status=0
    SHAKEDOWN_FUZZ_TARGET=$target nice "$binary" "$corpus" "$kept" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=2048 -max_len=4096 -artifact_prefix="$kept/" -print_final_stats=1 >"$log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1)
    echo "$target: ${executions:-0} executions, ${coverage:-no coverage} (edges, features)"
    if [ "$status" -ne 0 ]; then
        found=1
        echo "$target: ended with $status, see $log and $kept" >&2
    fi
    rmdir --ignore-fail-on-non-empty "$kept"
done
exit "$found"

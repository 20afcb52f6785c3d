#!/usr/bin/env bash
# Every test in one command: formatting, lints, and the whole suite. As root the suite includes the runs over veth pairs;
# without root it says which it skips. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
# Peers of the veth tests: curl and wrk, and a Python server; strace to see what workers ask of the kernel.
install_missing "tc iproute2" "wrk wrk" "python3 python3" "strace strace"

cargo fmt --check || { echo "run \`cargo fmt\`" >&2; exit 1; }
cargo clippy --quiet --all-targets -- -D warnings
cargo test --no-fail-fast "$@"

#!/usr/bin/env bash
# The main job in one command: builds, then opens and closes real TCP connections as fast as this machine can, between
# two network namespaces over AF_XDP; or in memory, and says why, where that is impossible. Arguments go to the bench:
#   scripts/run.sh -d 30s --workload http
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
install_missing "tc iproute2"

echo "building (the first time takes a few minutes)"
cargo build --release --quiet
shakedown=target/release/shakedown

if [ "$(id -u)" -ne 0 ]; then
    echo "not root: no network namespaces and no AF_XDP, so both ends are joined in memory; \`sudo $0\` uses a veth pair"
    exec "$shakedown" bench --link memory "$@"
fi
if ! "$shakedown" doctor; then
    echo "AF_XDP can't run here (see above): both ends are joined in memory"
    exec "$shakedown" bench --link memory "$@"
fi
status=0
"$shakedown" bench --link veth --compare kernel "$@" || status=$?
# 3: the environment does not allow it, such as namespaces forbidden in a container.
if [ "$status" -eq 3 ]; then
    echo "no veth pair here (see above): both ends are joined in memory"
    exec "$shakedown" bench --link memory "$@"
fi
exit "$status"

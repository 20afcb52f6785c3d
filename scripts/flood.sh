#!/usr/bin/env bash
# Honest clients under a flood of SYNs from addresses that nobody has: our server, and beside it one on the kernel's
# sockets with its cookies on, over the same veth.
#   scripts/flood.sh [--rounds N] [--seconds N] [--honest PER_SECOND] [SYNS_PER_SECOND|max ...]
#   3 rounds of 5 s, 500 honest connections a second, floods of 0, 100000, 200000 and max unless said otherwise
#
# Flood and clients share the first core, as if they came over one link; each server has the second. Where the kernel
# serves, its answers are made on the core of whoever sends, which slows the flood: `syns/s` is what was sent. An honest
# connection is served if its response is whole within 4 s; times are from when it was due, so a SYN that was lost
# counts a second.
# Makes the lab of scripts/veth.sh and takes it away. Needs root and two cores. Exits with 1 if our server fails an
# honest client under a flood of a given rate; what the most that can be sent does is only shown.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
. scripts/measure.sh

rounds=3 seconds=5 honest=500 rates=()
usage() {
    echo "usage: $0 [--rounds N] [--seconds N] [--honest PER_SECOND] [SYNS_PER_SECOND|max ...]" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --seconds | --honest) [[ ${2-} =~ ^[1-9][0-9]*$ ]] || usage; declare "${1#--}=$2"; shift ;;
        max) rates+=("$1") ;;
        *) [[ $1 =~ ^[0-9]+$ ]] || usage; rates+=("$1") ;;
    esac
    shift
done
[ ${#rates[@]} -gt 0 ] || rates=(0 100000 200000 max)
if [ "$(id -u)" -ne 0 ] || [ "$cores" -lt 2 ]; then
    echo "$0: needs root, for network namespaces and XDP, and two cores" >&2
    exit 3
fi
install_missing "ip iproute2" "taskset util-linux" "python3 python3"
cargo build --release --quiet
cargo build --release --quiet --example flood
machine
tool=target/release/examples/flood
scratch=$(mktemp -d)
server=
scripts/veth.sh up >/dev/null
trap 'kill $server 2>/dev/null || true; scripts/veth.sh down; rm -rf "$scratch"' EXIT
mac=$(cat /sys/class/net/sd0/address)
# What claims to be from there came through the peer.
ip route add 10.200.0.0/16 via 10.111.0.2 dev sd0

# load NAME ADDRESS RATE: a line of JSON.
load() {
    timeout 120 ip netns exec sd-peer taskset -c 0 "$tool" load "$2:8080" -i sd1 --mac "$mac" --spoof 10.200.0.0 \
        --syns "$3" --honest "$honest" --seconds "$seconds" >>"$scratch/$1.$3"
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for rate in "${rates[@]}"; do
        "$shakedown" server -i sd0 --addr 10.111.0.100/24 --gateway 10.111.0.2 --listen 8080 --response-size 1000 \
            --cpus 1 --no-verify-tcp-checksum -q --json "$scratch/report" >"$scratch/said" &
        server=$!
        sleep 1
        load shakedown 10.111.0.100 "$rate"
        kill -INT "$server"
        wait "$server" || { echo "the server failed: $(cat "$scratch/said")" >&2; exit 1; }
        python3 -c 'import json, sys
counters = json.load(open(sys.argv[1]))["server"]["device"]["counters"]
print(sum(counters.get(name, 0) for name in ("rx_ring_full", "rx_dropped")))' "$scratch/report" >>"$scratch/lost.$rate"
        taskset -c 1 "$tool" serve 10.111.0.1:8080 &
        server=$!
        sleep 1
        load kernel 10.111.0.1 "$rate"
        kill "$server"
        wait "$server" 2>/dev/null || true
        server=
    done
done
echo "$honest honest connections a second for $seconds s, $rounds rounds, medians"
machine_line
python3 - "$scratch" "${rates[@]}" <<'PYTHON'
import json, statistics, sys
folder, *rates = sys.argv[1:]
median = statistics.median
print("flood     server       syns/s   served %      p50 ms    p99 ms [min..max]            max ms  frames lost")
failed = False
for rate in rates:
    for name in ("shakedown", "kernel"):
        runs = [json.loads(line) for line in open(f"{folder}/{name}.{rate}")]
        served = [100 * run["honest_served"] / run["honest_tried"] for run in runs]
        p99 = [run["p99_ms"] for run in runs]
        lost = [int(line) for line in open(f"{folder}/lost.{rate}")] if name == "shakedown" else None
        middle = {key: median(run[key] for run in runs) for key in runs[0]}
        spread = f"[{min(p99):.1f}..{max(p99):.1f}]"
        print(f"{rate:9} {name:10} {middle['syns_per_second']:>8.0f} {median(served):>10.2f} {middle['p50_ms']:>11.2f}"
              f" {median(p99):>9.1f} {spread:20} {middle['max_ms']:>7.0f} {median(lost) if lost else '':>12}")
        failed |= name == "shakedown" and rate != "max" and min(served) < 100
sys.exit(failed)
PYTHON

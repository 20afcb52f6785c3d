#!/usr/bin/env bash
# What is left of the peak when more is offered than can be done.
#   scripts/overload.sh [memory|veth] [--rounds N] [--seconds N]      memory, 3 rounds of 2 s unless said otherwise
#
# Each round measures the closed-loop peak of HTTP exchanges and then offers 0.5 to 3 times that by an open loop
# (`bench -r RATE`): connections fall due whatever has become of those before. A table of medians:
#   offered     connections a second that fell due        launched  those that got a SYN, in the time of the run
#   completed   those done at both ends, of the run's time and of its end's (the drain)
#   failed      after they were launched                  lag       the longest that a launch was late
#   p99         of the handshake, from when it fell due
# Client and server share the machine's cores: where `launched` stays at the peak, the client's turns are what overload
# takes up, and the rest of what was offered still waits to be launched when the run ends. A server overloaded by a
# client on cores of its own is another thing, which this does not measure.
# Exits with 99 if less than 80 % of the peak completes at twice the peak. veth needs root.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
. scripts/measure.sh

link=memory rounds=3 seconds=2
usage() {
    echo "usage: $0 [memory|veth] [--rounds N] [--seconds N]" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        memory | veth) link=$1 ;;
        --rounds | --seconds) [[ ${2-} =~ ^[1-9][0-9]*$ ]] || usage; declare "${1#--}=$2"; shift ;;
        *) usage ;;
    esac
    shift
done
if [ "$link" = veth ] && [ "$(id -u)" -ne 0 ]; then
    echo "$0: veth needs root, for network namespaces and XDP: sudo $0 veth" >&2
    exit 3
fi
install_missing "tc iproute2" "python3 python3"
cargo build --release --quiet
machine
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# offer NAME ARGUMENT...: one run, its report kept. Failed connections are what is measured: exit code 1 is no failure
# of ours as long as there is a report.
offer() {
    local name=$1 status=0
    shift
    report "$scratch/$name" bench --link "$link" --workload http -d "${seconds}s" "$@" 2>"$scratch/error" || status=$?
    if [ ! -s "$scratch/$name" ]; then
        echo "$name failed with $status: $(cat "$scratch/error")" >&2
        exit 1
    fi
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    offer "$round.peak"
    peak=$(python3 -c 'import json, sys
print(int(json.load(open(sys.argv[1]))["client"]["handshakes_per_second"]))' "$scratch/$round.peak")
    for times in 0.5 1 1.5 2 2.5 3; do
        offer "$round.$times" -r "$(python3 -c "print(int($peak * $times))")"
    done
done
echo "HTTP over $link, $rounds rounds of $seconds s"
machine_line
python3 - "$scratch" "$rounds" <<'PYTHON'
import json, statistics, sys
folder, rounds = sys.argv[1:]
WANTED = 0.8

def load(number, name):
    report = json.load(open(f"{folder}/{number}.{name}"))
    client = report["client"]
    ran, drain = client["duration_seconds"], client["drain_seconds"]
    return {
        "offered": client["rate_asked_per_second"] or 0,
        "launched": client["connections_opened_total"] / ran,
        "completed": client["transactions_total"] / (ran + drain),
        "failed": client["connections_failed_total"],
        "lag": client["launch_lag_max_seconds"] * 1e3,
        "p99": (client["handshake_seconds"]["p99"] or 0) * 1e3,
        "drain": drain,
        "resent": client["segments_retransmitted_total"],
        "not_launched": sum(client["connections_not_launched_by_reason"].values()),
    }

numbers = range(1, int(rounds) + 1)
peaks = [load(number, "peak") for number in numbers]
done = [peak["completed"] for peak in peaks]
print(f"peak {statistics.median(done):.0f} [{min(done):.0f}..{max(done):.0f}] exchanges/s\n")
print("times   offered  launched completed  of the peak [min..max]   failed  not launched    resent"
      "   lag ms   p99 ms  drain s")
fails = False
for times in ("0.5", "1", "1.5", "2", "2.5", "3"):
    found = [load(number, times) for number in numbers]
    parts = [one["completed"] / peak["completed"] for one, peak in zip(found, peaks)]
    part = statistics.median(parts)
    middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
    print(f"{times:>5} {middle['offered']:>9.0f} {middle['launched']:>9.0f} {middle['completed']:>9.0f}"
          f"   {part:>6.2f} [{min(parts):.2f}..{max(parts):.2f}]      {middle['failed']:>9.0f} {middle['not_launched']:>13.0f}"
          f" {middle['resent']:>9.0f} {middle['lag']:>8.1f} {middle['p99']:>8.1f} {middle['drain']:>8.2f}")
    fails |= times == "2" and part < WANTED
if fails:
    print(f"\nat twice the peak less than {WANTED:.0%} of it completes")
sys.exit(99 if fails else 0)
PYTHON

#!/usr/bin/env bash
# What connections that are only held cost those that come and go: speed on top of them, and memory.
#   scripts/scale.sh [--rounds N] [--seconds N] [HELD...]     3 rounds of 2 s; 1 1k 100k 1m 10m unless said otherwise
#
# `bench --link memory --held N` opens N connections, keeps them, and opens and closes others meanwhile. "ratio" is the
# speed to the first HELD's in the same round, the rounds interleaved; RSS is the process's largest resident set (VmHWM
# of /proc, sampled while it ran) above that of the first HELD, per connection and side.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
. scripts/measure.sh

rounds=3 seconds=2 held=()
usage() {
    echo "usage: $0 [--rounds N] [--seconds N] [HELD...]" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --seconds) [[ ${2-} =~ ^[1-9][0-9]*$ ]] || usage; declare "${1#--}=$2"; shift ;;
        [1-9]*) [[ $1 =~ ^[1-9][0-9]*[km]?$ ]] || usage; held+=("$1") ;;
        *) usage ;;
    esac
    shift
done
[ ${#held[@]} -gt 0 ] || held=(1 1k 100k 1m 10m)
install_missing "python3 python3"
cargo build --release --quiet
machine
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

plain() {
    local number=${1/k/000}
    echo "${number/m/000000}"
}

# once ROUND HELD: one run, and the largest resident set seen of it.
once() {
    local count file="$scratch/$1.$2" process status=0 seen high=0
    count=$(plain "$2")
    timeout 300 "$shakedown" bench --link memory --held "$count" --max-connections $((count + 100000)) \
        -d "${seconds}s" --drain 120s -q --json - >"$file" 2>"$scratch/error" &
    process=$!
    while kill -0 "$process" 2>/dev/null; do
        # The program is the child of timeout.
        seen=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\).*/\1/p' \
            "/proc/$(pgrep -P "$process" || echo none)/status" 2>/dev/null || true)
        high=${seen:-$high}
        sleep 0.1
    done
    wait "$process" || status=$?
    if [ "$status" -ne 0 ]; then
        echo "$2 held: failed with $status: $(cat "$scratch/error")" >&2
        rm -f "$file"
        return
    fi
    echo "$high" >"$file.rss"
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for count in "${held[@]}"; do
        once "$round" "$count"
    done
done
echo "handshake and close in memory on top of held connections, $rounds rounds of $seconds s"
machine_line
python3 - "$scratch" "$rounds" "${held[@]}" <<'PYTHON'
import json, os, statistics, sys
folder, rounds, *held = sys.argv[1:]

def load(number, name):
    path = f"{folder}/{number}.{name}"
    if not os.path.exists(path):
        return None
    client, server = (json.load(open(path))[side] for side in ("client", "server"))
    return {"rate": client["handshakes_per_second"], "rss": int(open(path + ".rss").read()) * 1024,
            "bytes": (client["bytes_per_idle"], server["bytes_per_idle"])}

def plain(name):
    return int(name.replace("k", "000").replace("m", "000000"))

numbers = range(1, int(rounds) + 1)
first = [load(number, held[0]) for number in numbers]
print(f"{'held':>6} {'connections/s [min..max]':>36}  ratio [min..max]      RSS MB  RSS B/side  B at rest, client and server")
missing = False
for name in held:
    pairs = [(load(number, name), base) for number, base in zip(numbers, first)]
    pairs = [(one, base) for one, base in pairs if one and base]
    if len(pairs) < int(rounds):
        print(f"{name:>6} failed in {int(rounds) - len(pairs)} of {rounds} rounds")
        missing = True
    if not pairs:
        continue
    rates, ratios = [one["rate"] for one, _ in pairs], [one["rate"] / base["rate"] for one, base in pairs]
    rss = statistics.median(one["rss"] for one, _ in pairs)
    more = statistics.median(one["rss"] - base["rss"] for one, base in pairs)
    each = f"{more / (plain(name) - plain(held[0])) / 2:.0f}" if plain(name) > plain(held[0]) else "-"
    spread = f"{statistics.median(rates):.0f} [{min(rates):.0f}..{max(rates):.0f}]"
    print(f"{name:>6} {spread:>36}  {statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]"
          f" {rss / 1e6:>10.0f} {each:>10}  {pairs[0][0]['bytes'][0]}, {pairs[0][0]['bytes'][1]}")
sys.exit(1 if missing else 0)
PYTHON

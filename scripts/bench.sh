#!/usr/bin/env bash
# A fixed set of benches, in rounds, kept as JSON so that two commits can be set side by side.
#   scripts/bench.sh [--rounds N] [--seconds N] [--no-veth] [--criterion]
#       runs the set and writes target/bench/COMMIT-DATE.json; 5 rounds of 2 s unless said otherwise
#   scripts/bench.sh compare A.json B.json
#       prints each case's ratio of medians, B to A, with its spread. Marks a case whose ratio is below 0.95 while the
#       ranges of its rounds do not overlap, and then exits with 99
# The rounds are interleaved: a neighbour that takes the machine for a while worsens every case a little, not one a lot.
set -euo pipefail
here=$(dirname "$0")
. "$here/install.sh"
. "$here/measure.sh"

usage() {
    echo "usage: $0 [--rounds N] [--seconds N] [--no-veth] [--criterion] | compare A.json B.json" >&2
    exit 2
}

compare() {
    python3 - "$1" "$2" <<'PYTHON'
import json, sys

RATIO_MIN = 0.95
sides = []
for path in sys.argv[1:]:
    try:
        with open(path) as file:
            sides.append(json.load(file))
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")
before, after = sides
for name, side in (("A", before), ("B", after)):
    dirty = " and changes not committed" if side["dirty"] else ""
    print(f"{name}: {side['commit']}{dirty}, {side['date']}, {side['cpu']}, {side['cores']} cores, Linux {side['kernel']}")
for same in ("cpu", "cores", "kernel", "seconds"):
    if before[same] != after[same]:
        print(f"note: {same} differs, {before[same]} and {after[same]}: the ratios compare that too")
print(f"\n{'case':34} {'A median':>10} {'B median':>10} {'B/A':>6}  range of the ratio")
marked = 0
for case in sorted(before["cases"].keys() | after["cases"].keys()):
    if case not in before["cases"] or case not in after["cases"]:
        print(f"{case:34} only in {'A' if case in before['cases'] else 'B'}")
        continue
    a, b = before["cases"][case], after["cases"][case]
    ratio = b["median"] / a["median"]
    slower = ratio < RATIO_MIN and b["max"] < a["min"]
    marked += slower
    print(f"{case:34} {a['median']:>10.0f} {b['median']:>10.0f} {ratio:>6.3f}  "
          f"[{b['min'] / a['max']:.3f}..{b['max'] / a['min']:.3f}]{'  REGRESSION' if slower else ''}")
print(f"\n{marked} marked (ratio below {RATIO_MIN}, ranges apart)")
sys.exit(99 if marked else 0)
PYTHON
}

# Each line: a case's name, whether it needs root, and the arguments of the bench.
cases() {
    local workload connections
    for workload in handshake http; do
        for connections in 1 100 10k; do
            echo "memory/$workload/c$connections/t1 no --link memory --threads 1 --workload $workload -c $connections"
            if [ "$cores" -ge 2 ]; then
                echo "memory/$workload/c$connections/t2 no --link memory --threads 2 --workload $workload -c $connections"
            fi
        done
    done
    for workload in handshake http; do
        echo "veth/$workload root --link veth --workload $workload"
    done
}

run() {
    local round name right arguments
    rounds_file=$(mktemp)
    trap 'rm -f "$rounds_file"' EXIT
    for round in $(seq "$rounds"); do
        echo "round $round of $rounds" >&2
        while read -r name right arguments; do
            if [ "$right" = root ] && { [ "$veth" = no ] || [ "$(id -u)" -ne 0 ]; }; then
                [ "$round" -gt 1 ] || echo "$name: left out (not root, or --no-veth)" >&2
                continue
            fi
            # shellcheck disable=SC2086 # the arguments are words
            rate "$name" bench $arguments -d "${seconds}s" >>"$rounds_file"
        done < <(cases)
    done
    if [ "$criterion" = yes ]; then
        cargo bench --quiet >&2
    fi
    mkdir -p target/bench
    python3 - "$rounds_file" "$rounds" "$seconds" "$criterion" <<'PYTHON'
import glob, json, os, statistics, sys
path, rounds, seconds, criterion = sys.argv[1:]
cases = {}
for line in open(path):
    name, rate = line.split()
    cases.setdefault(name, []).append(float(rate))
short = [name for name, rates in cases.items() if len(rates) != int(rounds)]
if short:
    sys.exit("rounds are missing of: " + ", ".join(short))
result = {key.lower(): os.environ["SD_" + key] for key in ("COMMIT", "DATE", "KERNEL", "CPU")}
result |= {"dirty": os.environ["SD_DIRTY"] == "yes", "cores": int(os.environ["SD_CORES"])}
result |= {"seconds": float(seconds), "unit": "connections per second", "cases": {}}
for name, rates in cases.items():
    result["cases"][name] = {
        "rounds": rates, "median": statistics.median(rates), "min": min(rates), "max": max(rates)}
if criterion == "yes":
    # Nanoseconds an iteration, less is better: beside the cases, not among them.
    result["criterion_ns"] = {}
    for estimate in sorted(glob.glob("target/criterion/**/new/estimates.json", recursive=True)):
        name = os.path.relpath(estimate, "target/criterion").removesuffix("/new/estimates.json")
        median = json.load(open(estimate))["median"]
        interval = median["confidence_interval"]
        result["criterion_ns"][name] = {"median": median["point_estimate"],
            "min": interval["lower_bound"], "max": interval["upper_bound"]}
out = f"target/bench/{result['commit']}-{result['date'].replace(':', '')}.json"
with open(out, "w") as file:
    json.dump(result, file, indent=1)
print(f"{'case':34} {'median':>10}  [min..max] connections/s, {rounds} rounds of {seconds} s")
for name, case in result["cases"].items():
    print(f"{name:34} {case['median']:>10.0f}  [{case['min']:.0f}..{case['max']:.0f}]")
print(out)
PYTHON
}

if [ "${1-}" = compare ]; then
    [ $# -eq 3 ] || usage
    command -v python3 >/dev/null || install_packages python3
    compare "$2" "$3"
    exit
fi
rounds=5 seconds=2 veth=yes criterion=no
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --seconds) [[ ${2-} =~ ^[1-9][0-9]*$ ]] || usage; declare "${1#--}=$2"; shift ;;
        --no-veth) veth=no ;;
        --criterion) criterion=yes ;;
        *) usage ;;
    esac
    shift
done
cd "$here/.."
install_missing "tc iproute2" "python3 python3"
cargo build --release --quiet
machine
run

#!/usr/bin/env bash
# Shakedown beside its peers, in one run on the same kind of veth pair, so that a speed is a ratio and not a boast.
#   scripts/peers.sh [--rounds N] [--seconds N]        5 interleaved rounds of 2 s each unless said otherwise
#
# Always: Shakedown at both ends, and the kernel's sockets at both ends of that very veth, by epoll and by io_uring.
# Besides, whichever is on PATH: wrk and ab, each against our server and against nginx, a new connection for each request.
# What is absent is said to be. All of it runs in network namespaces that this script makes and takes away. Run as root.
#
# "ratio" is Shakedown at both ends to the peer in the same round: the median of the rounds, and their range.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
. scripts/measure.sh

rounds=5 seconds=2
usage() {
    echo "usage: $0 [--rounds N] [--seconds N]" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --seconds) [[ ${2-} =~ ^[1-9][0-9]*$ ]] || usage; declare "${1#--}=$2"; shift 2 ;;
        *) usage ;;
    esac
done
if [ "$(id -u)" -ne 0 ]; then
    echo "$0: needs root, for network namespaces and XDP: sudo $0" >&2
    exit 3
fi
install_missing "tc iproute2" "ethtool ethtool" "python3 python3"
cargo build --release --quiet
machine

near=sd-near-$$ far=sd-far-$$
ours=10.113.0.10 kernels=10.113.0.2
scratch=$(mktemp -d)
started=()

stop_started() {
    local process
    for process in "${started[@]}"; do
        kill "$process" 2>/dev/null && wait "$process" 2>/dev/null
    done
    started=()
}
clean() {
    stop_started || true
    ip netns del "$near" 2>/dev/null || true
    ip netns del "$far" 2>/dev/null || true
    rm -rf "$scratch"
}
trap clean EXIT
trap 'exit 130' INT TERM

# The client's end is `near`, the server's `far`: both the kernel's, as one of them is in each of the runs.
lab() {
    ip netns add "$near"
    ip netns add "$far"
    ip link add sda netns "$near" numrxqueues "$cores" numtxqueues "$cores" type veth \
        peer name sdb netns "$far" numrxqueues "$cores" numtxqueues "$cores"
    ip -n "$near" addr add 10.113.0.1/24 dev sda
    ip -n "$far" addr add "$kernels/24" dev sdb
    local end name
    for end in "$near sda" "$far sdb"; do
        name=${end% *}
        ip -n "$name" link set lo up
        ip -n "$name" link set "${end#* }" up
        tc -n "$name" qdisc replace dev "${end#* }" root pfifo
        # As the bench has it for its own rivals: every port, and hardly any TIME-WAIT.
        ip netns exec "$name" sysctl -q -w net.ipv4.ip_local_port_range="1024 65535" net.ipv4.tcp_max_tw_buckets=1000
        ip netns exec "$name" sysctl -q -w net.core.txrehash=0 2>/dev/null || true
    done
    # Nobody fills in checksums on a veth but the sender, and ours is verified.
    ip netns exec "$near" ethtool -K sda tx off gro on >/dev/null
    ip netns exec "$far" ethtool -K sdb gro on >/dev/null
}

# begin WHERE ARGUMENT...: starts a server in a namespace, bounded in time, and notes it for the end.
begin() {
    local where=$1
    shift
    timeout $((seconds * 4 + 30)) ip netns exec "$where" "$@" >"$scratch/server.log" 2>&1 &
    started+=($!)
}

# Waits until the server answers.
answers() {
    local tries
    for tries in $(seq 50); do
        if ip netns exec "$near" curl -s -o "$scratch/answer" --max-time 1 "http://$1/"; then
            return
        fi
        sleep 0.1
    done
    echo "$1: no answer after $tries tries; its server said:" >&2
    cat "$scratch/server.log" >&2
    return 1
}

serve_ours() {
    begin "$far" "$shakedown" server -i sdb --addr "$ours/24" --listen 80=http --response-size 100 \
        --cpus "0-$((cores - 1))" -q
    answers "$ours"
}

serve_nginx() {
    cat >"$scratch/nginx.conf" <<CONF
daemon off;
user root;
worker_processes $cores;
worker_cpu_affinity auto;
pid $scratch/nginx.pid;
error_log $scratch/nginx.log crit;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_timeout 0;
    server { listen $kernels:80 reuseport backlog=4096; location / { return 200 "$(printf 'x%.0s' $(seq 100))"; } }
}
CONF
    begin "$far" nginx -e "$scratch/nginx.log" -c "$scratch/nginx.conf"
    answers "$kernels"
}

# row PEER EXCHANGE RATE OURS COMMAND: keeps one figure of a round.
row() {
    local IFS=$'\t'
    echo "$*" >>"$scratch/rows"
}

# Both ends ours, then both the kernel's, on one veth. Leaves our rate in `both_ours`.
both_ends() {
    local workload=$1 figures rival rate
    local -a arguments=(bench --link veth --compare "$rivals" --workload "$workload" -d "${seconds}s")
    report "$scratch/report" "${arguments[@]}"
    figures=$(python3 -c '
import json, sys
report = json.load(open(sys.argv[1]))
print("ours", report["client"]["handshakes_per_second"])
compared = report["comparison"]
for rival in compared if isinstance(compared, list) else [compared]:
    print(rival["rival"], rival["handshakes_per_second"])' "$scratch/report")
    while read -r rival rate; do
        case $rival in
            ours)
                both_ours=$rate
                row "shakedown, both ends" "$workload, FIN" "$rate" "$rate" "shakedown ${arguments[*]}"
                ;;
            kernel) row "kernel by epoll, both ends" "$workload, FIN" "$rate" "$both_ours" "the same run" ;;
            io-uring) row "kernel by io_uring, both ends" "$workload, FIN" "$rate" "$both_ours" "the same run" ;;
        esac
    done <<<"$figures"
}

# drive TOOL SERVER-NAME ADDRESS: one HTTP client of the kernel's, a connection for each request.
drive() {
    local tool=$1 rate
    local -a command
    case $tool in
        wrk) command=(wrk "-t$cores" -c128 "-d${seconds}s" -H "Connection: close" "http://$3/") ;;
        ab) command=(ab -q -r -c 128 -t "$seconds" -n 100000000 "http://$3/") ;;
    esac
    if ! timeout $((seconds + 20)) ip netns exec "$near" "${command[@]}" >"$scratch/$tool.log" 2>&1; then
        echo "$tool against $2 failed: ${command[*]}" >&2
        cat "$scratch/$tool.log" >&2
        return 1
    fi
    rate=$(sed -n 's/^Requests[^0-9]*\([0-9.]*\).*/\1/p' "$scratch/$tool.log")
    [ -n "$rate" ] || { cat "$scratch/$tool.log" >&2; return 1; }
    grep -E "Socket errors|Non-2xx|Failed requests: +[1-9]" "$scratch/$tool.log" |
        sed "s/^ */note: $tool against $2: /" >>"$scratch/notes" || true
    row "$tool -> $2" "http, close" "$rate" "$both_ours" "${command[*]}"
}

table() {
    machine_line
    python3 - "$scratch/rows" "$rounds" "$seconds" <<'PYTHON'
import statistics, sys
path, rounds, seconds = sys.argv[1:]
rows, commands = {}, {}
for line in open(path):
    peer, exchange, rate, ours, command = line.rstrip("\n").split("\t")
    rows.setdefault((peer, exchange), []).append((float(rate), float(ours)))
    commands[peer, exchange] = command
print(f"{rounds} interleaved rounds of {seconds} s; connections/s: median [min..max]; ratio: shakedown at both ends to it\n")
print(f"{'peer':30} {'exchange':15} {'connections/s':>32}  ratio")
for (peer, exchange), found in rows.items():
    rates, ratios = [rate for rate, _ in found], [ours / rate for rate, ours in found if rate > 0]
    print(f"{peer:30} {exchange:15} {statistics.median(rates):>12.0f} [{min(rates):>8.0f}..{max(rates):>8.0f}]  "
          + (f"{statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]" if ratios else "none done"))
print()
for (peer, exchange), command in commands.items():
    print(f"{peer}, {exchange}: {command}")
PYTHON
    [ ! -s "$scratch/notes" ] || sort "$scratch/notes" | uniq -c
}

rivals=kernel,io-uring
if [ "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 2)" != 0 ]; then
    echo "io_uring: left out (sysctl kernel.io_uring_disabled is not 0, or the kernel is older than 6.6)"
    rivals=kernel
fi
for peer in wrk ab nginx; do
    command -v "$peer" >/dev/null || echo "$peer: absent (not on PATH)"
done
for peer in dperf t-rex-64 curl-loader; do
    if command -v "$peer" >/dev/null; then
        echo "$peer: found, but this script can't drive it: it needs a configuration for its own way to the NIC"
    else
        echo "$peer: absent (not on PATH)"
    fi
done
lab
failed=0
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    both_ends handshake
    both_ends http
    for server in ours nginx; do
        address=$ours
        if [ "$server" = nginx ]; then
            command -v nginx >/dev/null || continue
            address=$kernels
        fi
        if "serve_$server"; then
            for tool in wrk ab; do
                ! command -v "$tool" >/dev/null || drive "$tool" "$server" "$address" || failed=1
            done
        else
            failed=1
        fi
        stop_started || true
    done
done
table
exit "$failed"

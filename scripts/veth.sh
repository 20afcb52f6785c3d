#!/usr/bin/env bash
# A lab on one machine: a veth pair whose one end is in a network namespace of its own.
#
#   this machine                         namespace sd-peer
#   sd0  10.111.0.1/24  ───────────────  sd1  10.111.0.2/24
#
# Start the server on sd0, and point curl or wrk at it from inside the namespace; or the other way round.
# `up` prints the commands to type. Run as root.
set -euo pipefail
. "$(dirname "$0")/install.sh"

peer=sd-peer
queues=$(nproc)

usage() {
    echo "usage: $0 up|down" >&2
    exit 2
}

need_root() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "$0: needs root, for network namespaces and XDP: sudo $0 $1" >&2
        exit 3
    fi
}

up() {
    if ip netns list | grep -qw "$peer"; then
        echo "$0: the lab is up already; \`$0 down\` takes it away" >&2
        exit 1
    fi
    ip netns add "$peer"
    trap 'ip netns del "$peer"' ERR
    ip link add sd0 numrxqueues "$queues" numtxqueues "$queues" type veth \
        peer name sd1 netns "$peer" numrxqueues "$queues" numtxqueues "$queues"
    ip addr add 10.111.0.1/24 dev sd0
    ip -n "$peer" addr add 10.111.0.2/24 dev sd1
    ip -n "$peer" link set lo up
    ip link set sd0 up
    ip -n "$peer" link set sd1 up
    # A full ring drops in silence without a queue in front of it.
    tc qdisc replace dev sd0 root pfifo
    tc -n "$peer" qdisc replace dev sd1 root pfifo
    # With GRO off, a veth's transmit queue was seen to stay stopped after XDP was detached.
    ethtool -K sd0 gro on
    # The kernel in the namespace shall fill in its TCP checksums: no hardware will.
    ip netns exec "$peer" ethtool -K sd1 tx off gro on >/dev/null
    # A flow that retransmits would move to another queue.
    ip netns exec "$peer" sysctl -q -w net.core.txrehash=0 2>/dev/null || true
    cat <<TEXT
The lab is up: sd0 here, sd1 (10.111.0.2) in the namespace $peer. Type:

  shakedown server -i sd0 --addr 10.111.0.10/24 --listen 80=http --listen 7000=echo
  ip netns exec $peer curl -i http://10.111.0.10/
  ip netns exec $peer wrk -t1 -c64 -d10s http://10.111.0.10/

or let the client drive a server of the kernel's:

  ip netns exec $peer python3 -m http.server 8080 &
  shakedown client -i sd0 --addr 10.111.0.10/24 --target 10.111.0.2:8080 --workload http -c 16 -n 1k

(The binary is target/release/shakedown after \`cargo build --release\`.)  $0 down takes the lab away.
TEXT
}

down() {
    # The pair goes with the namespace.
    ip netns del "$peer" 2>/dev/null || true
    ip link del sd0 2>/dev/null || true
    echo "The lab is gone."
}

[ $# -eq 1 ] || usage
case $1 in
    up) need_root up; install_missing "tc iproute2" "ethtool ethtool"; up ;;
    down) need_root down; down ;;
    *) usage ;;
esac

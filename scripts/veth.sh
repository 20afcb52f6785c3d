#!/usr/bin/env bash
# A lab on one machine: a veth pair whose one end is in a network namespace of its own.
#
#   this machine                             namespace sd-peer
#   sd0  10.111.0.1/24   ──────────────────  sd1        10.111.0.2/24
#        fd00:111::1/64                                 fd00:111::2/64
#                                            sd1.VLAN   10.112.0.2/24, fd00:112::2/64 (with `up VLAN`)
#
# Start the server on sd0, and point curl or wrk at it from inside the namespace; or the other way round.
# `up` prints the commands to type. Run as root.
set -euo pipefail
. "$(dirname "$0")/install.sh"

peer=sd-peer
queues=$(nproc)

usage() {
    echo "usage: $0 up [VLAN]|down" >&2
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
    # Nobody else has them: without the test for that they can be used at once.
    ip addr add fd00:111::1/64 dev sd0 nodad
    ip -n "$peer" addr add fd00:111::2/64 dev sd1 nodad
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
    if [ -n "$vlan" ]; then
        if ! ip -n "$peer" link add link sd1 name "sd1.$vlan" type vlan id "$vlan"; then
            ip netns del "$peer"
            echo "$0: VLAN $vlan can't be made: it is from 1 to 4094, and the kernel needs 8021q" >&2
            exit 3
        fi
        ip -n "$peer" addr add 10.112.0.2/24 dev "sd1.$vlan"
        ip -n "$peer" addr add fd00:112::2/64 dev "sd1.$vlan" nodad
        ip -n "$peer" link set "sd1.$vlan" up
        # Tags shall be in the frames: beside them, kernels before 6.8 do not show them to XDP.
        ip netns exec "$peer" ethtool -K sd1 txvlan off
    fi
    # A flow that retransmits would move to another queue.
    ip netns exec "$peer" sysctl -q -w net.core.txrehash=0 2>/dev/null || true
    cat <<TEXT
The lab is up: sd0 here, sd1 (10.111.0.2, fd00:111::2) in the namespace $peer. Type:

  shakedown server -i sd0 --addr 10.111.0.10/24,fd00:111::10/64 --listen 80=http --listen 7000=echo
  ip netns exec $peer curl -i http://10.111.0.10/
  ip netns exec $peer curl -i 'http://[fd00:111::10]/'
  ip netns exec $peer wrk -t1 -c64 -d10s http://10.111.0.10/

or let the client drive a server of the kernel's:

  ip netns exec $peer python3 -m http.server 8080 &
  shakedown client -i sd0 --addr 10.111.0.10/24 --target 10.111.0.2:8080 --workload http -c 16 -n 1k

(The binary is target/release/shakedown after \`cargo build --release\`.)  $0 down takes the lab away.
TEXT
    if [ -n "$vlan" ]; then
        echo "On VLAN $vlan the peer has 10.112.0.2 and fd00:112::2; ours there: --addr 10.112.0.10/24@$vlan"
    fi
}

down() {
    # The pair goes with the namespace.
    ip netns del "$peer" 2>/dev/null || true
    ip link del sd0 2>/dev/null || true
    echo "The lab is gone."
}

[ $# -eq 1 ] || [ "$*" = "up ${2-}" ] || usage
vlan=${2-}
case $1 in
    up) need_root up; install_missing "tc iproute2" "ethtool ethtool"; up ;;
    down) need_root down; down ;;
    *) usage ;;
esac

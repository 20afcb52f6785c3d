#!/usr/bin/env bash
# Streams between our stack and the kernel's over a veth pair, every byte verified at the end it comes to: each way, over
# IPv4 and IPv6, at 0, 1 and 5 % loss of what carries the data. Next to each: the kernel's TCP at both ends of the same
# veth in the same run, without loss, a segment a frame. Prints a table; fails if a transfer does. Run as root.
#   scripts/bulk.sh [BYTES]        1GiB unless said otherwise
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh
install_missing "tc iproute2" "python3 python3"

bytes=${1:-1GiB}
if [ "$(id -u)" -ne 0 ]; then
    echo "$0: needs root, for network namespaces and XDP: sudo $0 $*" >&2
    exit 3
fi
cargo build --release --quiet
report=$(mktemp)
trap 'rm -f "$report"' EXIT

# One row of the table: family, direction, loss.
row() {
    local status=0 lane=tx
    [ "$2" = up ] || lane=rx
    timeout 900 target/release/shakedown bench --link veth --peer kernel --compare kernel --family "$1" --workload stream \
        --direction "$2" --bytes "$bytes" --impair-loss "$3%" --impair-direction "$lane" --json - >"$report" || status=$?
    python3 - "$report" "$1" "$2" "$3" <<'PYTHON' || status=1
import json, sys
path, family, direction, loss = sys.argv[1:]
try:
    report = json.load(open(path))
except ValueError:
    sys.exit(f"IPv{family} {direction} {loss} %: no report")
client = report["client"]
ours = client["tx_goodput_bits_per_second"] + client["rx_goodput_bits_per_second"]
kernel = [run for run in report["comparison"] if not run["segmentation_offload"]][0]
row = f"IPv{family}  {direction:4}  {loss:>3} %  {ours / 1e9:8.3f}  {kernel['goodput_bits_per_second'] / 1e9:8.3f}"
row += f"  {kernel['ratio']:6.3f}  {client['segments_retransmitted_total']:>8}  {report['verdict']['state']}"
print(row, flush=True)
PYTHON
    return "$status"
}

echo "$bytes each way; Gbit/s of payload"
echo "           loss      ours    kernel   ratio    resent"
failed=0
for family in 4 6; do
    for loss in 0 1 5; do
        for direction in up down; do
            row "$family" "$direction" "$loss" || failed=1
        done
    done
done
exit "$failed"

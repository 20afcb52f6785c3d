//! Streams over a veth pair, with our stack and with the kernel's sockets as the peer: every byte
//! is verified by its offset at the end that it comes to. Needs root; without it, says so and
//! passes.

mod common;

use common::is_root;
use serde_json::Value;
use std::process::Command;

/// Bytes each way: enough for windows to fill and sequence numbers to move, little enough for CI.
const BYTES: u64 = 32 << 20;

/// Runs a bench of streams over a veth, which is to go well; answers its report.
fn bench(arguments: &[&str]) -> Value {
    let common = ["bench", "--link", "veth", "--threads", "1", "--workload", "stream"];
    let output = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(common)
        .args(["--bytes", &BYTES.to_string(), "--json", "-"])
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}"))
}

#[test]
fn streams_between_us_and_a_kernel_are_whole_and_right_each_way() {
    if !is_root("streams_between_us_and_a_kernel_are_whole_and_right_each_way") {
        return;
    }
    for family in ["4", "6"] {
        for (direction, up, down) in [("up", BYTES, 0), ("down", 0, BYTES), ("both", BYTES, BYTES)]
        {
            let report = bench(&["--peer", "kernel", "--family", family, "--direction", direction]);
            let case = format!("IPv{family} {direction}");
            // With a stream go an order of 32 bytes up and a receipt of 16 down.
            assert_eq!(number(&report, "/kernel/rx_payload_bytes_total"), up + 32, "{case}");
            assert_eq!(number(&report, "/client/rx_payload_bytes_total"), down + 16, "{case}");
            for side in ["kernel", "client"] {
                let wrong = number(&report, &format!("/{side}/verify_errors_total"));
                assert_eq!(wrong, 0, "{case}: {side}");
            }
        }
    }
}

#[test]
fn streams_over_our_stack_at_both_ends_are_measured_next_to_the_kernel() {
    if !is_root("streams_over_our_stack_at_both_ends_are_measured_next_to_the_kernel") {
        return;
    }
    let report = bench(&["--direction", "both", "--compare", "kernel"]);
    assert_eq!(number(&report, "/client/rx_payload_bytes_total"), BYTES + 16);
    assert_eq!(number(&report, "/server/rx_payload_bytes_total"), BYTES + 32);
    let runs = report["comparison"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "with and without segmentation offload");
    for run in runs {
        assert!(run["ratio"].as_f64().unwrap() > 0.0);
        assert_eq!(run["verify_errors_total"], 0);
        assert_eq!(run["up_bytes_total"], BYTES + 32);
    }
}

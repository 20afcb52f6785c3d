//! What the scripts that compare make of figures: a planted regression is marked, noise is not.
//! Needs bash and python3.

use std::path::PathBuf;
use std::process::{Command, Output};

/// A result of `scripts/bench.sh` with one case, of these rounds.
fn result(name: &str, rounds: [f64; 5]) -> PathBuf {
    let mut sorted = rounds;
    sorted.sort_by(f64::total_cmp);
    let text = serde_json::json!({
        "commit": name, "dirty": false, "date": "2026-01-01T00:00:00Z", "kernel": "6.18",
        "cpu": "one", "cores": 2, "seconds": 2.0,
        "cases": {"memory/handshake": {
            "rounds": rounds, "median": sorted[2], "min": sorted[0], "max": sorted[4],
        }},
    });
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join(format!("compare-{}-{name}.json", std::process::id()));
    std::fs::write(&path, text.to_string()).unwrap();
    path
}

fn compare(name: &str, before: [f64; 5], after: [f64; 5]) -> Output {
    let files = [result(&format!("{name}-a"), before), result(&format!("{name}-b"), after)];
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench.sh");
    let output = Command::new(script).arg("compare").args(&files).output().unwrap();
    for file in files {
        std::fs::remove_file(file).unwrap();
    }
    output
}

const BEFORE: [f64; 5] = [98.0, 101.0, 100.0, 99.0, 102.0];

#[test]
fn a_planted_regression_is_marked_with_99() {
    let output = compare("planted", BEFORE, [90.0, 91.0, 92.0, 93.0, 89.0]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(99), "{text}");
    assert!(text.contains("0.910") && text.contains("REGRESSION"), "{text}");
}

#[test]
fn a_slow_median_is_noise_while_the_ranges_overlap() {
    let output = compare("noise", BEFORE, [90.0, 91.0, 92.0, 93.0, 98.5]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("0.920") && !text.contains("REGRESSION"), "{text}");
}

#[test]
fn a_small_loss_is_not_marked_though_the_ranges_are_apart() {
    let output = compare("small", BEFORE, [96.5, 96.0, 97.0, 96.2, 96.8]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("0.965"), "{text}");
}

#[test]
fn a_file_that_is_no_result_is_an_error() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench.sh");
    let output = Command::new(script).args(["compare", "/dev/null", "/dev/null"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/dev/null"));
}

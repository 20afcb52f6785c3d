//! Runs every script of `tests/scripts`: what TCP says to a peer that says what the script says.
//! `SHAKEDOWN_SCRIPT=name cargo test --test scripts` runs those whose name contains `name`.

use shakedown::sim::script;
use shakedown::tcp::State::{self, *};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn scripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let entries = fs::read_dir(&directory).expect("tests/scripts is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The lines of RFC 9293's figure 5, LISTEN being CLOSED here; then the ways out by reset, abort
/// and timeout; then the way round TIME-WAIT (s3.6.1).
const TRANSITIONS: [(State, State); 28] = [
    (Closed, SynSent),
    (Closed, SynReceived),
    (SynSent, SynReceived),
    (SynSent, Established),
    (SynSent, Closed),
    (SynReceived, Established),
    (SynReceived, FinWait1),
    (SynReceived, Closed),
    (Established, FinWait1),
    (Established, CloseWait),
    (FinWait1, FinWait2),
    (FinWait1, Closing),
    (FinWait1, TimeWait),
    (FinWait2, TimeWait),
    (Closing, TimeWait),
    (CloseWait, LastAck),
    (LastAck, Closed),
    (TimeWait, Closed),
    (Established, Closed),
    (FinWait1, Closed),
    (FinWait2, Closed),
    (CloseWait, Closed),
    (Closing, Closed),
    (TimeWait, SynReceived),
    // Two steps in one segment: text or FIN with the ACK of SYN, and both FINs at once.
    (SynReceived, CloseWait),
    (Established, LastAck),
    (SynSent, CloseWait),
    // And of the ACK of a cookie, in whose SYN-RECEIVED nothing was kept (RFC 4987 s3.6).
    (Closed, Established),
];

#[test]
fn every_script_goes_as_written() {
    let only = std::env::var("SHAKEDOWN_SCRIPT").unwrap_or_default();
    let mut failures = Vec::new();
    let mut seen = HashSet::new();
    let mut count = 0;
    for path in scripts() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.ends_with(".pkt"), "{name} is no script");
        if !name.contains(&only) {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).unwrap();
        match script::run(&format!("tests/scripts/{name}"), &text) {
            Ok(steps) => seen.extend(steps),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(count > 0, "no script is called `{only}`");
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
    if only.is_empty() {
        let expected = HashSet::from(TRANSITIONS);
        let untried: Vec<_> = expected.difference(&seen).collect();
        let strange: Vec<_> = seen.difference(&expected).collect();
        assert!(untried.is_empty(), "no script goes {untried:?}");
        assert!(strange.is_empty(), "not in RFC 9293: {strange:?}");
    }
}

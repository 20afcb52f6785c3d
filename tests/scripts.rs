//! Runs every script of `tests/scripts`: what TCP says to a peer that says what the script says.
//! `SHAKEDOWN_SCRIPT=name cargo test --test scripts` runs those whose name contains `name`.

use shakedown::sim::script;
use std::fs;
use std::path::{Path, PathBuf};

fn scripts() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let entries = fs::read_dir(&directory).expect("tests/scripts is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_script_goes_as_written() {
    let only = std::env::var("SHAKEDOWN_SCRIPT").unwrap_or_default();
    let mut failures = Vec::new();
    let mut count = 0;
    for path in scripts() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.ends_with(".pkt"), "{name} is no script");
        if !name.contains(&only) {
            continue;
        }
        count += 1;
        let text = fs::read_to_string(&path).unwrap();
        if let Err(failure) = script::run(&format!("tests/scripts/{name}"), &text) {
            failures.push(failure.to_string());
        }
    }
    assert!(count > 0, "no script is called `{only}`");
    assert!(failures.is_empty(), "{} of {count} failed:\n{}", failures.len(), failures.join("\n"));
}

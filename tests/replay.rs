//! What fuzzing once found, again: every input that is kept in `fuzz/regressions/TARGET` goes
//! through its target, and so does a little of random bytes, so that no target rots unnoticed.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use shakedown::rng::Rng;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use targets::TARGETS;

/// Random inputs a target, and bytes of one at the most.
const INPUTS: usize = 300;
const BYTES_MAX: u64 = 600;

#[test]
fn what_was_found_once_is_mended() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions");
    let mut replayed = 0;
    for folder in fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let known = TARGETS.iter().find(|(known, _)| *known == name);
        let (_, run) = known.unwrap_or_else(|| panic!("`{name}` is no target"));
        for input in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let data = fs::read(&input).unwrap();
            assert!(catch_unwind(|| run(&data)).is_ok(), "{} is as it was", input.display());
            replayed += 1;
        }
    }
    assert!(replayed > 0, "{} has nothing to replay", kept.display());
}

#[test]
fn every_target_takes_anything() {
    for (name, run) in TARGETS {
        let mut rng = Rng::new(1);
        for _ in 0..INPUTS {
            let input: Vec<u8> = (0..rng.below(BYTES_MAX)).map(|_| rng.next() as u8).collect();
            assert!(catch_unwind(|| run(&input)).is_ok(), "{name}: {input:02x?}");
        }
    }
}

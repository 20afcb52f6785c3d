//! libFuzzer around one target of `targets`: the one that `SHAKEDOWN_FUZZ_TARGET` names.
//! `scripts/fuzz.sh` builds and runs it.
#![no_main]

mod targets;

use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::OnceLock;

static RUN: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("SHAKEDOWN_FUZZ_TARGET").unwrap_or_default();
        let known = targets::TARGETS.iter().find(|(known, _)| *known == name);
        let (_, run) = known.unwrap_or_else(|| panic!("`{name}` is no target"));
        RUN.set(*run).expect("set once");
    },
    |data: &[u8]| -> Corpus {
        RUN.get().expect("set at start")(data);
        Corpus::Keep
    }
);

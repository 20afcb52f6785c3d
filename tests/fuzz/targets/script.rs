//! The notation of `tests/scripts`: whatever is written, it goes as written or its failure is told.

use shakedown::sim::script;

pub fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = script::run("fuzz", text);
    }
}

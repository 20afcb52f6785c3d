//! What is fuzzed. A target is a module with `run`, which panics on what must not be, and a line
//! in [`TARGETS`]; its findings are kept in `regressions/NAME`.

mod config;
mod engine;
mod script;
mod wire;

pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("wire", wire::run),
    ("engine", engine::run),
    ("config", config::run),
    ("script", script::run),
];

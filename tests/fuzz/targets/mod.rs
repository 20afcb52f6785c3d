//! What is fuzzed. A target is a module with `run`, which panics on what must not be, and a line
//! in [`TARGETS`]; its findings are kept in `regressions/NAME`.

mod config;
mod cookie;
mod engine;
mod script;
mod wire;

/// A name, and what takes any bytes.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("wire", wire::run),
    ("engine", engine::run),
    ("cookie", cookie::run),
    ("config", config::run),
    ("script", script::run),
];

#![doc = include_str!("ARCHITECTURE.md")]
#![deny(unsafe_code)]

// In layer order: a module imports only from those above it (tests/tidy.rs holds the table).
pub mod app;
pub mod cli;
pub mod control;
pub mod device;
pub mod engine;
pub mod floor;
pub mod flow;
pub mod frame;
pub mod rng;
pub mod sim;
pub mod stats;
pub mod sys;
pub mod tcp;
pub mod time;
pub mod timer;
pub mod wire;
pub mod worker;

#[cfg(doc)]
#[doc = include_str!("RFC9293.md")]
pub mod rfc9293 {}

#[cfg(doc)]
#[doc = include_str!("HOSTILE.md")]
pub mod hostile {}

#[cfg(doc)]
#[doc = include_str!("FAULTS.md")]
pub mod faults {}

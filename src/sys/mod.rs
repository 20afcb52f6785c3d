//! The only unsafe code of ours: memory shared with the kernel, AF_XDP rings and sockets, BPF loading, CPU hints.
//!
//! Imports nothing else of the crate and is written to stand alone. Everything it exports is safe to call: the
//! invariants that make it so are stated at each `SAFETY:` with who upholds them.
#![allow(unsafe_code)]

pub mod cpu;
pub mod umem;

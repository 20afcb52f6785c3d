//! Counting: one table of counters, latency histograms, and lock-free snapshots for the control
//! thread.

pub mod counters;
pub mod histogram;
pub mod publish;

pub use counters::Counters;
pub use histogram::{Histogram, Summary};
pub use publish::{Board, Gauges};

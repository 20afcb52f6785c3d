//! Deadlines of connections.

pub mod wheel;

pub use wheel::Wheel;

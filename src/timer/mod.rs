//! Deadlines of connections.

mod bitmap;
mod queues;
pub mod wheel;

pub use wheel::Wheel;

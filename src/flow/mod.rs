//! Which connection a segment belongs to: the four-tuple, its keyed hash, and the choice of free
//! four-tuples whose replies come to the worker that asked.

pub mod hosts;
pub mod key;
pub mod rss;
pub mod tuples;

pub use hosts::Hosts;
pub use key::{Endpoints, FlowKey, Host};
pub use rss::Rss;

//! Which connection a segment belongs to: the four-tuple, its keyed hash, and the choice of free
//! four-tuples.

pub mod hosts;
pub mod key;
pub mod tuples;

pub use hosts::Hosts;
pub use key::{Endpoints, FlowKey, Host};

//! packetdrill's interface for a stack in a shared object: the engine of this crate with a socket
//! layer for its application, under packetdrill's virtual clock.
//!
//! ```text
//!   packetdrill --so_filename=libpacketdrill.so --so_flags=ip=192.168.0.1,... script.pkt
//!
//!   abi        the 33 callbacks: the only unsafe code
//!   blocking   one lock, the clock, and calls that wait while another thread moves time on
//!   calls      what each call does: bind, listen, connect, receive, transmit, close ...
//!   socket     a socket, and the engine's application that is all of them
//!   ready      poll and epoll             sockopt    get- and setsockopt
//!   net        engine, frames and time    address    sockaddr and back      flags    so_flags
//! ```
//!
//! Errors are Linux's `errno` values. Nothing here reads a clock but to bound how long a thread is
//! waited for.

mod abi;
mod address;
mod blocking;
mod calls;
mod flags;
mod net;
mod ready;
mod socket;
mod sockopt;

/// An `errno` value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Errno(i32);

/// What a call answers.
type Outcome<T> = Result<T, Errno>;

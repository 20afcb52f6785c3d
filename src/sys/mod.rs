//! The only unsafe code of ours: memory shared with the kernel, AF_XDP rings and sockets, BPF
//! loading, CPU hints.
//!
//! Imports nothing else of the crate and is written to stand alone. Everything it exports is safe
//! to call: the invariants that make it so are stated at each `SAFETY:` with who upholds them.
#![allow(unsafe_code)]

pub mod bpf;
pub mod cpu;
pub mod epoll;
pub mod napi;
pub mod net;
pub mod netdev;
pub mod netns;
pub mod packet;
pub mod pages;
mod ring;
pub mod sandbox;
pub mod socket;
pub mod umem;
pub mod uring;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Turns -1 into the error it stands for, with what was attempted.
fn check(result: libc::c_int, attempt: &str) -> io::Result<libc::c_int> {
    if result >= 0 { Ok(result) } else { Err(failed(attempt, io::Error::last_os_error())) }
}

/// An error that says what was attempted and keeps the kernel's errno in its text.
fn failed(attempt: impl std::fmt::Display, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{attempt}: {cause}"))
}

/// setsockopt. T is a plain C value as the option wants it; the kernel only reads it.
fn set_option<T: Copy>(fd: RawFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which the kernel reads during the call.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// getsockopt into a plain C value, zeroed where the kernel writes less than all of it.
///
/// # Safety
/// All bit patterns of T are valid.
unsafe fn option<T: Copy>(fd: RawFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes to `value`.
    let result =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &mut bytes) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then written by the kernel; any bit pattern is valid (the caller's promise).
    Ok(unsafe { value.assume_init() })
}

//! Who runs a queue's NAPI, the kernel's receive loop: by default a softirq, wherever and whenever
//! it likes; with busy polling the thread that wants the packets, in batches, from its own system
//! call.
//!
//! A NIC tells an AF_XDP socket the NAPI instance of its queue, and polling that socket is enough.
//! veth does not. There a [`Helper`] learns it instead: a UDP socket to which one datagram came
//! through the queue, and whose `recv` then runs that queue's NAPI. The datagram is a hello from
//! the other end, a broadcast to [`hello_port`] of the queue, sent on the same queue; the steering
//! program passes it to the kernel like all UDP.
//!
//! With a poller, the kernel's own loop only disturbs: [`Deferral`] keeps it quiet as long as
//! somebody polls.

use super::netns::Namespace;
use super::{check, failed, option, set_option};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};

// Newer than the libc crate.
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// NAPI budget of one busy poll: at 16 and above the rate no longer depended on it.
const BUDGET_FRAMES: libc::c_int = 64;
/// How long one busy poll may spin, in µs. With a non-blocking call one pass is made; the value
/// only has to be above 0.
const SPIN_US: libc::c_int = 50;

/// NAPI rounds without a packet before the queue's interrupt is enabled again. With a poller it
/// never comes to that.
const DEFER_ROUNDS: u64 = 100;
/// How long the kernel waits for a poller before it runs the queue itself, in ns. It must exceed
/// the 4 ms tick: on a two-queue veth 0 gave 1.65 Mpps, 200 µs 1.87, 1 ms 1.96 and 5 ms 2.33.
const FLUSH_TIMEOUT_NS: u64 = 5_000_000;

/// The UDP port on which the helper of `queue` waits for a hello.
pub fn hello_port(queue: u32) -> u16 {
    const HELLO_PORT: u16 = 47_700;
    HELLO_PORT + (queue & 255) as u16
}

/// Lets system calls on this socket run its queue's NAPI on the caller's core
/// (SO_PREFER_BUSY_POLL).
///
/// # Errors
/// Linux before 5.11.
pub fn prefer_busy_poll(socket: BorrowedFd) -> io::Result<()> {
    for (name, value) in [
        (SO_PREFER_BUSY_POLL, 1),
        (libc::SO_BUSY_POLL, SPIN_US),
        (SO_BUSY_POLL_BUDGET, BUDGET_FRAMES),
    ] {
        set_option(socket.as_raw_fd(), libc::SOL_SOCKET, name, &value)
            .map_err(|cause| failed("ask for busy polling (needs Linux 5.11)", cause))?;
    }
    Ok(())
}

/// The NAPI instance of a socket's queue; 0 if it is not known.
pub fn napi_id(socket: BorrowedFd) -> u32 {
    // SAFETY: an integer.
    unsafe { option::<u32>(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID) }
        .unwrap_or(0)
}

/// A socket that runs the NAPI of one veth queue when it is polled, once it has heard a hello
/// through that queue.
pub struct Helper {
    socket: UdpSocket,
    awake: bool,
}

impl Helper {
    /// A helper for one queue of an interface of the calling thread's namespace. The interface
    /// needs no address.
    ///
    /// # Errors
    /// The port is taken on that interface (another Shakedown has the queue), or Linux before 5.11.
    pub fn bind(interface: &str, queue: u32) -> io::Result<Helper> {
        let port = hello_port(queue);
        let attempt = format!("listen for hellos on UDP port {port} of {interface}");
        let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_INET, flags, 0) }, &attempt)?;
        // SAFETY: a descriptor just made, owned by nobody else.
        let socket = unsafe { UdpSocket::from_raw_fd(fd) };
        let mut name = [0u8; libc::IFNAMSIZ];
        for (place, byte) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
            *place = byte;
        }
        set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &name)
            .map_err(|cause| failed(&attempt, cause))?;
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::UNSPECIFIED) },
            sin_zero: [0; 8],
        };
        // SAFETY: pointer and length describe `address`.
        let result = unsafe {
            libc::bind(
                fd,
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            )
        };
        check(result, &attempt)?;
        prefer_busy_poll(socket.as_fd())?;
        Ok(Helper { socket, awake: false })
    }

    /// True once a hello has come and the queue's NAPI is known: polling then has an effect.
    pub fn awake(&self) -> bool {
        self.awake
    }

    /// One system call: runs the queue's NAPI if it is known, else looks for a hello.
    /// True if a hello came: the peer may be waiting for one from us.
    pub fn poll(&mut self) -> bool {
        let heard = self.socket.recv(&mut [0; 16]).is_ok();
        if heard && !self.awake {
            self.awake = napi_id(self.socket.as_fd()) != 0;
        }
        heard
    }
}

/// Keeps the kernel from running an interface's NAPI by itself while somebody polls; undone when
/// dropped.
pub struct Deferral {
    namespace: Namespace,
    interface: String,
    before: [String; 2],
}

const FILES: [&str; 2] = ["napi_defer_hard_irqs", "gro_flush_timeout"];

impl Deferral {
    /// Sets napi_defer_hard_irqs and gro_flush_timeout of an interface of the calling thread's
    /// namespace.
    ///
    /// # Errors
    /// Not permitted, no such interface, or Linux before 5.9.
    pub fn start(interface: &str) -> io::Result<Deferral> {
        let namespace = Namespace::current()?;
        let values = [DEFER_ROUNDS, FLUSH_TIMEOUT_NS].map(|value| value.to_string());
        let before = namespace.with_sysfs(|| {
            let before = [read(interface, FILES[0])?, read(interface, FILES[1])?];
            write(interface, &values)?;
            Ok(before)
        })?;
        Ok(Deferral { namespace, interface: interface.to_owned(), before })
    }
}

impl Drop for Deferral {
    fn drop(&mut self) {
        // If the interface is gone there is nothing to restore.
        let _ = self.namespace.with_sysfs(|| write(&self.interface, &self.before));
    }
}

fn read(interface: &str, file: &str) -> io::Result<String> {
    let path = format!("/sys/class/net/{interface}/{file}");
    let text = std::fs::read_to_string(&path)
        .map_err(|cause| failed(format_args!("read {path}"), cause))?;
    Ok(text.trim().to_owned())
}

fn write(interface: &str, values: &[String; 2]) -> io::Result<()> {
    for (file, value) in FILES.iter().zip(values) {
        let path = format!("/sys/class/net/{interface}/{file}");
        std::fs::write(&path, value)
            .map_err(|cause| failed(format_args!("write {path}"), cause))?;
    }
    Ok(())
}

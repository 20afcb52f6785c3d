//! The kernel's own TCP sockets, many at a time: an epoll set, a connect that does not wait, a
//! listener that several threads share. What the standard library has (accept, read, write, close)
//! is taken from there.

use super::{check, failed};
use std::io;
use std::mem::zeroed;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Events taken by one wait. Larger than a burst of accepts, small enough for the stack.
const EVENTS_MAX: usize = 256;

/// Connections that may wait for an accept: the kernel's own limit (net.core.somaxconn) is usually
/// lower.
const BACKLOG: libc::c_int = 4096;

/// A set of sockets to be told of.
pub struct Epoll(OwnedFd);

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read or to accept, or the peer has closed.
    Readable,
    /// A connect is done, well or not; or there is room to write again.
    Writable,
    Both,
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// Too many open files.
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "make an epoll set")?;
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds a socket, to be named `token` from then on. It leaves the set when it is closed.
    ///
    /// # Errors
    /// It is in the set already, or not enough memory.
    pub fn add(&self, socket: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, interest, token)
    }

    /// Changes what to be told of a socket of the set.
    ///
    /// # Errors
    /// It is not in the set.
    pub fn change(&self, socket: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, interest, token)
    }

    fn control(
        &self,
        operation: libc::c_int,
        socket: impl AsFd,
        interest: Interest,
        token: u64,
    ) -> io::Result<()> {
        let events = match interest {
            Interest::Readable => libc::EPOLLIN,
            Interest::Writable => libc::EPOLLOUT,
            Interest::Both => libc::EPOLLIN | libc::EPOLLOUT,
        };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        let (set, fd) = (self.0.as_raw_fd(), socket.as_fd().as_raw_fd());
        // SAFETY: both descriptors are alive; the event is read during the call.
        let result = unsafe { libc::epoll_ctl(set, operation, fd, &mut event) };
        check(result, "change the epoll set").map(drop)
    }

    /// Waits up to `timeout_ms` and calls `ready` with the token of each socket that has something
    /// to tell.
    ///
    /// # Errors
    /// The kernel's; an interrupted wait is none.
    pub fn wait(&self, timeout_ms: i32, mut ready: impl FnMut(u64)) -> io::Result<()> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        // SAFETY: the kernel writes at most EVENTS_MAX events into the array.
        let count = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS_MAX as libc::c_int,
                timeout_ms,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            let interrupted = error.kind() == io::ErrorKind::Interrupted;
            return if interrupted { Ok(()) } else { Err(failed("wait for events", error)) };
        }
        for event in &events[..count as usize] {
            ready(event.u64);
        }
        Ok(())
    }
}

/// Begins to connect to `remote` and does not wait: the socket becomes writable when it is decided.
///
/// # Errors
/// No free port, too many open files, or an immediate refusal.
pub fn connect(remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(remote)?;
    let (address, len) = sockaddr(remote);
    // SAFETY: the address is read during the call, and as long as said.
    let result =
        unsafe { libc::connect(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if result != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(failed(format_args!("connect to {remote}"), error));
        }
    }
    Ok(TcpStream::from(socket))
}

/// Listens on `local`, next to other sockets that do so too; the kernel deals connections out among
/// them.
///
/// # Errors
/// The address or the port is not to be had.
pub fn listen(local: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(local)?;
    super::set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32)?;
    let (address, len) = sockaddr(local);
    // SAFETY: the address is read during the call, and as long as said.
    let result =
        unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    check(result, &format!("bind {local}"))?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) }, &format!("listen on {local}"))?;
    Ok(TcpListener::from(socket))
}

/// Makes the closing of `socket` a reset, with nothing sent after it (SO_LINGER of zero).
///
/// # Errors
/// Not a socket.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let fd = socket.as_fd().as_raw_fd();
    super::set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// A TCP socket of the address's family, whose calls do not wait.
fn socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(family, kind, 0) }, "open a TCP socket")?;
    // SAFETY: a descriptor just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The address as the kernel takes it, in room for either family, and its length in bytes. An IPv4
/// address is a prefix of that room: both families begin with the family and the port.
pub(super) fn sockaddr(address: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    // SAFETY: integers; zero is valid for each.
    let mut raw: libc::sockaddr_in6 = unsafe { zeroed() };
    raw.sin6_port = address.port().to_be();
    match address {
        SocketAddr::V4(address) => {
            raw.sin6_family = libc::AF_INET as libc::sa_family_t;
            // sockaddr_in has its address where sockaddr_in6 has the flow.
            raw.sin6_flowinfo = u32::from_ne_bytes(address.ip().octets());
            (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(address) => {
            raw.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            raw.sin6_addr.s6_addr = address.ip().octets();
            (raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

const _: () = assert!(
    std::mem::offset_of!(libc::sockaddr_in, sin_addr)
        == std::mem::offset_of!(libc::sockaddr_in6, sin6_flowinfo)
);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// A port of the loopback's in either family.
    fn local(family: &str) -> SocketAddr {
        format!("{family}:0").parse().unwrap()
    }

    #[test]
    fn a_connection_is_opened_written_to_and_closed_without_waiting() {
        for family in ["127.0.0.1", "[::1]"] {
            if std::net::TcpListener::bind(local(family)).is_err() {
                eprintln!("SKIPPED: {family} does not exist here");
                continue;
            }
            let listener = listen(local(family)).unwrap();
            let epoll = Epoll::new().unwrap();
            epoll.add(&listener, Interest::Readable, 1).unwrap();
            let mut client = connect(listener.local_addr().unwrap()).unwrap();
            epoll.add(&client, Interest::Writable, 2).unwrap();
            let mut seen = Vec::new();
            while !(seen.contains(&1) && seen.contains(&2)) {
                epoll.wait(1000, |token| seen.push(token)).unwrap();
            }
            let (mut server, _) = listener.accept().unwrap();
            server.set_nonblocking(true).unwrap();
            epoll.add(&server, Interest::Readable, 3).unwrap();
            client.write_all(b"hello").unwrap();
            drop(client);
            seen.clear();
            while !seen.contains(&3) {
                epoll.wait(1000, |token| seen.push(token)).unwrap();
            }
            let mut text = String::new();
            server.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    }

    #[test]
    fn a_refused_connect_is_told_of() {
        let gone = listen(local("127.0.0.1")).unwrap().local_addr().unwrap();
        let epoll = Epoll::new().unwrap();
        let client = connect(gone).unwrap();
        epoll.add(&client, Interest::Writable, 7).unwrap();
        let mut seen = Vec::new();
        while seen.is_empty() {
            epoll.wait(1000, |token| seen.push(token)).unwrap();
        }
        assert!(client.take_error().unwrap().is_some());
    }
}

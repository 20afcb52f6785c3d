//! The kernel's own TCP sockets by io_uring: what a connection does from its first operation to its
//! last is handed over as one chain, and the kernel goes through it alone. No descriptor and no
//! buffer is the caller's: sockets are places in the ring's own table, what is sent is filling, and
//! what is received nobody reads.

use super::epoll::sockaddr;
use io_uring::{IoUring, opcode, squeue, types};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::time::Duration;

/// Bytes that one [`Step`] can send or receive.
pub const BYTES_MAX: u32 = 64 * 1024;

/// Entries handed over at a time: when there are as many, they go.
const SUBMISSIONS: u32 = 1024;

/// Entries that can wait to be taken: one a connection and chain, and those that failed.
const COMPLETIONS: u32 = 4096;

static FILLING: [u8; BYTES_MAX as usize] = [b'x'; BYTES_MAX as usize];

/// What is done on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes a socket and connects it to the client's remote.
    Connect,
    /// Waits for a connection of the server's listener.
    Accept,
    /// Sends so many bytes.
    Send(u32),
    /// Receives so many bytes.
    Receive(u32),
    /// Waits until the peer has closed.
    AwaitClose,
}

/// What the `user_data` of a chain's last entry says beside the place.
const CLOSE: u64 = 1 << 32;

/// The chain of a place is done, and its socket closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub place: u32,
    /// The error number of the step that failed, or 0.
    pub error: i32,
}

/// A ring with a table of sockets. It belongs to the thread that makes it.
pub struct Uring {
    ring: IoUring,
    /// Where received bytes go, which the kernel may write to until the ring is gone, and after: it
    /// is never freed. A ring lasts as long as a measurement.
    scratch: *mut u8,
    remote: (Box<libc::sockaddr_in6>, libc::socklen_t),
    family: i32,
    listener: Option<TcpListener>,
    /// Error number of the step that failed, by place.
    failed: Vec<i32>,
}

impl Uring {
    /// A client of `remote`, with places for `sockets` connections.
    ///
    /// # Errors
    /// The kernel has no io_uring, forbids it, or is older than 6.1.
    pub fn client(remote: SocketAddr, sockets: u32) -> io::Result<Uring> {
        let attempt =
            |error| super::failed("make an io_uring (sysctl kernel.io_uring_disabled=0?)", error);
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(attempt)?;
        ring.submitter().register_files_sparse(sockets).map_err(attempt)?;
        let (address, len) = sockaddr(remote);
        Ok(Uring {
            ring,
            scratch: Box::leak(vec![0; BYTES_MAX as usize].into_boxed_slice()).as_mut_ptr(),
            remote: (Box::new(address), len),
            family: if remote.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 },
            listener: None,
            failed: vec![0; sockets as usize],
        })
    }

    /// A server behind `listener`, with places for `sockets` connections.
    ///
    /// # Errors
    /// As [`Uring::client`].
    pub fn server(listener: TcpListener, sockets: u32) -> io::Result<Uring> {
        let remote = listener.local_addr()?;
        Ok(Uring { listener: Some(listener), ..Uring::client(remote, sockets)? })
    }

    /// Hands over what is to be done on the connection in `place`, which is closed at the end.
    ///
    /// # Errors
    /// The kernel takes no more.
    ///
    /// # Panics
    /// If there is no such place, a step moves more than [`BYTES_MAX`], or a client accepts.
    pub fn chain(&mut self, place: u32, steps: &[Step]) -> io::Result<()> {
        self.failed[place as usize] = 0;
        let mut entries = Vec::with_capacity(steps.len() + 2);
        for step in steps {
            self.write(place, *step, &mut entries);
        }
        entries.push(close(place));
        self.push(&entries)
    }

    fn write(&self, place: u32, step: Step, entries: &mut Vec<squeue::Entry>) {
        let quiet = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let mut link =
            |entry: squeue::Entry| entries.push(entry.flags(quiet).user_data(u64::from(place)));
        let socket = types::Fixed(place);
        let slot = types::DestinationSlot::try_from_slot_target(place).ok();
        let bytes = |bytes: u32| {
            assert!(bytes <= BYTES_MAX, "{bytes} bytes in one step");
            bytes
        };
        match step {
            Step::Accept => {
                let listener = self.listener.as_ref().expect("a server accepts");
                let listener = types::Fd(listener.as_raw_fd());
                let accept = opcode::Accept::new(listener, null_mut(), null_mut());
                link(accept.file_index(slot).build());
            }
            Step::Connect => {
                let make = opcode::Socket::new(self.family, libc::SOCK_STREAM, 0);
                link(make.file_index(slot).build());
                let address = std::ptr::from_ref(&*self.remote.0).cast();
                link(opcode::Connect::new(socket, address, self.remote.1).build());
            }
            Step::Send(len) => {
                let send = opcode::Send::new(socket, FILLING.as_ptr(), bytes(len));
                link(send.flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build());
            }
            Step::Receive(len) => {
                let receive = opcode::Recv::new(socket, self.scratch, bytes(len));
                link(receive.flags(libc::MSG_WAITALL).build());
            }
            Step::AwaitClose => link(opcode::Recv::new(socket, self.scratch, 1).build()),
        }
    }

    fn push(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        loop {
            // SAFETY: what entries point to outlives them: the filling is static, the scratch never
            // freed, and of the remote the kernel has a copy once an entry is submitted
            // (IORING_FEAT_SUBMIT_STABLE). Nothing else of the process reads or writes the scratch.
            if unsafe { self.ring.submission().push_multiple(entries) }.is_ok() {
                return Ok(());
            }
            self.ring.submit().map_err(|error| super::failed("submit to an io_uring", error))?;
        }
    }

    /// Hands over what is to be done, waits up to `timeout` for a chain to be done, and tells all
    /// that are.
    ///
    /// # Errors
    /// The kernel's, of the ring; an interrupted wait is none.
    pub fn wait(&mut self, timeout: Duration, mut tell: impl FnMut(Ended)) -> io::Result<()> {
        let timeout = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
            Err(error) => return Err(super::failed("wait for an io_uring", error)),
        }
        let mut broken = Vec::new();
        for entry in self.ring.completion() {
            let (place, result) = (entry.user_data() as u32, entry.result());
            if entry.user_data() & CLOSE != 0 {
                tell(Ended { place, error: self.failed[place as usize] });
                continue;
            }
            // The rest of its chain is dropped without a word, for it was to be quiet. A step that
            // moved fewer bytes than it was to has failed as well.
            self.failed[place as usize] = if result < 0 { -result } else { libc::EPIPE };
            broken.push(place);
        }
        broken.into_iter().try_for_each(|place| self.push(&[close(place)]))
    }
}

fn close(place: u32) -> squeue::Entry {
    opcode::Close::new(types::Fixed(place)).build().user_data(CLOSE | u64::from(place))
}

#[cfg(test)]
mod tests {
    use super::super::epoll::listen;
    use super::*;

    /// A client with so many places and its server with 64; none where the kernel forbids them.
    fn pair(sockets: u32) -> Option<(Uring, Uring)> {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let remote = listener.local_addr().unwrap();
        let server = match Uring::server(listener, 64) {
            Ok(server) => server,
            Err(error) => {
                eprintln!("SKIPPED: {error}");
                return None;
            }
        };
        Some((Uring::client(remote, sockets).unwrap(), server))
    }

    /// Both rings in turn, on one thread, until as many chains have ended at either end: their
    /// error numbers.
    fn ends(client: &mut Uring, server: &mut Uring, count: usize) -> [Vec<i32>; 2] {
        let mut ends = [Vec::new(), Vec::new()];
        while ends.iter().any(|ends| ends.len() < count) {
            for (which, uring) in [&mut *client, &mut *server].into_iter().enumerate() {
                let wait = Duration::from_millis(1);
                uring.wait(wait, |ended| ends[which].push(ended.error)).unwrap();
            }
        }
        ends
    }

    #[test]
    fn chains_on_many_sockets_end_well_at_both_ends() {
        let Some((mut client, mut server)) = pair(8) else { return };
        for place in 0..8 {
            let steps = [Step::Accept, Step::Receive(100), Step::Send(BYTES_MAX), Step::AwaitClose];
            server.chain(place, &steps).unwrap();
            let steps = [Step::Connect, Step::Send(100), Step::Receive(BYTES_MAX)];
            client.chain(place, &steps).unwrap();
        }
        assert_eq!(ends(&mut client, &mut server, 8), [vec![0; 8], vec![0; 8]]);
    }

    #[test]
    fn a_step_that_fails_ends_its_chain_by_its_error_and_frees_the_place() {
        let Some((mut client, mut server)) = pair(1) else { return };
        // The server closes before all has come.
        client.chain(0, &[Step::Connect, Step::Receive(100)]).unwrap();
        server.chain(0, &[Step::Accept, Step::Send(10)]).unwrap();
        assert_eq!(ends(&mut client, &mut server, 1), [vec![libc::EPIPE], vec![0]]);
        drop(server);
        client.chain(0, &[Step::Connect]).unwrap();
        let mut seen = Vec::new();
        while seen.is_empty() {
            client.wait(Duration::from_secs(1), |ended| seen.push(ended)).unwrap();
        }
        assert_eq!(seen, [Ended { place: 0, error: libc::ECONNREFUSED }]);
    }
}

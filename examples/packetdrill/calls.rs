//! What each call on a socket does, with Linux's `errno` values. A call that may wait answers
//! `Pending` while it would; whether it then waits is for `blocking`.

use crate::address::{self, Domain};
use crate::blocking::{Entry, World};
use crate::socket::{Id, Phase, Socket};
use crate::{Errno, Outcome};
use shakedown::app::{Conn, Refusal};
use shakedown::engine::Listener;
use shakedown::flow::Endpoints;
use shakedown::time::Instant;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::task::Poll::{self, Pending, Ready};

/// Which half of a connection a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Receive,
    Send,
}

impl World {
    /// # Errors
    /// `EMFILE` if no placeholder can be opened.
    pub fn install(&mut self, entry: Entry) -> Outcome<i32> {
        let file = File::open("/dev/null").map_err(|_| Errno(libc::EMFILE))?;
        let fd = file.as_raw_fd();
        self.entries.insert(fd, (entry, file));
        Ok(fd)
    }

    pub fn open(&mut self, domain: i32, kind: i32, protocol: i32) -> Outcome<i32> {
        let domain = Domain::parse(domain).ok_or(Errno(libc::EAFNOSUPPORT))?;
        let bare = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        if bare != libc::SOCK_STREAM || ![0, libc::IPPROTO_TCP].contains(&protocol) {
            return Err(Errno(libc::EPROTONOSUPPORT));
        }
        let id = self.net.engine.app.open(domain);
        self.socket(id).nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        self.install(Entry::Socket(id))
    }

    /// The socket of a descriptor.
    pub fn id(&self, fd: i32) -> Outcome<u32> {
        match self.entries.get(&fd) {
            Some((Entry::Socket(id), _)) => Ok(*id),
            Some((Entry::Epoll(_), _)) => Err(Errno(libc::ENOTSOCK)),
            None => Err(Errno(libc::EBADF)),
        }
    }

    pub fn socket(&mut self, id: u32) -> &mut Socket {
        self.net.engine.app.of(id)
    }

    /// When a call on `fd` gives up; `None` if it does not wait at all.
    pub fn patience(&self, fd: i32, half: Half, flags: i32) -> Option<Instant> {
        let socket = self.net.engine.app.all.get(&self.id(fd).ok()?)?;
        if socket.nonblocking || flags & libc::MSG_DONTWAIT != 0 {
            return None;
        }
        let timeout = match half {
            Half::Receive => socket.settings.receive_timeout,
            Half::Send => socket.settings.send_timeout,
        };
        Some(timeout.map_or(Instant::NEVER, |timeout| self.net.now + timeout))
    }

    pub fn bind(&mut self, fd: i32, address: Option<SocketAddr>) -> Outcome<()> {
        let id = self.id(fd)?;
        let mut address = address.ok_or(Errno(libc::EINVAL))?;
        if self.socket(id).bound.is_some() || self.socket(id).phase != Phase::Idle {
            return Err(Errno(libc::EINVAL));
        }
        if !address.ip().is_unspecified() && !self.net.is_ours(address.ip()) {
            return Err(Errno(libc::EADDRNOTAVAIL));
        }
        if address.port() == 0 {
            address.set_port(self.free_port().ok_or(Errno(libc::EADDRINUSE))?);
        } else if self.conflicts(id, address.port()) {
            return Err(Errno(libc::EADDRINUSE));
        }
        self.socket(id).bound = Some(address);
        Ok(())
    }

    /// True if another socket keeps `id` from the port: both must say that they share it, and no
    /// other may listen.
    fn conflicts(&mut self, id: u32, port: u16) -> bool {
        let mine = self.socket(id).settings;
        self.net.engine.app.all.iter().any(|(other, socket)| {
            let theirs = socket.settings;
            let shared = (mine.reuse_port && theirs.reuse_port)
                || (mine.reuse_address
                    && theirs.reuse_address
                    && !matches!(socket.phase, Phase::Listening { .. }));
            *other != id && socket.bound.is_some_and(|bound| bound.port() == port) && !shared
        })
    }

    fn free_port(&mut self) -> Option<u16> {
        let bound = self.net.engine.app.all.values().filter_map(|socket| socket.bound);
        let taken: Vec<u16> = bound.map(|address| address.port()).collect();
        self.net.ephemeral_port(|port| taken.contains(&port))
    }

    pub fn listen(&mut self, fd: i32, backlog: i32) -> Outcome<()> {
        let id = self.id(fd)?;
        let keep = backlog.max(0) as usize;
        match &mut self.socket(id).phase {
            Phase::Listening { backlog, .. } => {
                *backlog = keep;
                return Ok(());
            }
            Phase::Idle => {}
            Phase::Connecting | Phase::Connected { .. } | Phase::Over => {
                return Err(Errno(libc::EINVAL));
            }
        }
        let port = match self.socket(id).bound {
            Some(bound) => bound.port(),
            None => self.free_port().ok_or(Errno(libc::EADDRINUSE))?,
        };
        let keepalive = self.socket(id).settings.keepalive;
        let place = self.net.engine.listen(Listener { port, keepalive });
        let place = place.ok_or(Errno(libc::EADDRINUSE))?;
        let socket = self.socket(id);
        let pending = Default::default();
        socket.phase = Phase::Listening { place, backlog: keep, pending };
        if socket.bound.is_none() {
            let unspecified = std::net::Ipv6Addr::UNSPECIFIED;
            socket.bound = Some(SocketAddr::new(unspecified.into(), port));
        }
        Ok(())
    }

    /// Answers the new descriptor and its peer.
    pub fn accept(&mut self, fd: i32) -> Poll<Outcome<(i32, Option<SocketAddr>)>> {
        let id = match self.id(fd) {
            Ok(id) => id,
            Err(why) => return Ready(Err(why)),
        };
        let Phase::Listening { pending, .. } = &mut self.socket(id).phase else {
            return Ready(Err(Errno(libc::EINVAL)));
        };
        let Some(child) = pending.pop_front() else { return Pending };
        let peer = self.socket(child).ends.map(|ends| ends.remote);
        Ready(self.install(Entry::Socket(child)).map(|fd| (fd, peer)))
    }

    /// The address of a socket's peer as the socket gives it.
    pub fn sockaddr(&mut self, fd: i32, peer: SocketAddr) -> Vec<u8> {
        let domain = self.id(fd).map_or(Domain::V4, |id| self.socket(id).domain);
        address::emit(peer, domain)
    }

    /// `started` is the call's own: whether it was this one that sent the SYN.
    pub fn connect(
        &mut self,
        fd: i32,
        remote: Option<SocketAddr>,
        started: &mut bool,
    ) -> Poll<Outcome<()>> {
        let id = match self.id(fd) {
            Ok(id) => id,
            Err(why) => return Ready(Err(why)),
        };
        let socket = self.socket(id);
        match &mut socket.phase {
            Phase::Idle => {
                *started = true;
                let Some(remote) = remote else { return Ready(Err(Errno(libc::EINVAL))) };
                match self.start(id, remote) {
                    Ok(()) => Pending,
                    Err(why) => Ready(Err(why)),
                }
            }
            Phase::Connecting if *started || !socket.nonblocking => Pending,
            Phase::Connecting => Ready(Err(Errno(libc::EALREADY))),
            Phase::Connected { told } => match std::mem::replace(told, true) {
                true => Ready(Err(Errno(libc::EISCONN))),
                false => Ready(Ok(())),
            },
            Phase::Listening { .. } => Ready(Err(Errno(libc::EISCONN))),
            Phase::Over if socket.established && *started => Ready(Ok(())),
            Phase::Over if socket.established => Ready(Err(Errno(libc::EISCONN))),
            Phase::Over => {
                let why = socket.error.take().unwrap_or(libc::ECONNABORTED);
                socket.start_again();
                Ready(Err(Errno(why)))
            }
        }
    }

    fn start(&mut self, id: u32, remote: SocketAddr) -> Outcome<()> {
        let bound = self.socket(id).bound;
        let port = match bound {
            Some(bound) => bound.port(),
            None => self.free_port().ok_or(Errno(libc::EADDRNOTAVAIL))?,
        };
        let given = bound.map(|bound| bound.ip()).filter(|ip| !ip.is_unspecified());
        let ip = given.or_else(|| self.net.address_towards(remote.ip()));
        let ip = ip.ok_or(Errno(libc::ENETUNREACH))?;
        if ip.is_ipv4() != remote.is_ipv4() {
            return Err(Errno(libc::EAFNOSUPPORT));
        }
        let ends = Endpoints { local: SocketAddr::new(ip, port), remote };
        let now = self.net.now;
        self.net.engine.connect(now, &ends, Some(id)).map_err(|why| match why {
            Refusal::NoTuple => Errno(libc::EADDRNOTAVAIL),
            Refusal::TableFull => Errno(libc::ENOBUFS),
            Refusal::NotAHost => Errno(libc::ENETUNREACH),
        })?;
        let socket = self.socket(id);
        socket.bound = Some(ends.local);
        socket.ends = Some(ends);
        socket.phase = Phase::Connecting;
        Ok(())
    }

    /// Takes up to `len` bytes, or looks at them with `MSG_PEEK`.
    pub fn receive(&mut self, fd: i32, len: usize, flags: i32) -> Poll<Outcome<Vec<u8>>> {
        let id = match self.id(fd) {
            Ok(id) => id,
            Err(why) => return Ready(Err(why)),
        };
        let socket = self.socket(id);
        match socket.phase {
            Phase::Idle | Phase::Listening { .. } => return Ready(Err(Errno(libc::ENOTCONN))),
            Phase::Connecting | Phase::Connected { .. } | Phase::Over => {}
        }
        if flags & libc::MSG_OOB != 0 {
            // Urgent data stays in the stream, as RFC 6093 s6 asks for.
            return Ready(Err(Errno(libc::EINVAL)));
        }
        let count = len.min(socket.received.len());
        if count > 0 || len == 0 {
            if flags & libc::MSG_PEEK != 0 {
                return Ready(Ok(socket.received.range(..count).copied().collect()));
            }
            let bytes = socket.received.drain(..count).collect();
            // The window may be opened.
            self.mark(id, |_| {});
            return Ready(Ok(bytes));
        }
        if socket.peer_closed || socket.shut_receive {
            return Ready(Ok(Vec::new()));
        }
        match (socket.error.take(), &socket.phase) {
            (Some(why), _) => Ready(Err(Errno(why))),
            (None, Phase::Over) => Ready(Ok(Vec::new())),
            (None, _) => Pending,
        }
    }

    /// Writes what there is room for; `done` counts what this call has written so far.
    pub fn transmit(&mut self, fd: i32, data: &[u8], done: &mut usize) -> Poll<Outcome<usize>> {
        let id = match self.id(fd) {
            Ok(id) => id,
            Err(why) => return Ready(Err(why)),
        };
        let socket = self.socket(id);
        if let Some(why) = socket.error.take_if(|_| *done == 0) {
            return Ready(Err(Errno(why)));
        }
        let open = match socket.phase {
            Phase::Connecting => return Pending,
            Phase::Connected { .. } => !socket.shut_send,
            Phase::Idle | Phase::Listening { .. } | Phase::Over => false,
        };
        if !open {
            return Ready(if *done > 0 { Ok(*done) } else { Err(Errno(libc::EPIPE)) });
        }
        let count = socket.send_room().min(data.len() - *done);
        socket.sent.extend(&data[*done..*done + count]);
        *done += count;
        self.mark(id, |conn| conn.send(count as u64));
        if *done == data.len() { Ready(Ok(*done)) } else { Pending }
    }

    pub fn shutdown(&mut self, fd: i32, how: i32) -> Outcome<()> {
        let id = self.id(fd)?;
        let (receive, send) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Errno(libc::EINVAL)),
        };
        let socket = self.socket(id);
        match socket.phase {
            Phase::Idle | Phase::Over => return Err(Errno(libc::ENOTCONN)),
            Phase::Listening { .. } => {
                if receive {
                    self.stop_listening(id);
                    self.socket(id).phase = Phase::Idle;
                }
                return Ok(());
            }
            // As Linux: the attempt is given up.
            Phase::Connecting => {
                self.mark(id, |conn| conn.close());
                return Ok(());
            }
            Phase::Connected { .. } => {}
        }
        socket.shut_receive |= receive;
        socket.activity += 1;
        if send && !std::mem::replace(&mut socket.shut_send, true) {
            self.mark(id, |conn| conn.close());
        }
        Ok(())
    }

    pub fn close(&mut self, fd: i32) -> Outcome<()> {
        let Some((entry, _file)) = self.entries.remove(&fd) else {
            return Err(Errno(libc::EBADF));
        };
        let Entry::Socket(id) = entry else { return Ok(()) };
        self.close_socket(id);
        Ok(())
    }

    fn close_socket(&mut self, id: u32) {
        let socket = self.socket(id);
        // RFC 9293 s3.6.1, SHLD-3: data is lost that was not read, and the peer is to know.
        let abort = !socket.received.is_empty() || socket.settings.linger == Some(0);
        let closed = std::mem::replace(&mut socket.shut_send, true);
        match socket.phase {
            Phase::Listening { .. } => self.stop_listening(id),
            Phase::Connecting => self.mark(id, |conn| conn.close()),
            Phase::Connected { .. } if abort => self.mark(id, |conn| conn.abort()),
            Phase::Connected { .. } if !closed => self.mark(id, |conn| conn.close()),
            Phase::Connected { .. } | Phase::Idle | Phase::Over => {}
        }
        self.net.engine.app.let_go(id);
    }

    /// Connections that nobody has accepted are reset, as on Linux.
    fn stop_listening(&mut self, id: u32) {
        let socket = self.socket(id);
        let port = socket.bound.map(|bound| bound.port());
        let Phase::Listening { pending, .. } = &mut socket.phase else { return };
        let pending = std::mem::take(pending);
        for child in pending {
            self.mark(child, |conn| conn.abort());
            self.net.engine.app.let_go(child);
        }
        if let Some(port) = port {
            self.net.engine.unlisten(port);
        }
    }

    /// Marks something on the connection of a socket, if it still has one.
    pub fn mark(&mut self, id: u32, act: impl FnOnce(&mut Conn<'_, Id>)) {
        let now = self.net.now;
        let Some(ends) = self.socket(id).ends else { return };
        self.net.engine.prod(now, &ends, |_, conn| {
            if *conn.state == Some(id) {
                act(conn);
            }
        });
    }
}

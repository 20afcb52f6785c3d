//! getsockopt, setsockopt, fcntl and ioctl. Options that the engine has no use for are unknown
//! (`ENOPROTOOPT`) instead of accepted and ignored.

use crate::blocking::World;
use crate::socket::Phase;
use crate::{Errno, Outcome};
use shakedown::tcp::{Keepalive, State};
use shakedown::time::Span;

/// `TCP_INFO` is a `struct tcp_info`, of which the state is the first byte.
const TCP_INFO_BYTES: usize = 104;

/// Linux's `SIOCINQ` and `SIOCOUTQ` for sockets.
const SIOCINQ: u64 = 0x541b;
const SIOCOUTQ: u64 = 0x5411;

impl World {
    /// The option's value as the kernel lays it out.
    pub fn option(&mut self, fd: i32, level: i32, name: i32) -> Outcome<Vec<u8>> {
        let id = self.id(fd)?;
        let state = self.state(id);
        let socket = self.socket(id);
        let settings = socket.settings;
        let keepalive = settings.keepalive_when_on;
        let number = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => socket.error.take().unwrap_or(0),
            (libc::SOL_SOCKET, libc::SO_TYPE) => libc::SOCK_STREAM,
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => libc::IPPROTO_TCP,
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => socket.domain.number(),
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => {
                i32::from(matches!(socket.phase, Phase::Listening { .. }))
            }
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => i32::from(settings.reuse_address),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => i32::from(settings.reuse_port),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => i32::from(settings.keepalive.is_some()),
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => settings.receive_buffer_bytes as i32,
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => settings.send_buffer_bytes as i32,
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let on = i32::from(settings.linger.is_some());
                let seconds = settings.linger.unwrap_or(0);
                return Ok([on.to_ne_bytes(), seconds.to_ne_bytes()].concat());
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => return Ok(timeval(settings.receive_timeout)),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => return Ok(timeval(settings.send_timeout)),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => i32::from(settings.no_delay),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => seconds(keepalive.idle),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => seconds(keepalive.interval),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => i32::from(keepalive.probes),
            (libc::IPPROTO_TCP, libc::TCP_INFO) => {
                let mut info = vec![0; TCP_INFO_BYTES];
                info[0] = linux_state(state);
                return Ok(info);
            }
            _ => return Err(Errno(libc::ENOPROTOOPT)),
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    pub fn set_option(&mut self, fd: i32, level: i32, name: i32, value: &[u8]) -> Outcome<()> {
        let id = self.id(fd)?;
        let first = value.first_chunk().ok_or(Errno(libc::EINVAL))?;
        let number = i32::from_ne_bytes(*first);
        let settings = &mut self.socket(id).settings;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => settings.reuse_address = number != 0,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => settings.reuse_port = number != 0,
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => {
                settings.keepalive = (number != 0).then_some(settings.keepalive_when_on);
            }
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
                settings.receive_buffer_bytes = positive(number)? as u32;
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
                settings.send_buffer_bytes = positive(number)? as u32;
            }
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let seconds = value.get(4..).and_then(|rest| rest.first_chunk());
                let seconds = seconds.ok_or(Errno(libc::EINVAL))?;
                settings.linger = (number != 0).then_some(i32::from_ne_bytes(*seconds));
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => settings.receive_timeout = span(value)?,
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => settings.send_timeout = span(value)?,
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => settings.no_delay = number != 0,
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => {
                let idle = Span::from_secs(positive(number)?);
                settings.keepalive_when_on.idle = idle;
            }
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => {
                let interval = Span::from_secs(positive(number)?);
                settings.keepalive_when_on.interval = interval;
            }
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => {
                let probes = u8::try_from(positive(number)?).map_err(|_| Errno(libc::EINVAL))?;
                settings.keepalive_when_on = Keepalive { probes, ..settings.keepalive_when_on };
            }
            _ => return Err(Errno(libc::ENOPROTOOPT)),
        }
        settings.keepalive = settings.keepalive.map(|_| settings.keepalive_when_on);
        // A deadline may have come closer, or the window may be opened.
        self.mark(id, |_| {});
        Ok(())
    }

    pub fn fcntl(&mut self, fd: i32, command: i32, argument: i32) -> Outcome<i32> {
        let id = self.id(fd)?;
        let socket = self.socket(id);
        match command {
            libc::F_GETFL if socket.nonblocking => Ok(libc::O_RDWR | libc::O_NONBLOCK),
            libc::F_GETFL => Ok(libc::O_RDWR),
            libc::F_SETFL => {
                socket.nonblocking = argument & libc::O_NONBLOCK != 0;
                Ok(0)
            }
            libc::F_GETFD | libc::F_SETFD => Ok(0),
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// The number that the request asks for.
    pub fn ioctl(&mut self, fd: i32, request: u64) -> Outcome<i32> {
        let id = self.id(fd)?;
        let socket = self.socket(id);
        let bytes = match request {
            _ if matches!(socket.phase, Phase::Listening { .. }) => {
                return Err(Errno(libc::EINVAL));
            }
            SIOCINQ => socket.received.len(),
            SIOCOUTQ => socket.sent.len(),
            _ => return Err(Errno(libc::ENOTTY)),
        };
        Ok(bytes as i32)
    }

    fn state(&mut self, id: u32) -> State {
        let socket = self.socket(id);
        match (&socket.phase, socket.ends) {
            (Phase::Listening { .. }, _) => State::Listen,
            (Phase::Connecting | Phase::Connected { .. }, Some(ends)) => {
                self.net.engine.state_of(&ends)
            }
            _ => State::Closed,
        }
    }
}

/// Linux's number of a state.
fn linux_state(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Closed => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Listen => 10,
        State::Closing => 11,
    }
}

fn positive(number: i32) -> Outcome<u64> {
    match u64::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Errno(libc::EINVAL)),
    }
}

fn seconds(span: Span) -> i32 {
    (span.as_millis() / 1000) as i32
}

/// A `struct timeval`; zero for no timeout.
fn timeval(span: Option<Span>) -> Vec<u8> {
    let micros = span.map_or(0, |span| span.as_micros()) as i64;
    [(micros / 1_000_000).to_ne_bytes(), (micros % 1_000_000).to_ne_bytes()].concat()
}

fn span(timeval: &[u8]) -> Outcome<Option<Span>> {
    let word = |at: usize| timeval.get(at..).and_then(|rest| rest.first_chunk());
    let (Some(seconds), Some(micros)) = (word(0), word(8)) else {
        return Err(Errno(libc::EINVAL));
    };
    let (seconds, micros) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*micros));
    let (Ok(seconds), Ok(micros)) = (u64::try_from(seconds), u64::try_from(micros)) else {
        return Err(Errno(libc::EDOM));
    };
    let span = Span::from_secs(seconds) + Span::from_micros(micros);
    Ok((span != Span::ZERO).then_some(span))
}

//! Honest clients: HTTP requests over the kernel's sockets at a fixed rate, one a connection.

use shakedown::stats::Histogram;
use shakedown::sys::epoll::{Epoll, Interest, connect};
use shakedown::time::Span;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// As long as a person waits, or two SYNs sent again.
const PATIENCE: Duration = Duration::from_secs(4);

const WAIT_MS: i32 = 1;

/// What became of the connections.
pub struct Honest {
    pub tried: u64,
    /// With a whole response, to its end.
    pub served: u64,
    pub refused: u64,
    pub timed_out: u64,
    /// From when a connection was due to the end of its response; of those that had none, nothing.
    pub times: Histogram,
}

struct Client {
    stream: TcpStream,
    due: Instant,
    asked: bool,
    received: bool,
}

/// Connects `rate` times a second for `span`, then waits for what is open.
///
/// # Errors
/// The set of sockets can't be had.
pub fn drive(server: SocketAddrV4, rate: u32, span: Duration) -> io::Result<Honest> {
    let epoll = Epoll::new()?;
    let mut open: Vec<Option<Client>> = Vec::new();
    let (mut free, mut ready) = (Vec::new(), Vec::new());
    let mut found =
        Honest { tried: 0, served: 0, refused: 0, timed_out: 0, times: Histogram::new() };
    let (started, gap) = (Instant::now(), Duration::from_secs(1) / rate);
    let (mut due, mut swept) = (started, started);
    loop {
        let now = Instant::now();
        while due <= now && due < started + span {
            found.tried += 1;
            let place = free.pop().unwrap_or_else(|| {
                open.push(None);
                open.len() - 1
            });
            match connect(server.into()) {
                Ok(stream) => {
                    epoll.add(&stream, Interest::Writable, place as u64)?;
                    open[place] = Some(Client { stream, due, asked: false, received: false });
                }
                Err(_) => {
                    found.refused += 1;
                    free.push(place);
                }
            }
            due += gap;
        }
        if now >= swept + PATIENCE / 40 {
            swept = now;
            for (place, slot) in open.iter_mut().enumerate() {
                if slot.as_ref().is_some_and(|client| now - client.due > PATIENCE) {
                    *slot = None;
                    free.push(place);
                    found.timed_out += 1;
                }
            }
        }
        if due >= started + span && free.len() == open.len() {
            return Ok(found);
        }
        epoll.wait(WAIT_MS, |token| ready.push(token as usize))?;
        for place in ready.drain(..) {
            let Some(client) = &mut open[place] else { continue };
            let done = match client.go_on(&epoll, place) {
                Ok(done) => done,
                Err(_) => {
                    found.refused += 1;
                    open[place] = None;
                    free.push(place);
                    continue;
                }
            };
            if done {
                found.served += 1;
                found.times.record(Span::from_nanos(client.due.elapsed().as_nanos() as u64));
                open[place] = None;
                free.push(place);
            }
        }
    }
}

impl Client {
    /// True when the response is whole, and the server has closed.
    fn go_on(&mut self, epoll: &Epoll, place: usize) -> io::Result<bool> {
        if !self.asked {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
            self.asked = true;
            epoll.change(&self.stream, Interest::Readable, place as u64)?;
            return Ok(false);
        }
        let mut buffer = [0; 16_384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) if self.received => return Ok(true),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.received = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

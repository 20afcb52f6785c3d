//! One queue of an interface: its AF_XDP socket, and who runs its receive loop.

use super::fragments::{CHUNK_BYTES_MAX, Fragments};
use super::{Counts, Mode, Options, Program, RESERVE_FRAMES, Sums, frames_for};
use crate::frame::{BURST_FRAMES_MAX, Burst, Frame, Pool};
use crate::sys::bpf::Hook;
use crate::sys::napi::{self, Helper};
use crate::sys::net::Interface;
use crate::sys::netdev;
use crate::sys::socket::{Socket, Statistics, Way};
use std::io;
use std::os::fd::AsFd;

/// Completions taken back in a turn. More than a burst, so that a backlog shrinks.
const COMPLETIONS_MAX: u32 = 4 * BURST_FRAMES_MAX as u32;

/// A helper that has heard no hello looks for one each time this many turns went by without a
/// frame.
const DEAF_TURNS: u32 = 4096;

pub(super) struct Queue {
    id: u32,
    socket: Socket,
    poller: Poller,
    /// Where packets may be longer than a chunk that the socket takes.
    fragments: Option<Fragments>,
}

/// Who runs the queue's receive loop.
enum Poller {
    Kernel,
    /// We, through the AF_XDP socket.
    Socket,
    /// We, through a helper.
    Helper {
        helper: Helper,
        deaf_turns: u32,
        hello_due: bool,
    },
}

impl Queue {
    pub fn open(program: &Program, id: u32, options: &Options, pool: &Pool) -> io::Result<Queue> {
        let interface = &program.interface;
        if id >= interface.queues {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "queue {id} of {name} does not exist: it has {count} (0-{last}); \
                     `ethtool -L {name} combined N` gives it more, a veth gets them when made \
                     (`numrxqueues N numtxqueues N`)",
                    name = interface.name,
                    count = interface.queues,
                    last = interface.queues - 1,
                ),
            ));
        }
        let &Options { ring_frames, busy_poll, sums } = options;
        let fragments = match pool.umem().chunk_bytes() > CHUNK_BYTES_MAX {
            true => Some(Fragments::new(frames_for(1, ring_frames))?),
            false => None,
        };
        let umem = fragments.as_ref().map_or(pool, |fragments| &fragments.pool).umem();
        let attempt = |zero_copy, sums| {
            let way = Way { zero_copy, fragments: fragments.is_some(), sums };
            Socket::bind(umem, interface.index, id, way, ring_frames)
        };
        let bind = |zero_copy| {
            let driver_sums = || zero_copy && netdev::sums(interface.index).unwrap_or(false);
            match sums {
                Sums::Device if zero_copy && !driver_sums() => Err(no_sums(interface)),
                Sums::Device => attempt(zero_copy, true),
                Sums::Auto if driver_sums() => {
                    attempt(zero_copy, true).or_else(|_| attempt(zero_copy, false))
                }
                Sums::Auto | Sums::Ours => attempt(zero_copy, false),
            }
            .map_err(|error| explain_queue(interface, id, error))
        };
        let socket = match (program.mode, program.hook) {
            (Mode::ZeroCopy, _) => bind(true)?,
            (Mode::Auto, Hook::Native) => match bind(true) {
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => bind(false)?,
                result => result?,
            },
            (Mode::Auto | Mode::Copy | Mode::Skb, _) => bind(false)?,
        };
        let poller = if !busy_poll {
            Poller::Kernel
        } else if interface.driver == "veth" {
            let helper = Helper::bind(&interface.name, id)?;
            Poller::Helper { helper, deaf_turns: 0, hello_due: true }
        } else {
            napi::prefer_busy_poll(socket.as_fd())?;
            Poller::Socket
        };
        program.program.give_socket(id, &socket)?;
        Ok(Queue { id, socket, poller, fragments })
    }

    /// Fills the fill ring for the first time.
    pub fn start(&mut self, pool: &mut Pool) {
        while self.fill(pool) > 0 {}
        if self.socket.needs_wake() {
            self.socket.wake();
        }
    }

    /// Tops up the fill ring, then takes what has arrived; if nothing has, runs the receive loop.
    pub fn rx(&mut self, pool: &mut Pool, rx: &mut Burst, counts: &mut Counts) {
        self.fill(pool);
        let before = rx.len();
        self.receive(pool, rx);
        if rx.len() == before && rx.room() > 0 {
            self.poll(counts);
            self.receive(pool, rx);
        }
    }

    /// Takes back what was sent, sends from `tx` what fits, and kicks the kernel if it asks for it.
    pub fn tx(&mut self, mac: &[u8; 6], pool: &mut Pool, tx: &mut Burst, counts: &mut Counts) {
        let own = lender(&mut self.fragments, pool);
        self.socket.complete(COMPLETIONS_MAX, |frame| own.put(frame));
        if let Poller::Helper { hello_due: true, .. } = self.poller {
            self.greet(mac, pool);
        }
        self.send(pool, tx);
        if self.socket.needs_kick() {
            counts.tx_kicks += 1;
            counts.tx_kicks_again += u64::from(!self.socket.kick());
        }
    }

    pub fn busy_polls(&self) -> bool {
        match &self.poller {
            Poller::Kernel => false,
            Poller::Socket => true,
            Poller::Helper { helper, .. } => helper.awake(),
        }
    }

    pub fn zero_copy(&self) -> bool {
        self.socket.zero_copy()
    }

    pub fn sums(&self) -> bool {
        self.socket.sums()
    }

    pub fn lent(&self) -> usize {
        match &self.fragments {
            Some(fragments) => fragments.lent(),
            None => self.socket.lent() as usize,
        }
    }

    /// Received packets that were longer than a frame.
    pub fn too_long(&self) -> u64 {
        self.fragments.as_ref().map_or(0, |fragments| fragments.too_long)
    }

    pub fn statistics(&self) -> Statistics {
        self.socket.statistics()
    }

    /// Lends what the fill ring takes, at most a burst; how many frames.
    fn fill(&mut self, pool: &mut Pool) -> usize {
        let pool = lender(&mut self.fragments, pool);
        let spare = pool.len().saturating_sub(RESERVE_FRAMES).min(BURST_FRAMES_MAX);
        let count = spare.min(self.socket.fill_room(spare as u32) as usize);
        if count > 0 {
            self.socket.fill((0..count).map_while(|_| pool.take()));
        }
        count
    }

    fn receive(&mut self, pool: &mut Pool, rx: &mut Burst) {
        match &mut self.fragments {
            Some(fragments) => fragments.receive(&mut self.socket, pool, rx),
            None => self.socket.receive(rx.room() as u32, |frame, _| rx.push(frame)),
        }
    }

    fn send(&mut self, pool: &mut Pool, tx: &mut Burst) {
        if let Some(fragments) = &mut self.fragments {
            return fragments.send(&mut self.socket, pool, tx);
        }
        let count = tx.len().min(self.socket.send_room(tx.len() as u32) as usize);
        if count > 0 {
            self.socket.send(tx.drain(count).map(|frame| (frame, false)));
        }
    }

    /// Runs the queue's receive loop if that is our task, and wakes the driver if it asks for it.
    fn poll(&mut self, counts: &mut Counts) {
        match &mut self.poller {
            Poller::Kernel if self.socket.needs_wake() => {
                counts.rx_wakeups += 1;
                self.socket.wake();
            }
            Poller::Kernel => {}
            Poller::Socket => {
                counts.busy_polls += 1;
                self.socket.wake();
            }
            Poller::Helper { helper, .. } if helper.awake() => {
                counts.busy_polls += 1;
                helper.poll();
            }
            Poller::Helper { helper, deaf_turns, hello_due } => {
                *deaf_turns = deaf_turns.wrapping_add(1);
                if deaf_turns.is_multiple_of(DEAF_TURNS) {
                    counts.busy_polls += 1;
                    // The first hello heard is answered: the peer may have come after ours was
                    // sent.
                    *hello_due = helper.poll();
                }
            }
        }
    }

    /// Sends a hello on this queue, for the peer's helper.
    fn greet(&mut self, mac: &[u8; 6], pool: &mut Pool) {
        if self.socket.send_room(1) == 0 {
            return;
        }
        let Some(mut frame) = lender(&mut self.fragments, pool).take() else { return };
        write_hello(&mut frame, mac, napi::hello_port(self.id));
        self.socket.send(std::iter::once((frame, false)));
        if let Poller::Helper { hello_due, .. } = &mut self.poller {
            *hello_due = false;
        }
    }
}

/// Whose frames the socket is lent: the engine's, or those for fragments.
fn lender<'a>(fragments: &'a mut Option<Fragments>, pool: &'a mut Pool) -> &'a mut Pool {
    fragments.as_mut().map_or(pool, |fragments| &mut fragments.pool)
}

/// An empty UDP datagram from nowhere to everybody on the link (0.0.0.0 to 255.255.255.255, as DHCP
/// does), so that no end needs an address.
fn write_hello(frame: &mut Frame, mac: &[u8; 6], port: u16) {
    const IP_AND_UDP: [u8; 28] = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255,
        255, // IPv4, TTL 1
        0, 0, 0, 0, 0, 8, 0, 0, // UDP, no checksum
    ];
    frame.reset(14 + IP_AND_UDP.len());
    let bytes = frame.bytes_mut();
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(mac);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14..].copy_from_slice(&IP_AND_UDP);
    let words = IP_AND_UDP[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes[36..38].copy_from_slice(&port.to_be_bytes());
}

fn no_sums(interface: &Interface) -> io::Error {
    let text = format!(
        "the driver {} puts no checksums into what it does not copy: leave them to us, or copy",
        interface.driver
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// An error of binding, with what to do about it.
fn explain_queue(interface: &Interface, id: u32, error: io::Error) -> io::Error {
    let name = &interface.name;
    let hint = match error.kind() {
        io::ErrorKind::ResourceBusy => {
            ": another AF_XDP socket has it; stop that process or choose another queue"
        }
        io::ErrorKind::Unsupported => ": this driver can't do that; --mode auto takes what it can",
        io::ErrorKind::NetworkDown => ": the interface is down",
        _ => "",
    };
    io::Error::new(error.kind(), format!("queue {id} of {name}: {error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_a_valid_ipv4_datagram() {
        let mut pool = Pool::new(1).unwrap();
        let mut frame = pool.take().unwrap();
        write_hello(&mut frame, &[2, 0, 0, 0, 0, 1], 47_701);
        let bytes = frame.bytes();
        assert_eq!((bytes.len(), &bytes[..6]), (42, &[0xff; 6][..]));
        let words =
            bytes[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(bytes[36..38], 47_701u16.to_be_bytes());
        pool.put(frame);
    }
}

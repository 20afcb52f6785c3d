//! AF_XDP: frames of one or more queues of an interface, taken before the kernel's own stack sees them.
//!
//! A [`Program`] is attached once per interface and steers what is ours; an [`Xdp`] has the sockets of the queues that one
//! worker serves. Both are opened in the network namespace of the calling thread and may then move to any thread. While a
//! queue is open its frames that are ours come here and no others do; what the kernel gets goes on as ever.
//!
//! The order of attempts is: in the driver without copying, in the driver with a copy, on socket buffers. Which it got is
//! in the report. The fill ring is kept full first of all, because what finds it empty is lost; the kernel is kicked only
//! if it asks for it and frames wait.

use super::steering::Steering;
use super::{Device, Report};
use crate::frame::{BURST_FRAMES_MAX, Burst, Frame, Pool};
use crate::sys::bpf::{self, Hook};
use crate::sys::napi::{self, Helper};
use crate::sys::net::Interface;
use crate::sys::socket::Socket;
use crate::time::Instant;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

pub use crate::sys::napi::{Deferral, hello_port};

/// The steering program, built from `bpf/shakedown.bpf.c` by `scripts/bpf.sh`.
pub const OBJECT: &[u8] = include_bytes!("../../bpf/shakedown.bpf.o");

/// Frames left in the pool when the fill ring is topped up, so that answers can still be built: a burst being received
/// and a burst being sent.
const RESERVE_FRAMES: usize = 2 * BURST_FRAMES_MAX;

/// Completions taken back in a turn. More than a burst, so that a backlog shrinks.
const COMPLETIONS_MAX: u32 = 4 * BURST_FRAMES_MAX as u32;

/// A helper that has heard no hello looks for one each time this many turns went by without a frame.
const DEAF_TURNS: u32 = 4096;

/// How to reach the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The best there is.
    #[default]
    Auto,
    /// In the driver, without copying, or not at all.
    ZeroCopy,
    /// In the driver, with one copy, or not at all.
    Copy,
    /// On socket buffers, after the driver. Works with every driver; super-frames of a peer's TSO and our own GRO do not
    /// fit a frame and are dropped (`rx_dropped`): turn those off.
    Skb,
}

/// How the sockets of one worker are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Entries of each of the four rings, a power of two.
    pub ring_frames: u32,
    /// Run the queues' receive loop in the worker's own system calls instead of softirqs: see [`crate::sys::napi`].
    /// On a veth it takes effect when both ends do it. Goes with a [`Deferral`] of the interface.
    pub busy_poll: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { ring_frames: 2048, busy_poll: false }
    }
}

/// The steering program on one interface, shared by the sockets of all its queues. It is detached when it and the last
/// [`Xdp`] opened through it are dropped, or when the process ends, in whatever way.
pub struct Program {
    // Dropped first: no frame is redirected any more when the rest goes.
    _link: bpf::Link,
    program: bpf::Program,
    interface: Interface,
    mode: Mode,
    hook: Hook,
    fallback: Option<String>,
}

impl Program {
    /// Loads the steering program and attaches it to `interface`. Frames still go to the kernel until [`Xdp::open`].
    ///
    /// # Errors
    /// What was attempted and what to do: no such interface, it is down, an address of `steering.ours` belongs to the
    /// kernel, another program is attached, not permitted, a kernel that is too old, no native XDP in this driver (if
    /// `mode` asks for it).
    pub fn attach(interface: &str, steering: &Steering, mode: Mode) -> io::Result<Arc<Program>> {
        let interface = Interface::find(interface)?;
        let name = &interface.name;
        if !interface.up {
            let text = format!("{name} is down: `ip link set {name} up`");
            return Err(io::Error::new(io::ErrorKind::NetworkDown, text));
        }
        steering.check_against(name, &interface.addrs)?;
        let program = load(steering)?;
        let native = match mode {
            Mode::Auto | Mode::ZeroCopy | Mode::Copy => {
                program.attach(interface.index, Hook::Native)
            }
            Mode::Skb => Err(io::ErrorKind::Unsupported.into()),
        };
        let (link, hook, fallback) = match (native, mode) {
            (Ok(link), _) => (link, Hook::Native, None),
            (Err(error), Mode::ZeroCopy | Mode::Copy) => return Err(explain(&interface, error)),
            (Err(error), Mode::Auto | Mode::Skb) => {
                let link = program
                    .attach(interface.index, Hook::Generic)
                    .map_err(|error| explain(&interface, error))?;
                let why = (mode == Mode::Auto).then(|| error.to_string());
                (link, Hook::Generic, why)
            }
        };
        Ok(Arc::new(Program { _link: link, program, interface, mode, hook, fallback }))
    }

    /// The interface as it was when the program was attached.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Why the program runs on socket buffers although nobody asked for that; `None` if it does not.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }
}

/// The AF_XDP sockets of one worker.
pub struct Xdp {
    queues: Vec<Queue>,
    /// The queue that is served first in the next turn.
    turn: usize,
    counts: Counts,
    program: Arc<Program>,
}

struct Queue {
    id: u32,
    socket: Socket,
    poller: Poller,
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

#[derive(Default)]
struct Counts {
    tx_kicks: u64,
    tx_kicks_again: u64,
    rx_wakeups: u64,
    busy_polls: u64,
}

impl Xdp {
    /// Opens a socket on each of `queues` and fills it with frames of `pool`, which must be the pool that `rx` and `tx`
    /// are called with later; [`frames_for`] says how large it should be.
    ///
    /// # Errors
    /// What was attempted and what to do: no such queue, the queue is busy, memlock, no zero-copy here, not permitted.
    ///
    /// # Panics
    /// If `queues` is empty, or `ring_frames` is not a power of two.
    pub fn open(
        program: &Arc<Program>,
        queues: &[u32],
        options: &Options,
        pool: &mut Pool,
    ) -> io::Result<Xdp> {
        assert!(!queues.is_empty());
        let queues = queues
            .iter()
            .map(|&id| Queue::open(program, id, options, pool))
            .collect::<io::Result<Vec<Queue>>>()?;
        let counts = Counts::default();
        let mut xdp = Xdp { queues, turn: 0, counts, program: program.clone() };
        for queue in &mut xdp.queues {
            queue.fill(pool);
            if queue.socket.needs_wake() {
                queue.socket.wake();
            }
        }
        Ok(xdp)
    }

    /// True if every queue is polled by us: with helpers, once each has heard its peer.
    pub fn busy_polls(&self) -> bool {
        self.queues.iter().all(|queue| match &queue.poller {
            Poller::Kernel => false,
            Poller::Socket => true,
            Poller::Helper { helper, .. } => helper.awake(),
        })
    }

    fn mode(&self) -> &'static str {
        match self.program.hook {
            Hook::Generic => "skb",
            Hook::Native if self.queues.iter().all(|queue| queue.socket.zero_copy()) => "zerocopy",
            Hook::Native => "copy",
        }
    }
}

/// Loads the steering program without attaching it anywhere.
///
/// # Errors
/// More separate address ranges than it holds, not permitted, or a kernel that is too old.
pub fn load(steering: &Steering) -> io::Result<bpf::Program> {
    let tables = steering.tables()?;
    bpf::Program::load(OBJECT, &[(".rodata", &tables.config), (".bss", &tables.tables)])
}

/// Frames that one worker's pool needs so that `queues` queues with rings of `ring_frames` never run dry: all four rings
/// full, and a few bursts in hand.
pub fn frames_for(queues: usize, ring_frames: u32) -> u32 {
    queues as u32 * ring_frames * 4 + 2 * RESERVE_FRAMES as u32
}

impl Device for Xdp {
    fn rx(&mut self, _now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let count = self.queues.len();
        for place in 0..count {
            let queue = &mut self.queues[(self.turn + place) % count];
            let before = rx.len();
            queue.fill(pool);
            queue.receive(rx);
            if rx.len() == before && rx.room() > 0 {
                queue.poll(&mut self.counts);
                queue.receive(rx);
            }
        }
        self.turn = (self.turn + 1) % count;
    }

    fn tx(&mut self, _now: Instant, pool: &mut Pool, tx: &mut Burst) {
        for queue in &mut self.queues {
            queue.socket.complete(COMPLETIONS_MAX, |frame| pool.put(frame));
            if let Poller::Helper { hello_due: true, .. } = queue.poller {
                queue.greet(&self.program.interface.mac, pool);
            }
            // The first queue with room: a worker's own queue comes first in its list.
            let count = tx.len().min(queue.socket.send_room(tx.len() as u32) as usize);
            if count > 0 {
                queue.socket.send(tx.drain(count));
            }
            if queue.socket.needs_kick() {
                self.counts.tx_kicks += 1;
                self.counts.tx_kicks_again += u64::from(!queue.socket.kick());
            }
        }
    }

    fn lent(&self) -> usize {
        self.queues.iter().map(|queue| queue.socket.lent() as usize).sum()
    }

    fn report(&self) -> Report {
        let Counts { tx_kicks, tx_kicks_again, rx_wakeups, busy_polls } = self.counts;
        let mut counters = vec![
            ("tx_kicks_total", tx_kicks),
            ("tx_kicks_again_total", tx_kicks_again),
            ("rx_wakeups_total", rx_wakeups),
            ("busy_polls_total", busy_polls),
            ("syscalls_total", tx_kicks + rx_wakeups + busy_polls),
        ];
        let sum = |pick: fn(&crate::sys::socket::Statistics) -> u64| -> u64 {
            self.queues.iter().map(|queue| pick(&queue.socket.statistics())).sum()
        };
        counters.extend([
            ("rx_dropped", sum(|it| it.rx_dropped)),
            ("rx_invalid_descs", sum(|it| it.rx_invalid_descs)),
            ("tx_invalid_descs", sum(|it| it.tx_invalid_descs)),
            ("rx_ring_full", sum(|it| it.rx_ring_full)),
            ("rx_fill_ring_empty_descs", sum(|it| it.rx_fill_ring_empty_descs)),
            ("tx_ring_empty_descs", sum(|it| it.tx_ring_empty_descs)),
            ("spoiled_descs_total", sum(|it| it.spoiled_descs)),
        ]);
        Report { driver: self.program.interface.driver.clone(), mode: self.mode(), counters }
    }
}

impl Queue {
    fn open(program: &Program, id: u32, options: &Options, pool: &Pool) -> io::Result<Queue> {
        let interface = &program.interface;
        if id >= interface.queues {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "queue {id} of {name} does not exist: it has {count} (0-{last}); `ethtool -L {name} combined N` \
                     gives it more, a veth gets them when it is made (`numrxqueues N numtxqueues N`)",
                    name = interface.name,
                    count = interface.queues,
                    last = interface.queues - 1,
                ),
            ));
        }
        let &Options { ring_frames, busy_poll } = options;
        let bind = |zero_copy| {
            Socket::bind(pool.umem(), interface.index, id, zero_copy, ring_frames)
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
        Ok(Queue { id, socket, poller })
    }

    /// Tops up the fill ring.
    fn fill(&mut self, pool: &mut Pool) {
        let spare = pool.len().saturating_sub(RESERVE_FRAMES);
        let wanted = spare.min(BURST_FRAMES_MAX) as u32;
        let count = spare.min(self.socket.fill_room(wanted) as usize);
        if count > 0 {
            self.socket.fill((0..count).map_while(|_| pool.take()));
        }
    }

    fn receive(&mut self, rx: &mut Burst) {
        self.socket.receive(rx.room() as u32, |frame| rx.push(frame));
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
                *deaf_turns += 1;
                if *deaf_turns % DEAF_TURNS == 0 {
                    counts.busy_polls += 1;
                    // The first hello heard is answered: the peer may have come after ours was sent.
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
        let Some(mut frame) = pool.take() else { return };
        write_hello(&mut frame, mac, napi::hello_port(self.id));
        self.socket.send(std::iter::once(frame));
        if let Poller::Helper { hello_due, .. } = &mut self.poller {
            *hello_due = false;
        }
    }
}

/// An empty UDP datagram from nowhere to everybody on the link (0.0.0.0 to 255.255.255.255, as DHCP does), so that no end
/// needs an address.
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

/// An error of attaching, with what to do about it.
fn explain(interface: &Interface, error: io::Error) -> io::Error {
    let name = &interface.name;
    let text = match (error.kind(), bpf::attached_program(interface.index)) {
        (_, Ok(Some(id))) => format!(
            "{name} has an XDP program already (id {id}): stop the process that attached it, or \
             `ip link set dev {name} xdp off`"
        ),
        (io::ErrorKind::PermissionDenied, _) => {
            format!(
                "{error} on {name}: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW"
            )
        }
        _ => format!(
            "{error} on {name} (driver {driver}, MTU {mtu}): --mode skb works with every driver",
            driver = interface.driver,
            mtu = interface.mtu,
        ),
    };
    io::Error::new(error.kind(), text)
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

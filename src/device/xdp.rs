//! AF_XDP: frames of one or more queues of an interface, taken before the kernel's own stack sees
//! them.
//!
//! A [`Program`] is attached once per interface and steers what is ours; an [`Xdp`] has the sockets
//! of the queues that one worker serves. Both are opened in the network namespace of the calling
//! thread and may then move to any thread. While a queue is open its frames that are ours come here
//! and no others do; what the kernel gets goes on as ever.
//!
//! The order of attempts is: in the driver without copying, in the driver with a copy, on socket
//! buffers. Which it got is in the report. The fill ring is kept full first of all, because what
//! finds it empty is lost; the kernel is kicked only if it asks for it and frames wait.

mod eavesdropper;
mod fragments;
mod queue;

use self::eavesdropper::Eavesdropper;
use self::queue::Queue;
use super::steering::Steering;
use super::{Device, Report};
use crate::frame::{BURST_FRAMES_MAX, Burst, Pool};
use crate::sys::bpf::{self, Hook};
use crate::sys::net::{Interface, TagsLeftIn};
use crate::sys::packet::Groups;
use crate::sys::socket::Statistics;
use crate::time::Instant;
use std::io;
use std::sync::Arc;

pub use crate::sys::napi::{Deferral, hello_port};

/// The steering program, built from `bpf/shakedown.bpf.c` by `scripts/bpf.sh`.
pub const OBJECT: &[u8] = include_bytes!("../../bpf/shakedown.bpf.o");

/// The same, asking the driver for the tag that it took out of a frame.
pub const OBJECT_VLAN: &[u8] = include_bytes!("../../bpf/shakedown-vlan.bpf.o");

/// Frames left in the pool when the fill ring is topped up, so that answers can still be built: a
/// burst being received and a burst being sent.
const RESERVE_FRAMES: usize = 2 * BURST_FRAMES_MAX;

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
    /// On socket buffers, after the driver. Works with every driver; super-frames of a peer's TSO
    /// and our own GRO do not fit a frame and are dropped (`rx_dropped`): turn those off.
    Skb,
}

/// How the sockets of one worker are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Entries of each of the four rings, a power of two. Frames go round the fill ring first in,
    /// first out, so a longer ring touches more memory: two workers with both ends of a veth queue
    /// each passed 1.53, 1.42, 1.31 and 1.30 Mpps with rings of 256, 512, 1024 and 2048. A shorter
    /// one loses frames sooner when its worker is held up.
    pub ring_frames: u32,
    /// Run the queues' receive loop in the worker's own system calls instead of softirqs: see
    /// [`crate::sys::napi`]. On a veth it takes effect when both ends do it. Goes with a
    /// [`Deferral`] of the interface.
    pub busy_poll: bool,
    /// Who puts in the checksums of what is sent.
    pub sums: Sums,
}

/// Who puts in the checksums of what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sums {
    /// The NIC, where its driver says that it does so for frames that are not copied.
    #[default]
    Auto,
    /// The NIC; and where frames are copied, the kernel sees to it, as with those of its own: over
    /// a veth they are never put in, as no wire is there. Linux 6.11.
    Device,
    /// We.
    Ours,
}

impl Default for Options {
    fn default() -> Options {
        Options { ring_frames: 512, busy_poll: false, sums: Sums::default() }
    }
}

/// The steering program on one interface, shared by the sockets of all its queues. It is detached
/// when it and the last [`Xdp`] opened through it are dropped, or when the process ends, in
/// whatever way.
pub struct Program {
    // Dropped first: no frame is redirected any more when the rest goes.
    link: bpf::Link,
    program: bpf::Program,
    interface: Interface,
    steering: Steering,
    mode: Mode,
    hook: Hook,
    fallback: Option<String>,
    _groups: Option<Groups>,
    tags: Option<TagsLeftIn>,
    tags_hidden: bool,
}

impl Program {
    /// Loads the steering program and attaches it to `interface`. Frames still go to the kernel
    /// until [`Xdp::open`].
    ///
    /// # Errors
    /// What was attempted and what to do: no such interface, it is down, an address of
    /// `steering.ours` belongs to the kernel, another program is attached, not permitted, a kernel
    /// that is too old, no native XDP in this driver (if `mode` asks for it).
    pub fn attach(interface: &str, steering: &Steering, mode: Mode) -> io::Result<Arc<Program>> {
        let interface = Interface::find(interface)?;
        let name = &interface.name;
        if !interface.up {
            let text = format!("{name} is down: `ip link set {name} up`");
            return Err(io::Error::new(io::ErrorKind::NetworkDown, text));
        }
        steering.check_against(name, &interface.addrs)?;
        let native = match mode {
            Mode::Auto | Mode::ZeroCopy | Mode::Copy => attach_native(steering, interface.index),
            Mode::Skb => Err(io::ErrorKind::Unsupported.into()),
        };
        let (attached, hook, fallback) = match (native, mode) {
            (Ok(attached), _) => (attached, Hook::Native, None),
            (Err(error), Mode::ZeroCopy | Mode::Copy) => return Err(explain(&interface, error)),
            (Err(error), Mode::Auto | Mode::Skb) => {
                let program = load(steering)?;
                let link = program
                    .attach(interface.index, Hook::Generic)
                    .map_err(|error| explain(&interface, error))?;
                let why = (mode == Mode::Auto).then(|| error.to_string());
                (Attached { link, program, hears_tags: false }, Hook::Generic, why)
            }
        };
        let Attached { link, program, hears_tags } = attached;
        let groups = steering.owns_ipv6().then(|| Groups::hear(interface.index)).transpose()?;
        let has_vlans = steering.has_vlans();
        // A veth has no part in what its peer leaves beside a frame. Where the driver can't leave
        // tags in, it may still tell of them.
        let tags = match has_vlans && interface.driver != "veth" {
            true => TagsLeftIn::on(name).ok().flatten(),
            false => None,
        };
        let tags_hidden = has_vlans && !hears_tags && interface.driver == "veth";
        Ok(Arc::new(Program {
            link,
            program,
            steering: steering.clone(),
            mode,
            hook,
            fallback,
            _groups: groups,
            tags,
            tags_hidden,
            interface,
        }))
    }

    /// The interface as it was when the program was attached.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// False once the interface is gone, or somebody else has detached the program.
    pub fn is_attached(&self) -> bool {
        self.link.is_attached()
    }

    /// True if a setting of the interface was changed that it gets back when this is dropped.
    pub fn gives_back(&self) -> bool {
        self.tags.is_some()
    }

    /// Why the program runs on socket buffers although nobody asked for that; `None` if it does
    /// not.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// True if tags that a veth's peer leaves beside its frames can't be seen here: frames of a
    /// VLAN device look untagged then. In the native mode that takes Linux 6.8.
    pub fn tags_hidden(&self) -> bool {
        self.tags_hidden
    }
}

/// A program where it belongs.
struct Attached {
    link: bpf::Link,
    program: bpf::Program,
    hears_tags: bool,
}

/// Loads the program and attaches it in the driver: if there are VLANs, the one that hears of tags
/// beside frames, where the kernel has that.
fn attach_native(steering: &Steering, ifindex: u32) -> io::Result<Attached> {
    let attach = |program: bpf::Program, hears_tags| {
        let link = program.attach(ifindex, Hook::Native)?;
        Ok(Attached { link, program, hears_tags })
    };
    if steering.has_vlans() {
        let hearing = load_object(OBJECT_VLAN, steering, Some(ifindex));
        if let Ok(attached) = hearing.and_then(|program| attach(program, true)) {
            return Ok(attached);
        }
    }
    attach(load(steering)?, false)
}

/// The AF_XDP sockets of one worker.
pub struct Xdp {
    queues: Vec<Queue>,
    /// The queue that is served first in the next turn.
    turn: usize,
    eavesdropper: Option<Eavesdropper>,
    counts: Counts,
    program: Arc<Program>,
}

#[derive(Default)]
struct Counts {
    tx_kicks: u64,
    tx_kicks_again: u64,
    rx_wakeups: u64,
    busy_polls: u64,
    arp_looks: u64,
}

impl Xdp {
    /// Opens a socket on each of `queues` and fills it with frames of `pool`, which must be the
    /// pool that `rx` and `tx` are called with later; [`frames_for`] says how large it should be.
    /// If its chunks are larger than AF_XDP takes (jumbo frames), packets come and go in fragments,
    /// and are copied.
    ///
    /// # Errors
    /// What was attempted and what to do: no such queue, the queue is busy, memlock, no zero-copy
    /// here, no fragments here, not permitted.
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
        let eavesdropper = Eavesdropper::open(program)?;
        let counts = Counts::default();
        let mut xdp = Xdp { queues, turn: 0, eavesdropper, counts, program: program.clone() };
        xdp.queues.iter_mut().for_each(|queue| queue.start(pool));
        Ok(xdp)
    }

    /// True if every queue is polled by us: with helpers, once each has heard its peer.
    pub fn busy_polls(&self) -> bool {
        self.queues.iter().all(Queue::busy_polls)
    }

    fn mode(&self) -> &'static str {
        match self.program.hook {
            Hook::Generic => "skb",
            Hook::Native if self.queues.iter().all(Queue::zero_copy) => "zerocopy",
            Hook::Native => "copy",
        }
    }
}

/// Loads the steering program without attaching it anywhere.
///
/// # Errors
/// More separate address ranges than it holds, not permitted, or a kernel that is too old.
pub fn load(steering: &Steering) -> io::Result<bpf::Program> {
    load_object(OBJECT, steering, None)
}

fn load_object(
    object: &[u8],
    steering: &Steering,
    bound_to: Option<u32>,
) -> io::Result<bpf::Program> {
    let tables = steering.tables()?;
    let sections = [(".rodata", &tables.config[..]), (".bss", &tables.tables)];
    bpf::Program::load(object, &sections, bound_to)
}

/// Frames that one worker's pool needs so that `queues` queues with rings of `ring_frames` never
/// run dry: all four rings full, and a few bursts in hand.
pub fn frames_for(queues: usize, ring_frames: u32) -> u32 {
    queues as u32 * ring_frames * 4 + 2 * RESERVE_FRAMES as u32
}

impl Device for Xdp {
    fn rx(&mut self, _now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let count = self.queues.len();
        for place in 0..count {
            let queue = &mut self.queues[(self.turn + place) % count];
            queue.rx(pool, rx, &mut self.counts);
        }
        self.turn = (self.turn + 1) % count;
        if let Some(eavesdropper) = &mut self.eavesdropper {
            eavesdropper.listen(pool, rx, &mut self.counts);
        }
    }

    fn tx(&mut self, _now: Instant, pool: &mut Pool, tx: &mut Burst) {
        for queue in &mut self.queues {
            queue.tx(&self.program.interface.mac, pool, tx, &mut self.counts);
        }
    }

    fn lent(&self) -> usize {
        self.queues.iter().map(|queue| queue.lent()).sum()
    }

    fn report(&self) -> Report {
        let Counts { tx_kicks, tx_kicks_again, rx_wakeups, busy_polls, arp_looks } = self.counts;
        let mut counters = vec![
            ("tx_kicks_total", tx_kicks),
            ("tx_kicks_again_total", tx_kicks_again),
            ("rx_wakeups_total", rx_wakeups),
            ("busy_polls_total", busy_polls),
            ("arp_looks_total", arp_looks),
            ("syscalls_total", tx_kicks + rx_wakeups + busy_polls + arp_looks),
        ];
        let sum = |pick: fn(&Statistics) -> u64| -> u64 {
            self.queues.iter().map(|queue| pick(&queue.statistics())).sum()
        };
        counters.extend([
            ("rx_dropped", sum(|it| it.rx_dropped)),
            ("rx_invalid_descs", sum(|it| it.rx_invalid_descs)),
            ("tx_invalid_descs", sum(|it| it.tx_invalid_descs)),
            ("rx_ring_full", sum(|it| it.rx_ring_full)),
            ("rx_fill_ring_empty_descs", sum(|it| it.rx_fill_ring_empty_descs)),
            ("tx_ring_empty_descs", sum(|it| it.tx_ring_empty_descs)),
            ("spoiled_descs_total", sum(|it| it.spoiled_descs)),
            ("rx_too_long_total", self.queues.iter().map(Queue::too_long).sum()),
        ]);
        let driver = self.program.interface.driver.clone();
        let sums = self.queues.iter().all(Queue::sums);
        Report { driver, mode: self.mode(), sums, counters }
    }
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
                "{error} on {name}: run as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW"
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

//! Two workers on one virtual clock, over a link that may be bad, watched by a
//! [referee](monitor::Referee).
//!
//! After every turn the five laws are checked: (1) pool + rx + tx + lent = all frames; (2) free +
//! live slots = max and the index agrees; (3) every control block is sound; (4) the referee saw
//! only legal segments; (5) same seed, same trace, for which [`Sim::trace`] is there. What a run is
//! to achieve is for its caller to say; [`examine`] makes a failure tell its seed and leave what
//! both hosts saw as pcap files.
//!
//! Nothing here reads a clock or draws a number that does not come from the seed.

mod data;
mod endpoint;
pub mod monitor;
pub mod script;

use crate::app::App;
use crate::device::impair::{self, Impair};
use crate::device::link::{self, Link};
use crate::device::pcap::Capture;
use crate::device::{Device, Report};
use crate::engine::{self, Engine, Listener, Subnet};
use crate::flow::tuples::{Range, Ranges, Target};
use crate::frame::{Burst, Pool};
use crate::rng::Rng;
use crate::tcp::Congestion;
use crate::time::{Instant, Span};
use crate::wire::Family;
use crate::wire::ethernet::Mac;
use crate::wire::segment::Verify;
use crate::worker::Worker;
use monitor::{Referee, Side};
use std::cell::RefCell;
use std::fs::File;
use std::io::BufWriter;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

/// What a turn costs on the virtual clock: about what a busy one takes.
const TURN: Span = Span::from_micros(1);

/// Address of host A, which is the client where there is one.
pub const A_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Address of host B, which is the server where there is one.
pub const B_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Their IPv6 addresses, which [`Setup::over`] gives them.
pub const A_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub const B_IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// B's listeners have consecutive ports from here on.
pub const FIRST_PORT: u16 = 8000;

/// What a simulation is made of. Plain data: change what the scenario is about.
#[derive(Clone, Debug)]
pub struct Setup {
    pub a: engine::Config,
    pub b: engine::Config,
    /// What befalls frames from A to B, and from B to A.
    pub a_to_b: Option<impair::Options>,
    pub b_to_a: Option<impair::Options>,
    /// Frames of each side's pool.
    pub pool_frames: u32,
    /// Frames that wait on the link in each direction.
    pub ring_frames: u32,
    pub seed: u64,
    /// Beginning of the names of two pcap files, `…-a.pcap` and `…-b.pcap`: what each host sends
    /// and receives.
    pub captures: Option<PathBuf>,
}

/// Two hosts and the wire between them.
pub struct Sim<A: App, B: App> {
    pub a: Worker<Tap, A>,
    pub b: Worker<Tap, B>,
    now: Instant,
    frames: [usize; 2],
    referee: Rc<RefCell<Referee>>,
    turns: u64,
}

/// A host's end of the wire: tells the referee what passes.
pub struct Tap {
    inner: Impair<Link>,
    side: Side,
    referee: Rc<RefCell<Referee>>,
    capture: Option<Capture<BufWriter<File>>>,
    /// Frames at the front of `tx` that the referee has seen: the device had no room for them.
    offered: usize,
    unplugged: bool,
}

impl Setup {
    /// A client at A with every port from 10,000 to 60,000, and a server at B with `listeners`
    /// ports; a good link; tables of 64 connections.
    pub fn new(seed: u64, listeners: u16) -> Setup {
        let mut seeds = Rng::new(seed);
        let mut a = host(Side::A, seeds.next());
        let mut b = host(Side::B, seeds.next());
        b.listeners =
            (0..listeners).map(|n| Listener { port: FIRST_PORT + n, keepalive: None }).collect();
        a.ranges = Some(Ranges {
            locals: vec![Range::only(A_IP)],
            first_port: 10_000,
            last_port: 60_000,
            targets: vec![Target {
                addresses: Range::only(B_IP),
                first_port: FIRST_PORT,
                last_port: FIRST_PORT + listeners.saturating_sub(1),
            }],
            share: 0,
            shares: 1,
            rss: None,
        });
        Setup {
            a,
            b,
            a_to_b: None,
            b_to_a: None,
            pool_frames: 1024,
            ring_frames: 256,
            seed: seeds.next(),
            captures: None,
        }
    }

    /// Both hosts speak both families; A connects over these.
    pub fn over(&mut self, families: &[Family]) {
        self.a.subnets.push(Subnet::only(A_IP6, 64));
        self.b.subnets.push(Subnet::only(B_IP6, 64));
        let ranges = self.a.ranges.as_mut().expect("A is a client");
        let target = ranges.targets[0];
        ranges.locals = Vec::new();
        ranges.targets = Vec::new();
        for family in families {
            let (local, remote) = match family {
                Family::V4 => (Range::only(A_IP), Range::only(B_IP)),
                Family::V6 => (Range::only(A_IP6), Range::only(B_IP6)),
            };
            ranges.locals.push(local);
            ranges.targets.push(Target { addresses: remote, ..target });
        }
    }

    /// The same impairment in both directions.
    pub fn impair(&mut self, options: impair::Options) {
        self.a_to_b = Some(options);
        self.b_to_a = Some(options);
    }
}

/// A host without listeners or ranges.
fn host(side: Side, seed: u64) -> engine::Config {
    let ip = match side {
        Side::A => A_IP,
        Side::B => B_IP,
    };
    engine::Config {
        mac: mac(side),
        mtu: 1500,
        ttl: 64,
        subnets: vec![Subnet::only(ip, 24)],
        gateways: vec![],
        listeners: Vec::new(),
        ranges: None,
        keepalive: None,
        connections_max: 64,
        awake_max: 0,
        tcp: Default::default(),
        verify: Verify::All,
        device_sums: false,
        seed,
    }
}

/// A locally administered address.
fn mac(side: Side) -> Mac {
    Mac([2, 0, 0, 0, 0, 1 + side as u8])
}

impl<A: App, B: App> Sim<A, B> {
    /// Two hosts with these applications, at time zero.
    ///
    /// # Panics
    /// If there is no memory, or a pcap file can't be created.
    pub fn new(setup: Setup, app_a: A, app_b: B) -> Sim<A, B> {
        let Setup { a, b, a_to_b, b_to_a, pool_frames, ring_frames, seed, captures } = setup;
        let now = Instant::ZERO;
        let (pool_a, pool_b) = Pool::pair(pool_frames).expect("memory for the frames");
        let mut referee = Referee::new([a.mac, b.mac], a.tcp.msl.min(b.tcp.msl));
        referee.unpaced = [&a, &b].map(|host| host.tcp.congestion == Congestion::Fixed);
        let referee = Rc::new(RefCell::new(referee));
        let umem = pool_a.umem().clone();
        let (link_a, link_b) = link::pair(&umem, ring_frames);
        let mut seeds = Rng::new(seed);
        let mut tap = |side, link, options| Tap {
            inner: Impair::new(link, &umem, options, None, seeds.next()),
            side,
            referee: Rc::clone(&referee),
            capture: captures.as_ref().map(|prefix| capture(prefix, side)),
            offered: 0,
            unplugged: false,
        };
        let (tap_a, tap_b) = (tap(Side::A, link_a, a_to_b), tap(Side::B, link_b, b_to_a));
        Sim {
            frames: [pool_a.len(), pool_b.len()],
            a: Worker::new(tap_a, Engine::new(a, app_a, now), pool_a),
            b: Worker::new(tap_b, Engine::new(b, app_b, now), pool_b),
            now,
            referee,
            turns: 0,
        }
    }

    /// One turn of each side; then the clock goes on to when anything happens next, at most to
    /// `end`.
    ///
    /// # Panics
    /// If a law is broken.
    pub fn step(&mut self, end: Instant) {
        let mut moved = self.a.turn(self.now);
        self.check();
        moved |= self.b.turn(self.now);
        self.check();
        self.turns += 2;
        let soon = self.now + TURN;
        let next = if moved { soon } else { self.next_deadline().max(soon) };
        self.now = next.min(end.max(soon));
    }

    /// Steps until `done` or `end`; answers whether it was done.
    ///
    /// # Panics
    /// If a law is broken.
    pub fn run(&mut self, end: Instant, mut done: impl FnMut(&Sim<A, B>) -> bool) -> bool {
        while self.now < end {
            if done(self) {
                return true;
            }
            self.step(end);
        }
        done(self)
    }

    /// Steps until both tables are empty, TIME-WAIT included.
    ///
    /// # Panics
    /// If that takes until `end`, or a law is broken.
    pub fn run_out(&mut self, end: Instant) {
        let closed =
            self.run(end, |sim| sim.a.engine.connections() == 0 && sim.b.engine.connections() == 0);
        let left = (self.a.engine.connections(), self.b.engine.connections());
        assert!(closed, "connections of A and B not over by {end}: {left:?}");
    }

    /// Pulls the cable out of both hosts: what they send from now on is lost. What is on its way
    /// still arrives.
    pub fn unplug(&mut self) {
        self.a.dev.unplugged = true;
        self.b.dev.unplugged = true;
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// A hash of every frame, where it passed and when. Law 5: the same for the same seed.
    pub fn trace(&self) -> u64 {
        self.referee.borrow().trace()
    }

    /// Turns of both sides so far.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// TCP segments sent by both sides so far.
    pub fn segments(&self) -> u64 {
        self.referee.borrow().segments()
    }

    /// Connections that a late duplicate SYN began after their real one was over.
    pub fn ghosts(&self) -> u64 {
        self.referee.borrow().ghosts()
    }

    fn next_deadline(&self) -> Instant {
        let devices = [self.a.dev.next_deadline(), self.b.dev.next_deadline()];
        let engines =
            [self.a.engine.next_deadline(self.now), self.b.engine.next_deadline(self.now)];
        let device = devices.into_iter().flatten().min().unwrap_or(Instant::NEVER);
        engines.into_iter().fold(device, Instant::min)
    }

    /// Laws 1 to 4.
    fn check(&self) {
        assert_eq!(
            [self.a.frames(), self.b.frames()],
            self.frames,
            "frames of A and B, now and at start"
        );
        self.a.engine.check();
        self.b.engine.check();
        if let Some(violation) = self.referee.borrow().violation() {
            panic!("{violation}");
        }
    }
}

impl Device for Tap {
    fn rx(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let mut referee = self.referee.borrow_mut();
        referee.begin_turn(self.side);
        let before = rx.len();
        self.inner.rx(now, pool, rx);
        for frame in &rx.frames()[before..] {
            referee.arrived(now, self.side, frame.bytes());
            if let Some(capture) = &mut self.capture {
                capture.record(now, frame.bytes());
            }
        }
    }

    fn tx(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        for frame in &tx.frames()[self.offered..] {
            self.referee.borrow_mut().sent(now, self.side, frame.bytes());
            if let Some(capture) = &mut self.capture {
                capture.record(now, frame.bytes());
            }
        }
        if self.unplugged {
            let count = tx.len();
            tx.drain(count).for_each(|frame| pool.put(frame));
        }
        self.inner.tx(now, pool, tx);
        self.offered = tx.len();
    }

    fn lent(&self) -> usize {
        self.inner.lent()
    }

    fn report(&self) -> Report {
        self.inner.report()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }
}

fn capture(prefix: &Path, side: Side) -> Capture<BufWriter<File>> {
    let name = match side {
        Side::A => "-a.pcap",
        Side::B => "-b.pcap",
    };
    let mut path = prefix.as_os_str().to_owned();
    path.push(name);
    let file = File::create(&path).expect("create the pcap file");
    Capture::new(BufWriter::new(file), SystemTime::UNIX_EPOCH, None)
        .expect("write to the pcap file")
}

/// Runs `scenario` with `seed`. If it fails, runs it again with captures, which changes nothing
/// else, prints the seed and where the pcap files are in `directory`, and fails as it did.
pub fn examine<R>(
    name: &str,
    seed: u64,
    directory: &Path,
    scenario: impl Fn(u64, Option<PathBuf>) -> R,
) -> R {
    let cause = match catch_unwind(AssertUnwindSafe(|| scenario(seed, None))) {
        Ok(result) => return result,
        Err(cause) => cause,
    };
    let prefix =
        directory.join(format!("{}-{seed}", name.replace([',', '%'], "").replace(' ', "-")));
    let again = catch_unwind(AssertUnwindSafe(|| scenario(seed, Some(prefix.clone()))));
    let same = if again.is_err() { "" } else { " (and passed when run again: law 5 is broken)" };
    eprintln!(
        "\n{name}: seed {seed} failed{same}\n  both sides' frames: {}-a.pcap, -b.pcap",
        prefix.display()
    );
    resume_unwind(cause)
}

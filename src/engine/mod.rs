//! One core's stack: frames in, frames out, and a table of connections between.
//!
//! ```text
//!   rx -> parse -> prefetch -> look up -> Tcb::arrives -> App marks what is owed -.
//!                                   wheel -> Tcb::expires ------------------------+-> ready queue
//!                                   App::launch -> Tcb::open_active --------------'      |
//!   tx <- headers, payload <- Tcb::output <----------------------------------------------'
//! ```
//!
//! `egress` alone writes connections' segments; only answers that need no block in the table
//! (`answer`, `discovery`, and the ACK of what has retired to TIME-WAIT) turn a frame round. The
//! engine knows no device and reads no clock. Work a turn is bounded: a burst of frames, and the
//! limits below.

mod answer;
mod calls;
mod config;
mod discovery;
mod egress;
mod expire;
mod handshake;
mod idle;
mod index;
mod ingress;
mod leave;
mod lines;
mod neighbors;
mod queue;
mod routes;
mod stages;
mod syn_cache;
pub mod table;
mod throttle;
mod waits;

use crate::app::{App, Conn, Owes};
use crate::flow::tuples::Tuples;
use crate::flow::{Endpoints, FlowKey};
use crate::frame::{BURST_FRAMES_MAX, Burst, Frame, Pool};
use crate::rng::{Rng, Secret};
use crate::stats::Counters;
use crate::tcp::{self, End, Keepalive, State, Syncookies, Tcb, Transmit};
use crate::time::{Instant, Span};
use crate::timer::Wheel;
use crate::wire::Family;
use crate::wire::segment::Packet;
pub use config::{Config, Listener};
use expire::Candidate;
use neighbors::Neighbors;
use queue::Queue;
use routes::Routes;
pub use routes::Subnet;
use stages::Staged;
use std::collections::VecDeque;
use std::net::IpAddr;
use syn_cache::SynCache;
use table::{READY_SLOTS, Table};
use throttle::Throttle;
use waits::Waits;

/// Timers handled a turn. As many as frames, so that neither starves the other.
const EXPIRIES_MAX: usize = BURST_FRAMES_MAX;

/// Connections asked to drain a turn.
const DRAINS_MAX: u32 = 256;

/// Slots in use before idle connections rest, in a configuration that nobody has turned: so many
/// take little, and fit the part of the index that the caches keep.
pub const AWAKE_MAX: u32 = 512;

/// No listener at this port.
const NO_LISTENER: u16 = u16::MAX;

/// IPv6 addresses that connections have at a time, at the most: two for each connection, up to 34
/// MB of them.
const HOSTS_MAX: u32 = 1 << 20;

/// Numbers of all that may have a timer or answers counted: slots and places of rest as the table
/// has them, places in the SYN cache, places in TIME-WAIT.
#[derive(Clone, Copy)]
struct Nodes {
    /// Slots, and places of rest.
    max: u32,
    /// Places in the SYN cache.
    syns: u32,
}

impl Nodes {
    fn syn(self, place: u32) -> u32 {
        2 * self.max + place
    }

    /// The first of TIME-WAIT; there are no timers from here on.
    fn waits(self) -> u32 {
        self.syn(self.syns)
    }
}

/// The engine of one core.
pub struct Engine<A: App> {
    pub app: A,
    pub counters: Counters,
    /// How many places onward the worker is that may have a connection, and its frame: to be taken
    /// out after each poll.
    pub strays: Vec<(u16, Frame)>,
    /// Workers of the run, this one included. A frame is passed on until each has seen it.
    workers: u16,
    config: Config,
    secret: Secret,
    table: Table<A::State, A::Idle>,
    wheel: Wheel,
    nodes: Nodes,
    /// Connections that may have something to send, in the order in which it became so.
    ready: Queue,
    routes: Routes,
    neighbors: Neighbors,
    tuples: Option<Tuples>,
    /// The four-tuples of the next launches, should they be free.
    drawn: VecDeque<Candidate>,
    /// Four-tuples in a row that were not free.
    tuples_missed: u64,
    /// Listener by port.
    listeners: Box<[u16]>,
    syns: SynCache,
    syncookies: Syncookies,
    /// Until then a cookie that was sent may come back.
    cookies_until: Instant,
    waits: Waits,
    round: idle::Round,
    /// By node.
    throttle: Throttle,
    /// Slots in TIME-WAIT, beside those.
    in_time_wait: usize,
    ip_id: u16,
    stopping: bool,
    /// The place of the next connection to be asked to drain; past all of them if none is to be.
    drain_at: u32,
    announcer: discovery::Announcer,
    complaints: answer::Complaints,
    // Scratch of a turn, kept for its memory.
    outgoing: Transmit,
    packets: Vec<Packet>,
    staged: Vec<Staged>,
    due: Vec<u32>,
}

impl<A: App> Engine<A> {
    /// All memory of the engine is allocated here.
    ///
    /// # Panics
    /// If the configuration has more than 65,534 listeners or no connections.
    pub fn new(config: Config, app: A, now: Instant) -> Engine<A> {
        assert!(config.listeners.len() < NO_LISTENER as usize);
        let mut listeners = vec![NO_LISTENER; 1 << 16].into_boxed_slice();
        for (place, listener) in config.listeners.iter().enumerate() {
            listeners[listener.port as usize] = place as u16;
        }
        let mut seeds = Rng::new(config.seed);
        let secret = Secret::from_seed(seeds.next());
        let routes = Routes::new(config.subnets.clone(), config.gateways.clone());
        let syn_backlog = config.tcp.syn_backlog.min(config.connections_max);
        let hosts_max = match routes.speaks(Family::V6) {
            true => {
                let connections = config.connections_max.saturating_mul(2).min(HOSTS_MAX);
                // And the two of a SYN that is answered with a cookie.
                connections.saturating_add(syn_backlog.saturating_mul(2)).saturating_add(2)
            }
            false => 0,
        };
        let tables = Secret::from_seed(seeds.next());
        let nodes = Nodes { max: config.connections_max, syns: syn_backlog };
        let mut wheel = Wheel::new(nodes.waits(), now);
        wheel.touch(0..config.connections_max.min(READY_SLOTS));
        wheel.touch(nodes.syn(0)..nodes.waits());
        Engine {
            app,
            counters: Counters::default(),
            strays: Vec::with_capacity(BURST_FRAMES_MAX),
            workers: 1,
            table: Table::new(config.connections_max, hosts_max, tables, &config.tcp),
            wheel,
            nodes,
            ready: Queue::new(),
            neighbors: Neighbors::new(tables),
            tuples: config.ranges.clone().map(Tuples::new),
            drawn: VecDeque::with_capacity(expire::DRAWN_AHEAD),
            tuples_missed: 0,
            listeners,
            syns: SynCache::new(syn_backlog, tables),
            syncookies: Syncookies::new(secret, Secret::from_seed(seeds.next())),
            cookies_until: Instant::ZERO,
            waits: Waits::new(config.connections_max, tables),
            round: idle::Round::default(),
            throttle: Throttle::new(
                nodes.waits() as usize + waits::places_for(config.connections_max),
                seeds.next(),
            ),
            in_time_wait: 0,
            ip_id: seeds.next() as u16,
            stopping: false,
            drain_at: u32::MAX,
            announcer: discovery::Announcer::new(&config.subnets),
            complaints: answer::Complaints::new(now),
            routes,
            outgoing: Transmit::blank(),
            packets: vec![Packet::BLANK; BURST_FRAMES_MAX],
            staged: Vec::with_capacity(BURST_FRAMES_MAX),
            due: Vec::with_capacity(EXPIRIES_MAX),
            config,
            secret,
        }
    }

    /// Makes it one of the `workers` of a run: what belongs to no connection here is left in
    /// `strays`, unless every worker has seen it.
    ///
    /// # Panics
    /// If there are none.
    pub fn join(&mut self, workers: u16) {
        assert!(workers > 0);
        self.workers = workers;
    }

    /// One turn: takes every frame out of `rx`, lets due timers fire, lets the application launch,
    /// and fills `tx` with what is owed, as far as there is room. Bounded work, whatever arrives.
    pub fn poll(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst, tx: &mut Burst) {
        // What is ready now found no room in the last turn.
        let behind = !self.ready.is_empty();
        self.wheel.advance(now);
        self.ingress(now, pool, rx, tx);
        self.expire(now);
        // More than can be sent is under way: more connections, or more of them closing, would only
        // make all of them late, up to where their segments are taken for lost and sent again.
        if self.stopping {
            self.drain(now, if behind { 1 } else { DRAINS_MAX });
        } else if !behind {
            self.launch(now);
        }
        self.rest(now);
        self.resolve(now, pool, tx);
        self.egress(now, pool, tx);
        self.count_flights();
    }

    /// Connections, those in TIME-WAIT included.
    pub fn connections(&self) -> usize {
        self.table.len() + self.syns.len() + self.waits.len()
    }

    /// Connections that are not in TIME-WAIT.
    pub fn live(&self) -> usize {
        self.table.len() - self.in_time_wait + self.syns.len()
    }

    /// When the engine will next have something to do of itself, for a virtual clock.
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let owes = !self.ready.is_empty() || self.syns.owes();
        let busy = owes || self.drain_at < self.table.places();
        if busy || !self.announcer.is_done() {
            // Something waits for room to be sent: look again in a moment.
            return now + Span::from_micros(1);
        }
        let launch = if self.stopping { Instant::NEVER } else { self.app.next_launch(now) };
        let timers = self.wheel.next().min(self.waits.next(now));
        timers.min(self.neighbors.next()).min(launch)
    }

    /// Bytes of state a connection takes (block, application's state, index, wheel), at this
    /// configuration.
    pub fn bytes_per_connection(&self) -> usize {
        self.table.slot_bytes() + Wheel::NODE_BYTES
    }

    /// Bytes of state that a connection takes while it rests: where many are held, and nothing is
    /// under way on it.
    pub fn bytes_per_idle(&self) -> usize {
        self.table.rest_bytes() + Wheel::NODE_BYTES
    }

    /// Bytes of state that a connection takes in SYN-RECEIVED, beside its timer and its share of
    /// the index.
    pub fn bytes_per_syn_received(&self) -> usize {
        SynCache::ENTRY_BYTES
    }

    /// Bytes of state that a connection takes in TIME-WAIT, once its last ACK is out.
    pub fn bytes_per_time_wait(&self) -> usize {
        self.waits.bytes_each()
    }

    /// Bytes of memory for connections in every state, their timers and what they keep of text: all
    /// that there will ever be, but for what the pool has.
    pub fn memory_bytes(&self) -> usize {
        self.table.bytes()
            + Wheel::bytes_max(self.nodes.waits())
            + self.syns.bytes()
            + self.waits.max() * self.waits.bytes_each()
    }

    /// Laws 2 and 3: every slot is free or live, they and who rests are no more than there may be,
    /// the index agrees, every control block is sound.
    ///
    /// # Panics
    /// If not: a bug of ours.
    pub fn check(&self) {
        let (numbers, neighbors) = self.syns.check();
        self.table.check(&self.config.tcp, self.waits.numbers() + numbers);
        self.waits.check();
        let held = self.table.taken() + self.table.idle() + self.waits.len() + neighbors;
        assert_eq!(self.neighbors.held(), held, "a next hop for each connection");
    }

    fn tcb(&self, slot: u32) -> &Tcb {
        &self.table.tcbs[slot as usize]
    }

    /// The application's choice (RFC 9293 s3.8.4, MUST-24).
    fn keepalive(&self, slot: u32) -> Option<Keepalive> {
        let usual = match self.config.listeners.get(self.tcb(slot).listener as usize) {
            Some(listener) => listener.keepalive,
            None => self.config.keepalive,
        };
        self.app.keepalive(&self.table.states[slot as usize], usual)
    }

    /// Tells the application something about a connection and takes down what it marks.
    #[inline(always)]
    fn tell(
        &mut self,
        slot: u32,
        now: Instant,
        event: impl FnOnce(&mut A, &mut Conn<'_, A::State>),
    ) {
        let tcb = self.tcb(slot);
        if tcb.state() == State::Closed {
            return;
        }
        let (key, listener) = (tcb.key, tcb.listener);
        let state = &mut self.table.states[slot as usize];
        let mut conn = Conn::new(state, now, key, listener);
        event(&mut self.app, &mut conn);
        let owes = conn.owes();
        self.mark(slot, owes, now);
    }

    /// Takes down what the application marked.
    #[inline(always)]
    fn mark(&mut self, slot: u32, owes: Owes, now: Instant) {
        if owes.is_nothing() {
            return;
        }
        let Owes { bytes, urgent, curtail, close, abort } = owes;
        let tcb = &mut self.table.tcbs[slot as usize];
        let before = tcb.state();
        tcb.promise(bytes);
        if urgent {
            self.mark_urgent(slot);
        }
        let tcb = &mut self.table.tcbs[slot as usize];
        if curtail {
            tcb.curtail();
        }
        if close {
            tcb.close();
        }
        if abort {
            tcb.abort();
        }
        // CLOSE in SYN-SENT deletes the block as ABORT does (RFC 9293 s3.10.4).
        if tcb.state() == State::Closed {
            self.end(slot, before, End::Aborted, now);
        }
    }

    #[cold]
    fn mark_urgent(&mut self, slot: u32) {
        if !self.table.tcbs[slot as usize].urge(&mut self.table.paths) {
            self.counters.urgent_unsaid += 1;
        }
    }

    /// After any event: the connection may have something to send, and its deadline may have come
    /// closer.
    #[inline(always)]
    fn settle(&mut self, slot: u32, now: Instant) {
        let tcb = &mut self.table.tcbs[slot as usize];
        if tcb.state() == State::Closed {
            return;
        }
        let room = self.app.window(&self.table.states[slot as usize]);
        tcb.offer_window(&self.config.tcp, room);
        if tcb.wants_output() || tcb.state() == State::TimeWait {
            // Egress files the deadline once it is known, and retires who owes nothing more.
            self.ready.push(&mut self.table.tcbs, slot);
        } else {
            self.rearm(slot, now);
        }
    }

    /// Files the connection's deadline if it is earlier than what the wheel has. A later one is
    /// left for the wheel to find out.
    #[inline(always)]
    fn rearm(&mut self, slot: u32, now: Instant) {
        let keepalive = match self.tcb(slot).heeds_keepalive() {
            true => self.keepalive(slot),
            false => None,
        };
        let tcb = &mut self.table.tcbs[slot as usize];
        let deadline = tcb.deadline(&self.config.tcp, keepalive).max(now);
        if deadline < tcb.armed {
            tcb.armed = deadline;
            self.wheel.arm(slot, deadline);
        }
    }

    /// What the flights have counted, by its published names.
    fn count_flights(&mut self) {
        let tcp::Tally {
            refused,
            fast_retransmissions,
            slow_retransmissions,
            sack_recoveries,
            reno_recoveries,
            retransmissions_lost,
            tail_probes,
            tail_recoveries,
            dsacks,
            sacks_discarded,
            reneged,
        } = self.table.paths.tally;
        self.counters.paths_refused = refused;
        self.counters.fast_retrans = fast_retransmissions;
        self.counters.slow_start_retrans = slow_retransmissions;
        self.counters.sack_recoveries = sack_recoveries;
        self.counters.reno_recoveries = reno_recoveries;
        self.counters.lost_retransmits = retransmissions_lost;
        self.counters.loss_probes = tail_probes;
        self.counters.loss_probe_recoveries = tail_recoveries;
        self.counters.dsacks = dsacks;
        self.counters.sacks_discarded = sacks_discarded;
        self.counters.sack_reneging = reneged;
    }

    /// The key of a four-tuple, with the hash of that.
    #[inline(always)]
    fn keyed(&self, endpoints: &Endpoints) -> Option<(FlowKey, u64)> {
        let key = self.table.hosts.key_of(endpoints)?;
        Some((key, self.table.hash(&key)))
    }

    /// The place in the table of the connection between `endpoints`.
    fn find(&self, endpoints: &Endpoints) -> Option<u32> {
        let (key, hash) = self.keyed(endpoints)?;
        self.table.find_hashed(&key, hash)
    }

    /// There is a connection of this four-tuple, or one in TIME-WAIT.
    fn is_taken(&self, candidate: &Candidate) -> bool {
        let keyed = candidate.keyed.or_else(|| self.keyed(&candidate.endpoints));
        let Some((key, hash)) = keyed else { return false };
        self.table.find_hashed(&key, hash).is_some()
            || self.syns.find(&key, hash).is_some()
            || self.waits.find(&key, hash).is_some()
    }

    /// The place in the SYN cache, and the hash by which it is found.
    fn half_open_between(&self, endpoints: &Endpoints) -> Option<(u32, u64)> {
        let (key, hash) = self.keyed(endpoints)?;
        Some((self.syns.find(&key, hash)?, hash))
    }

    /// The place among those that have retired.
    fn waiting(&self, endpoints: &Endpoints) -> Option<u32> {
        let (key, hash) = self.keyed(endpoints)?;
        self.waits.find(&key, hash)
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        self.routes.subnet_of(address).is_some()
    }

    /// An address has its tag: on another link it is somebody else's.
    #[inline(always)]
    fn is_ours_on(&self, address: IpAddr, vlan: Option<u16>) -> bool {
        self.routes.has(address, vlan)
    }
}

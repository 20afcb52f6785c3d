//! A worker under orders: it turns until it is told to stop or is done, lets its connections end,
//! and says what it found.
//!
//! ```text
//!   Filling -- what is to be held is --> Running
//!   Running -- ordered, done, or out of time --> Draining -- nothing left, or too long --> Over
//! ```
//! Orders are looked at and counters published once a millisecond; between two looks there is
//! nothing but turns.

use super::wrapped::Wrapped;
use crate::app::App;
use crate::app::client::Client;
use crate::app::server::Server;
use crate::device::{Device, Report};
use crate::stats::Counters;
use crate::stats::publish::{Board, Gauges};
use crate::time::{Instant, Span};
use crate::worker::{Place, Worker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Often enough that a stop is prompt and the line a second is fresh; rare enough to cost nothing:
/// publishing is some sixty stores.
const LOOK_EVERY: Span = Span::from_millis(1);

/// What the control thread tells runners. One may be shared by many.
#[derive(Debug, Default)]
pub struct Orders {
    stop: AtomicBool,
}

impl Orders {
    /// Asks for a graceful stop.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// True once that was asked for.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }
}

/// When a runner stops of itself, and how long its end may take.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// From its first turn; `None` for no limit.
    pub duration: Option<Span>,
    /// How long connections may take to end after the stop.
    pub drain: Span,
    /// Wait for TIME-WAIT to pass as well.
    pub until_empty: bool,
}

/// A worker under orders.
pub struct Runner<D, A: App> {
    worker: Worker<Wrapped<D>, A>,
    milestones: Milestones<A>,
    term: Term,
    orders: Arc<Orders>,
    board: Arc<Board>,
    row: usize,
    frames: usize,
    phase: Phase,
    look_at: Instant,
    turns: u64,
    busy_turns: u64,
    /// The last turn moved no frame.
    idle: bool,
    started: Instant,
    stopped: Instant,
    at_start: Counters,
    at_stop: Counters,
}

/// What a runner asks its application.
pub struct Milestones<A> {
    /// What has to come before the load has come; rates are taken from here on.
    pub ready: fn(&A) -> bool,
    /// It has nothing more to do of itself.
    pub done: fn(&A) -> bool,
}

impl Milestones<Client> {
    pub fn client() -> Milestones<Client> {
        Milestones { ready: Client::ready, done: Client::done }
    }
}

impl Milestones<Server> {
    /// A server is ready from the start, and never done.
    pub fn server() -> Milestones<Server> {
        Milestones { ready: |_| true, done: |_| false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Filling,
    Running,
    Draining,
    Over,
}

/// What a runner found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// From when it was ready to the stop: what rates are taken over.
    pub ran: Span,
    /// From the stop to the end of the last connection, or of patience.
    pub drained: Span,
    /// What was counted in that time.
    pub counted: Counters,
    /// Counters at the very end.
    pub counters: Counters,
    pub turns: u64,
    /// Turns in which any frame moved.
    pub busy_turns: u64,
    /// Connections left open at the end.
    pub live_left: u64,
    /// Connections left in TIME-WAIT at the end.
    pub time_wait_left: u64,
    /// Frames that are in nobody's hands at the end: a bug of ours if not zero.
    pub frames_missing: i64,
    pub bytes_per_connection: u64,
    /// Of one that is idle and has left its slot.
    pub bytes_per_idle: u64,
    /// Of one in TIME-WAIT whose last ACK is out.
    pub bytes_per_time_wait: u64,
    /// Of several workers: the slowest mode, and the sums of the counters.
    pub device: Report,
    /// Why the recording is incomplete, if it is.
    pub pcap_error: Option<String>,
}

impl Finding {
    /// Adds what a later run of the same worker found.
    pub fn follow(&mut self, later: &Finding) {
        let (ran, drained) = (self.ran + later.ran, self.drained + later.drained);
        self.add(later);
        (self.ran, self.drained) = (ran, drained);
    }

    /// Adds what another worker of the same side found.
    pub fn add(&mut self, other: &Finding) {
        self.ran = self.ran.max(other.ran);
        self.drained = self.drained.max(other.drained);
        self.counted.add(&other.counted);
        self.counters.add(&other.counters);
        self.turns += other.turns;
        self.busy_turns += other.busy_turns;
        self.live_left += other.live_left;
        self.time_wait_left += other.time_wait_left;
        self.frames_missing += other.frames_missing;
        if slowness(other.device.mode) > slowness(self.device.mode) {
            self.device.mode = other.device.mode;
        }
        self.device.sums &= other.device.sums;
        for &(name, value) in &other.device.counters {
            match self.device.counters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => self.device.counters.push((name, value)),
            }
        }
    }
}

fn slowness(mode: &str) -> usize {
    ["memory", "zerocopy", "copy", "skb", "packet"]
        .iter()
        .position(|&known| known == mode)
        .unwrap_or(0)
}

impl<D: Device, A: App> Runner<D, A> {
    /// Counters are published in `row` of `board`.
    pub fn new(
        worker: Worker<Wrapped<D>, A>,
        milestones: Milestones<A>,
        term: Term,
        orders: Arc<Orders>,
        board: Arc<Board>,
        row: usize,
    ) -> Runner<D, A> {
        let frames = worker.frames();
        Runner {
            worker,
            milestones,
            term,
            orders,
            board,
            row,
            frames,
            phase: Phase::Filling,
            look_at: Instant::ZERO,
            turns: 0,
            busy_turns: 0,
            idle: false,
            started: Instant::ZERO,
            stopped: Instant::ZERO,
            at_start: Counters::default(),
            at_stop: Counters::default(),
        }
    }

    /// Takes its place among the workers of a run.
    pub fn join(&mut self, place: Place) {
        self.worker.join(place);
    }

    /// True if the last turn moved no frame: another thread may have the core.
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// One turn of the worker. False once everything is over.
    #[inline]
    pub fn turn(&mut self, now: Instant) -> bool {
        let moved = self.worker.turn(now);
        self.busy_turns += u64::from(moved);
        self.idle = !moved;
        self.turns += 1;
        if now >= self.look_at {
            self.look(now);
        }
        self.phase != Phase::Over
    }

    /// Publishes, and goes on to the next phase if it is time to.
    #[cold]
    fn look(&mut self, now: Instant) {
        let stop = self.orders.is_stopped();
        let Milestones { ready, done } = self.milestones;
        if self.phase == Phase::Filling && (stop || ready(&self.worker.engine.app)) {
            self.started = now;
            self.at_start = self.worker.engine.counters;
            self.phase = Phase::Running;
        }
        self.look_at = now + LOOK_EVERY;
        self.publish();
        match self.phase {
            Phase::Filling => {}
            Phase::Running => {
                let ran = now.since(self.started);
                let over = self.term.duration.is_some_and(|duration| ran >= duration);
                if over || stop || done(&self.worker.engine.app) {
                    self.stopped = now;
                    self.at_stop = self.worker.engine.counters;
                    self.worker.engine.stop();
                    self.phase = Phase::Draining;
                }
            }
            Phase::Draining => {
                let engine = &self.worker.engine;
                let left = if self.term.until_empty { engine.connections() } else { engine.live() };
                if left == 0 || now.since(self.stopped) >= self.term.drain {
                    self.phase = Phase::Over;
                }
            }
            Phase::Over => {}
        }
    }

    fn publish(&self) {
        let engine = &self.worker.engine;
        let live = engine.live();
        let gauges = Gauges {
            live: live as u64,
            time_wait: (engine.connections() - live) as u64,
            pool_frames: self.worker.pool.len() as u64,
        };
        self.board.publish(self.row, &engine.counters, &gauges);
    }

    /// What it found, and the application with what that found. The engine's laws are checked once
    /// more.
    pub fn finish(mut self, now: Instant) -> (Finding, A) {
        let pcap_error = self.worker.dev.finish().err().map(|error| error.to_string());
        self.publish();
        let engine = &self.worker.engine;
        engine.check();
        let live_left = engine.live() as u64;
        let finding = Finding {
            ran: self.stopped.since(self.started),
            drained: now.since(self.stopped),
            counted: self.at_stop.since(&self.at_start),
            counters: engine.counters,
            turns: self.turns,
            busy_turns: self.busy_turns,
            live_left,
            time_wait_left: engine.connections() as u64 - live_left,
            frames_missing: self.frames as i64 - self.worker.frames() as i64,
            bytes_per_connection: engine.bytes_per_connection() as u64,
            bytes_per_idle: engine.bytes_per_idle() as u64,
            bytes_per_time_wait: engine.bytes_per_time_wait() as u64,
            device: self.worker.dev.report(),
            pcap_error,
        };
        (finding, self.worker.engine.app)
    }
}

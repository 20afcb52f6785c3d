//! The threads of a run: each on its core, all watched from here, a line a second, a signal passed
//! on.

use super::bulk::Carried;
use super::clock::Clock;
use super::floor;
use super::live::Live;
use super::pin;
use super::runner::{Finding, Orders};
use super::signals::Signals;
use crate::app::results::{Results, Served};
use crate::stats::publish::Board;
use crate::time::{Instant, Span};
use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the watching thread sleeps between two looks: short enough that a signal is answered at
/// once to a person.
const TICK: Duration = Duration::from_millis(10);

/// What one thread does from start to end. It builds what can't move between threads itself.
pub type Job = Box<dyn FnOnce(&Clock) -> Result<Found, String> + Send>;

/// What one thread found: a client's end, a server's, or both.
#[derive(Default)]
pub struct Found {
    pub client: Option<(Finding, Results)>,
    pub server: Option<(Finding, Served)>,
    /// A server on the kernel's sockets.
    pub kernel: Option<Carried>,
    /// An end of the stateless floor, or both.
    pub floor: Option<floor::Tally>,
}

impl Found {
    /// Adds what a bench's threads found in a later slice of it, thread by thread.
    pub fn follow(all: &mut Vec<Found>, later: Vec<Found>) {
        if all.is_empty() {
            *all = later;
            return;
        }
        for (found, later) in all.iter_mut().zip(later) {
            if let (Some((finding, results)), Some((later, more))) =
                (&mut found.client, &later.client)
            {
                finding.follow(later);
                results.merge(more);
            }
            if let (Some((finding, served)), Some((later, more))) =
                (&mut found.server, &later.server)
            {
                finding.follow(later);
                served.merge(more);
            }
        }
    }
}

/// A thread to be started, and the core it belongs on.
pub struct Member {
    pub core: u32,
    pub job: Job,
}

/// What the watching thread needs.
pub struct Watch<'a> {
    pub clock: &'a Clock,
    pub signals: &'a Signals,
    /// Told to stop by a signal.
    pub orders: &'a Arc<Orders>,
    /// Shown once a second; `None` to be quiet.
    pub board: Option<&'a Board>,
}

/// Runs all members to their end, and answers what each found, and whether a signal stopped them.
///
/// # Errors
/// What went wrong in a member; the others were told to stop.
pub fn run(members: Vec<Member>, watch: &Watch<'_>) -> Result<(Vec<Found>, bool), String> {
    let threads: Vec<_> = members
        .into_iter()
        .enumerate()
        .map(|(index, member)| start(index, member, *watch.clock, Arc::clone(watch.orders)))
        .collect::<Result<_, _>>()?;
    let signalled = watch.until_finished(&threads);
    let mut found = Vec::new();
    let mut error = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(part)) => found.push(part),
            Ok(Err(text)) => error = error.or(Some(text)),
            Err(_) => error = error.or(Some("a worker panicked: a bug, see above".to_string())),
        }
    }
    error.map_or(Ok((found, signalled)), Err)
}

fn start(
    index: usize,
    member: Member,
    clock: Clock,
    orders: Arc<Orders>,
) -> Result<JoinHandle<Result<Found, String>>, String> {
    let Member { core, job } = member;
    let body = move || {
        let mut alarm = Alarm { orders, armed: true };
        if let Err(text) = pin::to(core) {
            eprintln!("shakedown: {text}");
        }
        let found = job(&clock);
        alarm.armed = found.is_err();
        found
    };
    let name = format!("worker-{index}");
    std::thread::Builder::new()
        .name(name)
        .spawn(body)
        .map_err(|error| format!("start worker {index}: {error}"))
}

/// Stops the others when a member fails or panics.
struct Alarm {
    orders: Arc<Orders>,
    armed: bool,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.armed {
            self.orders.stop();
        }
    }
}

impl Watch<'_> {
    /// Waits for the threads, prints, and passes a signal on. True if one came before they were
    /// finished.
    fn until_finished<T>(&self, threads: &[JoinHandle<T>]) -> bool {
        const SECOND: Span = Span::from_secs(1);
        let (mut live, mut signalled) = (Live::default(), false);
        let started = self.clock.now();
        let mut line_at: Instant = started + SECOND;
        while !threads.iter().all(JoinHandle::is_finished) {
            if self.signals.came() && !signalled {
                signalled = true;
                self.orders.stop();
            }
            let now = self.clock.now();
            if now >= line_at {
                if let Some(board) = self.board {
                    let (counters, gauges) = board.snapshot();
                    let interval = now.since(line_at - SECOND);
                    let line = live.line(now.since(started), interval, &counters, &gauges);
                    // A closed pipe must not stop a run.
                    let _ = writeln!(std::io::stdout(), "{line}");
                }
                line_at = now + SECOND;
            }
            std::thread::sleep(TICK);
        }
        signalled
    }
}

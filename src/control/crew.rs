//! The threads of a run: each on its core, all watched from here, a line a second, a signal passed
//! on.

use super::bulk::Carried;
use super::clock::Clock;
use super::distance::Tally;
use super::guard::Guard;
use super::live::Live;
use super::pin;
use super::runner::{Finding, Orders};
use super::sandbox::Sandbox;
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
pub type Job = Box<dyn FnOnce(&Post) -> Result<Found, String> + Send>;

/// Where a thread begins, on its core.
pub struct Post {
    clock: Clock,
    sandbox: Sandbox,
}

impl Post {
    /// The clock of a worker's turns. From here on the thread can do what those need, and nothing
    /// else: what it opens, it has opened.
    ///
    /// # Errors
    /// The kernel can't hold it to that.
    pub fn confined(&self) -> Result<&Clock, String> {
        self.sandbox.confine_worker()?;
        Ok(&self.clock)
    }

    /// The clock of a thread that needs all of the kernel.
    pub fn at_large(&self) -> &Clock {
        &self.clock
    }
}

/// What one thread found: a client's end, a server's, or both.
#[derive(Default)]
pub struct Found {
    pub client: Option<(Finding, Results)>,
    pub server: Option<(Finding, Served)>,
    /// A server on the kernel's sockets.
    pub kernel: Option<Carried>,
    /// An end of the stateless floor, or both.
    pub floor: Option<Tally>,
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
    pub sandbox: &'a Sandbox,
    /// Shown once a second; `None` to be quiet.
    pub board: Option<&'a Board>,
}

/// How a run came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    #[default]
    Own,
    /// A signal stopped it.
    Signal,
    /// Something went wrong, in a thread or around it; what the others found holds.
    Fault(String),
}

/// Runs all members to their end, and answers what each found that came to one, and how it ended.
/// If one fails the others are told to stop.
///
/// # Errors
/// A thread can't be started.
pub fn run(
    members: Vec<Member>,
    watch: &Watch<'_>,
    guard: Option<&mut Guard>,
) -> Result<(Vec<Found>, Ending), String> {
    let threads: Vec<_> = members
        .into_iter()
        .enumerate()
        .map(|(index, member)| {
            let post = Post { clock: *watch.clock, sandbox: watch.sandbox.clone() };
            start(index, member, post, Arc::clone(watch.orders))
        })
        .collect::<Result<_, _>>()?;
    let mut ending = watch.until_finished(&threads, guard);
    let mut found = Vec::new();
    for (index, thread) in threads.into_iter().enumerate() {
        let fault = match thread.join() {
            Ok(Ok(part)) => {
                found.push(part);
                continue;
            }
            Ok(Err(text)) => text,
            Err(_) => format!("worker {index} panicked, a bug of ours: see above"),
        };
        if !matches!(ending, Ending::Fault(_)) {
            ending = Ending::Fault(fault);
        }
    }
    Ok((found, ending))
}

fn start(
    index: usize,
    member: Member,
    post: Post,
    orders: Arc<Orders>,
) -> Result<JoinHandle<Result<Found, String>>, String> {
    let Member { core, job } = member;
    let body = move || {
        let mut alarm = Alarm { orders, armed: true };
        if let Err(text) = pin::to(core) {
            eprintln!("shakedown: {text}");
        }
        let found = job(&post);
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
    /// Waits for the threads, prints, and passes on a signal, or what the guard sees, that comes
    /// before they are finished.
    fn until_finished<T>(
        &self,
        threads: &[JoinHandle<T>],
        mut guard: Option<&mut Guard>,
    ) -> Ending {
        const SECOND: Span = Span::from_secs(1);
        let (mut live, mut ending) = (Live::default(), Ending::Own);
        let started = self.clock.now();
        let mut line_at: Instant = started + SECOND;
        while !threads.iter().all(JoinHandle::is_finished) {
            if self.signals.came() && ending == Ending::Own {
                ending = Ending::Signal;
                self.orders.stop();
            }
            let now = self.clock.now();
            if now >= line_at {
                if let Some(fault) = guard.as_mut().and_then(|guard| guard.look())
                    && ending == Ending::Own
                {
                    ending = Ending::Fault(fault);
                    self.orders.stop();
                }
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
        ending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a worker that panics ends the run with its number; what the others found holds, and
    /// they are told to stop.
    #[test]
    fn a_worker_that_panics_takes_nobody_with_it() {
        let orders = Arc::new(Orders::default());
        let waits = Arc::clone(&orders);
        let fails: Job = Box::new(|post: &Post| {
            post.confined()?;
            panic!("planted");
        });
        let lasts: Job = Box::new(move |post: &Post| {
            post.confined()?;
            while !waits.is_stopped() {
                std::thread::yield_now();
            }
            Ok(Found::default())
        });
        let core = pin::cores()[0];
        let members = [lasts, fails].map(|job| Member { core, job });
        let (clock, signals) = (Clock::start(), Signals::watch().unwrap());
        let sandbox = Sandbox::new(true).unwrap();
        let (orders, board) = (&orders, None);
        let watch = Watch { clock: &clock, signals: &signals, orders, sandbox: &sandbox, board };
        let (found, ending) = run(Vec::from(members), &watch, None).unwrap();
        assert_eq!(found.len(), 1);
        let Ending::Fault(why) = ending else { panic!("{ending:?}") };
        assert!(why.starts_with("worker 1 panicked"), "{why}");
    }
}

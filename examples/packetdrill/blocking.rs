//! One lock, the virtual clock, and calls that wait.
//!
//! packetdrill makes a call that blocks in a second thread and goes on with the script in the
//! first, whose calls move time. Whoever moves it stops at each instant at which something happens,
//! lets every waiting call look again, and lets those that are done ask for the time, so that a
//! call returns at the very instant at which it could. That is [`Shared::meet`].

use crate::net::Net;
use crate::ready::Epoll;
use crate::{Errno, Outcome};
use shakedown::time::{Instant, Span};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::IntoRawFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;

/// How long (of real time) a thread whose call is done may take to ask for the time.
const PATIENCE: Duration = Duration::from_millis(500);

/// Virtual time that one call may pass by while no datagram leaves.
const SILENCE_MAX: Span = Span::from_secs(7 * 24 * 3600);

/// What a descriptor stands for.
pub enum Entry {
    Socket(u32),
    Epoll(Epoll),
}

/// Everything, under one lock.
pub struct World {
    pub net: Net,
    /// By descriptor: what it is, and the open file that keeps its number taken.
    pub entries: BTreeMap<i32, (Entry, File)>,
    /// Instants at which a waiting call gives up.
    alarms: Vec<Instant>,
    /// Calls that wait, and those of them that have not looked since time last moved.
    waiting: u32,
    unseen: u32,
    /// Counts the times that they were to look.
    round: u64,
    /// Threads whose call is done and that have not been back.
    returning: Vec<ThreadId>,
    over: bool,
}

/// What packetdrill's `userdata` points to.
pub struct Shared {
    world: Mutex<World>,
    moved: Condvar,
}

type Guard<'a> = MutexGuard<'a, World>;

impl Shared {
    pub fn new(net: Net) -> Shared {
        let world = World {
            net,
            entries: BTreeMap::new(),
            alarms: Vec::new(),
            waiting: 0,
            unseen: 0,
            round: 0,
            returning: Vec::new(),
            over: false,
        };
        Shared { world: Mutex::new(world), moved: Condvar::new() }
    }

    /// Makes a call that does not wait.
    pub fn call<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.enter();
        let answer = act(&mut world);
        world.net.settle();
        drop(self.meet(world));
        answer
    }

    /// Makes a call that waits while `attempt` is pending: until `patience` says, or not at all if
    /// it says nothing. A call whose patience is at its end answers `otherwise`.
    pub fn wait<T>(
        &self,
        patience: impl FnOnce(&World) -> Option<Instant>,
        otherwise: Errno,
        mut attempt: impl FnMut(&mut World) -> Poll<Outcome<T>>,
    ) -> Outcome<T> {
        let mut world = self.enter();
        let first = attempt(&mut world);
        world.net.settle();
        let pending = first.is_pending();
        match (first, patience(&world).filter(|_| pending)) {
            (Poll::Ready(answer), _) => {
                drop(self.meet(world));
                answer
            }
            (Poll::Pending, None) => {
                drop(self.meet(world));
                Err(otherwise)
            }
            (Poll::Pending, Some(until)) => self.park(world, until, otherwise, attempt),
        }
    }

    /// The second half of [`Shared::wait`].
    fn park<'a, T>(
        &'a self,
        mut world: Guard<'a>,
        until: Instant,
        otherwise: Errno,
        mut attempt: impl FnMut(&mut World) -> Poll<Outcome<T>>,
    ) -> Outcome<T> {
        world.waiting += 1;
        world.alarms.push(until);
        let mut seen = world.round;
        let answer = loop {
            world = self.sleep(world, |world| world.round == seen && !world.over);
            let answer = match world.over {
                true => Poll::Ready(Err(Errno(libc::EINTR))),
                false => attempt(&mut world),
            };
            world.net.settle();
            let news = world.round != seen;
            seen = world.round;
            world.unseen -= u32::from(news);
            match answer {
                Poll::Ready(answer) => break answer,
                Poll::Pending if world.net.now >= until => break Err(otherwise),
                Poll::Pending => self.moved.notify_all(),
            }
        };
        world.waiting -= 1;
        let place = world.alarms.iter().position(|alarm| *alarm == until);
        world.alarms.swap_remove(place.expect("each waiting call has its alarm"));
        world.returning.push(thread::current().id());
        self.moved.notify_all();
        answer
    }

    /// Passes time until `until`, or until a datagram is there if `until` is [`Instant::NEVER`],
    /// letting happen on the way what is due.
    pub fn pass(&self, span: Option<Span>) -> Option<crate::net::Departure> {
        let mut world = self.enter();
        let start = world.net.now;
        let until = start + span.unwrap_or(SILENCE_MAX);
        loop {
            world.net.settle();
            world = self.meet(world);
            if span.is_none()
                && let Some(departure) = world.net.departures.pop_front()
            {
                return Some(departure);
            }
            let alarm = world.alarms.iter().copied().min().unwrap_or(Instant::NEVER);
            let next = world.net.next().min(alarm);
            if next > until {
                break;
            }
            // What is overdue and does not happen must not hold time up.
            world.net.now = next.max(world.net.now + Span::from_nanos(1));
        }
        if span.is_some() {
            world.net.now = until.max(world.net.now);
        }
        None
    }

    /// The time, which creeps by a microsecond a call: who spins until a moment gets there.
    pub fn time(&self) -> Instant {
        let mut world = self.enter();
        world.net.now += Span::from_micros(1);
        world.net.now
    }

    /// Wakes whoever waits, and waits until they are gone.
    pub fn end(&self) {
        let mut world = self.enter();
        world.over = true;
        self.moved.notify_all();
        drop(self.sleep(world, |world| world.waiting > 0));
    }

    /// Leaves the descriptors that are open to packetdrill, which closes them itself.
    pub fn leave_descriptors(self) {
        let world = self.world.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (_, file) in world.entries.into_values() {
            let _ = file.into_raw_fd();
        }
    }

    /// The thread is here again; what has come due since the last call happens first.
    fn enter(&self) -> Guard<'_> {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let me = thread::current().id();
        if let Some(place) = world.returning.iter().position(|thread| *thread == me) {
            world.returning.swap_remove(place);
            self.moved.notify_all();
        }
        world.net.settle();
        world
    }

    /// Lets every waiting call look again, and those that are done go.
    fn meet<'a>(&'a self, mut world: Guard<'a>) -> Guard<'a> {
        if world.waiting > 0 {
            world.round += 1;
            world.unseen = world.waiting;
            self.moved.notify_all();
            world = self.sleep(world, |world| world.unseen > 0);
        }
        let back = |world: &mut World| !world.returning.is_empty();
        let waited = self.moved.wait_timeout_while(world, PATIENCE, back);
        world = waited.unwrap_or_else(PoisonError::into_inner).0;
        world.returning.clear();
        world
    }

    fn sleep<'a>(&'a self, world: Guard<'a>, while_: impl Fn(&World) -> bool) -> Guard<'a> {
        let woken = self.moved.wait_while(world, |world| while_(world));
        woken.unwrap_or_else(PoisonError::into_inner)
    }
}

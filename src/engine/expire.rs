//! What happens without a frame: timers, launches, and the drain of a run that is to stop.

use super::{EXPIRIES_MAX, Engine};
use crate::app::{App, Launch, Refusal};
use crate::flow::tuples::{PLACES_MAX, Tuples};
use crate::flow::{Endpoints, FlowKey};
use crate::tcp::{Env, Expiry, State};
use crate::time::Instant;
use crate::wire::Family;

/// Connections launched a turn: half a burst, so that answers to what came in find room beside
/// their SYNs.
const LAUNCHES_MAX: usize = 32;

/// Four-tuples looked at a turn, each once at the most. The walk meets each again only after all
/// others; connections that are held were opened one after the other, and so stand in its way in
/// one run, however long.
const TUPLE_TRIES: u32 = 1024;

/// Four-tuples drawn ahead: as many as it takes for memory to answer.
pub(super) const DRAWN_AHEAD: usize = 8;

/// A four-tuple that a connection may get.
pub(super) struct Candidate {
    pub endpoints: Endpoints,
    /// Its key with the hash of that, over IPv4, where they are for good: the number of an IPv6
    /// host may be another's by then.
    pub keyed: Option<(FlowKey, u64)>,
}

impl<A: App> Engine<A> {
    /// Lets due timers fire.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, EXPIRIES_MAX, &mut due);
        for node in due.drain(..) {
            match node.checked_sub(self.nodes.syn(0)) {
                None => {
                    let slot = self.awake(node, now);
                    self.expire_slot(slot, now);
                }
                Some(place) => self.expire_syn(place, now),
            }
        }
        self.due = due;
        let Engine { waits, neighbors, table, .. } = self;
        waits.expire(now, EXPIRIES_MAX, |wait| {
            neighbors.leave(wait.neighbor);
            table.hosts.leave(&wait.key);
        });
    }

    /// The time of the connection in a slot has come, or that of one that had the slot before.
    fn expire_slot(&mut self, slot: u32, now: Instant) {
        let tcb = &mut self.table.tcbs[slot as usize];
        tcb.armed = Instant::NEVER;
        if tcb.state() == State::Closed {
            return;
        }
        let keepalive = self.keepalive(slot);
        // RFC 9293 s3.8.3, MUST-21: R2 is the application's to choose.
        let usual = self.config.tcp.data_retries;
        let data_retries = self.app.data_retries(&self.table.states[slot as usize], usual);
        let tcb = &mut self.table.tcbs[slot as usize];
        let before = tcb.state();
        let paths = &mut self.table.paths;
        let mut env = Env { config: &self.config.tcp, now, room: 0, nagle: false, paths };
        match tcb.expires(keepalive, data_retries, &mut env) {
            Expiry::Early => return self.rearm(slot, now),
            Expiry::ResendSyn | Expiry::Resend => {
                self.counters.timeouts += 1;
                self.doubt(slot, now);
            }
            Expiry::Reorder | Expiry::ProbeTail => {}
            Expiry::ProbeWindow => self.counters.zero_window_probes += 1,
            Expiry::Acknowledge => self.counters.delayed_acks += 1,
            Expiry::ProbeKeepalive => self.counters.keepalive_probes += 1,
            Expiry::TimeWaitOver => {
                self.in_time_wait -= 1;
                self.discard(slot);
                return;
            }
            Expiry::Ended(end) => return self.end(slot, before, end, now),
        }
        self.settle(slot, now);
    }

    /// A connection may have passed R1. RFC 9293 s3.8.3, MUST-20 (b): the next hop is asked for
    /// again; SHLD-9: the application is told.
    fn doubt(&mut self, slot: u32, now: Instant) {
        if self.tcb(slot).is_in_doubt() {
            self.neighbors.doubt(self.tcb(slot).neighbor, now);
            self.tell(slot, now, |app, conn| app.stalled(conn));
        }
    }

    /// Lets the application open connections. A four-tuple comes first: what the application asks
    /// for is then either launched, or refused because a whole round of the walk found none free.
    pub(super) fn launch(&mut self, now: Instant) {
        let Some(tuples) = &self.tuples else { return };
        let mut tries = tuples.count().min(u64::from(TUPLE_TRIES)) as u32;
        for _ in 0..LAUNCHES_MAX {
            if self.app.next_launch(now) > now {
                return;
            }
            let tuple = self.free_tuple(&mut tries);
            if tuple.is_none() && !self.is_exhausted() {
                // The walk goes on in the next turn.
                return;
            }
            let Some(Launch { mut state }) = self.app.launch(now) else {
                if let Some(tuple) = tuple {
                    self.drawn.push_front(tuple);
                }
                return;
            };
            let launched = match &tuple {
                Some(tuple) => self.open(now, tuple, state),
                None => Err(Refusal::NoTuple),
            };
            let Err(refusal) = launched else { continue };
            match refusal {
                Refusal::NoTuple => self.counters.launch_no_tuple += 1,
                Refusal::TableFull => self.counters.launch_table_full += 1,
                Refusal::NotAHost => self.counters.launch_not_a_host += 1,
            }
            self.app.refused(now, &mut state, refusal);
        }
    }

    /// The next four-tuple of the walk that is free.
    fn free_tuple(&mut self, tries: &mut u32) -> Option<Candidate> {
        while *tries > 0 {
            *tries -= 1;
            let Some(tuple) = self.draw(tries) else { continue };
            if !self.is_taken(&tuple) {
                self.tuples_missed = 0;
                return Some(tuple);
            }
            self.tuples_missed += 1;
        }
        None
    }

    /// A whole round of the walk found nothing free, and nothing was since.
    fn is_exhausted(&self) -> bool {
        let all = |tuples: &Tuples| tuples.count().saturating_add(DRAWN_AHEAD as u64);
        self.tuples.as_ref().is_none_or(|tuples| self.tuples_missed >= all(tuples))
    }

    /// The next four-tuple of the walk. Others are drawn ahead, so that their places in the indices
    /// are near when their turn comes.
    fn draw(&mut self, tries: &mut u32) -> Option<Candidate> {
        while self.drawn.len() < DRAWN_AHEAD {
            let Some(tuple) = self.tuples.as_mut()?.next() else {
                self.tuples_missed += u64::from(PLACES_MAX);
                *tries = tries.saturating_sub(PLACES_MAX);
                break;
            };
            let drawn = self.candidate(tuple);
            self.drawn.push_back(drawn);
        }
        self.drawn.pop_front()
    }

    /// A four-tuple of which is soon to be asked whether it is taken.
    #[inline(always)]
    pub(super) fn candidate(&self, endpoints: Endpoints) -> Candidate {
        let keyed = self.keyed(&endpoints);
        if let Some((_, hash)) = keyed {
            self.table.prefetch_hashed(hash);
            self.waits.prefetch_hashed(hash);
        }
        Candidate { endpoints, keyed: keyed.filter(|(key, _)| key.family() == Family::V4) }
    }

    /// While stopping: asks each connection once to close, at most so many now.
    pub(super) fn drain(&mut self, now: Instant, most: u32) {
        let slots = self.table.tcbs.len() as u32;
        if (slots..self.config.connections_max).contains(&self.drain_at) {
            self.drain_at = self.config.connections_max;
        }
        let last = if self.drain_at < slots { slots } else { self.table.places() };
        let end = self.drain_at.saturating_add(most).min(last);
        for place in self.drain_at..end {
            if self.table.is_resting(place) {
                // It is asked as it wakes.
                if self.table.resting(place).is_some() {
                    let slot = self.wake(place, now);
                    self.settle(slot, now);
                }
                continue;
            }
            let slot = place;
            match self.tcb(slot).state() {
                State::Closed | State::Listen | State::TimeWait => {}
                State::SynSent
                | State::SynReceived
                | State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck => {
                    self.tell(slot, now, |app, conn| app.drain(conn));
                    self.settle(slot, now);
                }
            }
        }
        self.drain_at = self.drain_at.max(end);
    }
}

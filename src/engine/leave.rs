//! How a connection leaves: told to the application, counted, out of the table; by way of TIME-WAIT
//! out of its slot.

use super::Engine;
use crate::app::App;
use crate::tcp::{End, State, TimeWait};
use crate::time::Instant;

impl<A: App> Engine<A> {
    /// The application's connection is over although the block stays: TIME-WAIT.
    #[inline]
    pub(super) fn begin_time_wait(&mut self, slot: u32, now: Instant) {
        self.table.paths.reclaim(&mut self.table.tcbs[slot as usize]);
        // It will retire as soon as its last ACK is out.
        self.waits.prefetch(&self.tcb(slot).key);
        self.in_time_wait += 1;
        self.counters.time_waits += 1;
        self.counters.closed += 1;
        self.counters.end_finished += 1;
        self.app.ended(now, &mut self.table.states[slot as usize], End::Finished);
    }

    /// A connection that was in `before` is CLOSED now: counts it, tells the application, gives the
    /// slot back.
    #[inline(never)]
    pub(super) fn end(&mut self, slot: u32, before: State, end: End, now: Instant) {
        self.count_end(before, end);
        self.app.ended(now, &mut self.table.states[slot as usize], end);
        self.discard(slot);
    }

    pub(super) fn count_end(&mut self, before: State, end: End) {
        let counters = &mut self.counters;
        match before {
            State::SynSent | State::SynReceived => counters.attempt_fails += 1,
            State::Established | State::CloseWait => counters.estab_resets += 1,
            State::Closed
            | State::Listen
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
        }
        match end {
            End::Finished => {
                counters.closed += 1;
                counters.end_finished += 1;
            }
            End::Reset => counters.end_reset += 1,
            End::Refused => counters.end_refused += 1,
            End::SynTimeout => counters.end_syn_timeout += 1,
            End::DataTimeout => counters.end_data_timeout += 1,
            End::KeepaliveTimeout => counters.end_keepalive_timeout += 1,
            End::FinWait2Timeout => counters.end_fin_wait2_timeout += 1,
            End::Aborted => counters.end_aborted += 1,
            End::Unreachable => counters.end_unreachable += 1,
        }
    }

    /// Takes a block out of the table; the slot is free as soon as its last words are sent. Answers
    /// the hash of its key.
    #[inline]
    pub(super) fn discard(&mut self, slot: u32) -> u64 {
        // The wheel looks at the slot all the same: by then it is mostly another's, whose time has
        // not come, and who has not had to file it.
        let hash = self.table.unfile(slot);
        if self.tcb(slot).owes() {
            self.ready.push(&mut self.table.tcbs, slot);
        }
        self.release(slot);
        hash
    }

    /// A connection in TIME-WAIT has said its last word: it waits elsewhere from here on.
    #[inline]
    pub(super) fn retire(&mut self, slot: u32) {
        let tcb = &mut self.table.tcbs[slot as usize];
        let wait = tcb.freeze(&self.config.tcp);
        tcb.abort();
        self.neighbors.hold(wait.neighbor);
        self.table.hosts.hold_again(&wait.key);
        let hash = self.discard(slot);
        self.in_time_wait -= 1;
        if let Some(given_up) = self.waits.push(wait, hash) {
            self.counters.time_wait_overflows += 1;
            self.forget(&given_up);
        }
    }

    /// What held for a connection in TIME-WAIT holds no more.
    pub(super) fn forget(&mut self, wait: &TimeWait) {
        self.neighbors.leave(wait.neighbor);
        self.table.hosts.leave(&wait.key);
    }

    /// Gives the slot of a block that is out of the table back, and its share of the next hop,
    /// unless a queue still has to come to it.
    #[inline]
    pub(super) fn release(&mut self, slot: u32) {
        if !self.table.is_queued(slot) {
            self.neighbors.leave(self.tcb(slot).neighbor);
            self.table.release(slot);
        }
    }
}

//! Idle connections rest: where many are held, those that have nothing under way leave their slots
//! for less memory, until a segment, a timer or the application has something for them.
//!
//! Nobody rests while few slots are in use. Beyond that, each connection that takes a slot has
//! [`LOOKS`] others looked at, on the way round; so the slots in use are as many as connections
//! that are not idle, and a share more.

use super::Engine;
use crate::app::App;
use crate::time::Instant;

/// Slots looked at for each that is taken: more than one, or idle connections would fill slots as
/// fast as they leave them.
const LOOKS: u64 = 3;

/// So many slots before a connection is looked at, which may rest, it is asked for the line of the
/// index where it is to be filed anew.
const ASKED: usize = 6;

/// Slots looked at a turn, at the most.
const LOOKS_MAX: u64 = 256;

/// Where the round of looks stands.
#[derive(Default)]
pub struct Round {
    /// The slot to be looked at next.
    hand: u32,
    /// Slots that were taken when the last looks were done.
    taken: u64,
}

impl<A: App> Engine<A> {
    /// Lets some connections rest, if many slots are in use.
    #[inline]
    pub(super) fn rest(&mut self, now: Instant) {
        if self.table.taken() > self.config.awake_max as usize && !self.stopping {
            self.look_round(now);
        }
    }

    #[inline(never)] // Out of the way of engines that hold few connections.
    fn look_round(&mut self, now: Instant) {
        let counters = &self.counters;
        let taken = counters.active_opens + counters.passive_opens + counters.idle_woken;
        let looks = (taken - self.round.taken).saturating_mul(LOOKS).min(LOOKS_MAX);
        self.round.taken = taken;
        for _ in 0..looks {
            let slot = self.round.hand;
            self.round.hand = if slot as usize + 1 < self.table.tcbs.len() { slot + 1 } else { 0 };
            if let Some(soon) = self.table.tcbs.get(slot as usize + ASKED)
                && soon.is_idle(now)
            {
                self.table.prefetch_hashed(self.table.hash(&soon.key));
            }
            if self.tcb(slot).is_idle(now) && !self.table.is_queued(slot) {
                self.let_rest(slot);
            }
        }
    }

    /// Lets an idle connection rest, if its application can do with that.
    fn let_rest(&mut self, slot: u32) {
        let Some(kept) = self.app.rest(&self.table.states[slot as usize]) else { return };
        let deadline = self.tcb(slot).deadline(&self.config.tcp, self.keepalive(slot));
        let place = self.table.rest(slot, kept);
        if deadline != Instant::NEVER {
            self.wheel.arm(place, deadline);
        }
        self.counters.idle_rested += 1;
    }

    /// The slot of the connection that is filed at `place`: it is woken if it rests.
    #[inline]
    pub(super) fn awake(&mut self, place: u32, now: Instant) -> u32 {
        if self.table.is_resting(place) { self.wake(place, now) } else { place }
    }

    /// Gives the connection that rests at `place` a slot again. Whoever calls settles it.
    #[cold]
    pub(super) fn wake(&mut self, place: u32, now: Instant) -> u32 {
        self.wheel.cancel(place);
        let Engine { app, table, .. } = self;
        let slot = table.wake(place, now, |kept| app.wake(kept));
        self.counters.idle_woken += 1;
        if self.stopping {
            // It was not yet asked.
            self.tell(slot, now, |app, conn| app.drain(conn));
        }
        slot
    }
}

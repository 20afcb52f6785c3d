//! A client's bulk transfer over [`stream`](super::stream)'s protocol: so many bytes up, so many
//! down, all of them verified at the end that they come to. An upload may also go to a sink that
//! says nothing (`discard`, or `nc -l`); it is then good when all of it was acknowledged.

use super::results::{Progress, Results};
use super::stream::{ENDLESS, ORDER_BYTES, Order, RECEIPT_BYTES, Receipt};
use super::{Owes, pattern};

/// What each connection of a run transfers.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    up: u64,
    down: u64,
}

/// A connection's.
#[derive(Clone, Copy, Debug)]
pub struct State {
    salt: u32,
    /// What came down so far was right.
    right: bool,
    /// We end it before its end.
    stopping: bool,
    /// Bytes of the receipt that were read.
    read: u8,
    received: u64,
    acked: u64,
    receipt: Receipt,
}

impl Plan {
    /// Bytes each way, or [`ENDLESS`].
    ///
    /// # Panics
    /// If there are none.
    pub fn new(up: u64, down: u64) -> Plan {
        assert!(up > 0 || down > 0, "a transfer has a byte");
        Plan { up, down }
    }

    fn order(&self, state: &State) -> Order {
        Order { salt: state.salt, up: self.up, down: self.down }
    }

    /// The order, and all that goes up. An upload closes behind its last byte.
    pub fn begin(&self) -> Owes {
        let all = Owes::send(self.up.saturating_add(ORDER_BYTES as u64));
        if self.down == 0 && self.up != ENDLESS { all.and(Owes::CLOSE) } else { all }
    }

    pub fn received(&self, state: &mut State, data: &[u8], results: &mut Results) -> Progress {
        let text = self.down.saturating_sub(state.received).min(data.len() as u64);
        let (text, receipt) = data.split_at(text as usize);
        let wrong = pattern::mismatches(self.order(state).salt_down(), state.received, text);
        results.verify_errors += wrong;
        state.right &= wrong == 0;
        state.received += text.len() as u64;
        if receipt.len() > RECEIPT_BYTES - usize::from(state.read) {
            return Progress::Broken;
        }
        for &byte in receipt {
            state.receipt.take(state.read, byte);
            state.read += 1;
        }
        if usize::from(state.read) == RECEIPT_BYTES {
            state.judge(results)
        } else {
            Progress::Waiting
        }
    }

    pub fn acknowledged(&self, state: &mut State, acked: u64) {
        state.acked = acked;
    }

    /// The peer's FIN without a receipt: the end of what we stopped, or of a sink that has all.
    pub fn peer_closed(&self, state: &State) -> Progress {
        let sunk = self.down == 0 && state.read == 0 && state.uploaded() == self.up;
        if state.stopping || sunk { state.complete(true) } else { Progress::Waiting }
    }

    /// Ends with what was sent so far; the peer sends no more than it has sent.
    pub fn stop(&self, state: &mut State) -> Owes {
        state.stopping = true;
        Owes::CURTAIL.and(Owes::CLOSE)
    }

    pub fn payload(&self, state: &State, offset: u64, out: &mut [u8]) {
        let order = self.order(state).to_bytes();
        let start = order.get(offset.min(ORDER_BYTES as u64) as usize..).unwrap_or_default();
        let (ahead, text) = out.split_at_mut(out.len().min(start.len()));
        ahead.copy_from_slice(&start[..ahead.len()]);
        pattern::fill(state.salt, offset.saturating_sub(ORDER_BYTES as u64), text);
    }
}

impl State {
    /// `salt` tells this connection's bytes from others'.
    pub fn new(salt: u32) -> State {
        State {
            salt,
            right: true,
            stopping: false,
            read: 0,
            received: 0,
            acked: 0,
            receipt: Receipt::default(),
        }
    }

    /// Bytes that the peer has acknowledged, the order left out.
    fn uploaded(&self) -> u64 {
        self.acked.saturating_sub(ORDER_BYTES as u64)
    }

    /// Did what we sent arrive whole and right?
    fn judge(&self, results: &mut Results) -> Progress {
        let Receipt { bytes, wrong } = self.receipt;
        let whole = bytes == self.uploaded();
        results.length_errors += u64::from(!whole);
        results.verify_errors += wrong;
        self.complete(whole && wrong == 0)
    }

    fn complete(&self, good: bool) -> Progress {
        Progress::Complete { good: good && self.right, last: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::stream::{self, Served};
    use proptest::prelude::*;

    /// A client's and a server's state, the bytes that went each way, and what was found.
    struct Pair {
        plan: Plan,
        client: State,
        server: stream::State,
        sent: [u64; 2],
        results: Results,
    }

    impl Pair {
        fn new(up: u64, down: u64) -> Pair {
            let sent = [0; 2];
            let (client, server) = (State::new(99), stream::State::default());
            Pair { plan: Plan::new(up, down), client, server, sent, results: Results::default() }
        }

        /// The next `bytes` up; answers what the server then owes.
        fn up(&mut self, bytes: usize) -> Owes {
            let mut text = vec![0; bytes];
            self.plan.payload(&self.client, self.sent[0], &mut text);
            self.sent[0] += bytes as u64;
            let owes = self.server.received(&text, &mut Served::default());
            self.plan.acknowledged(&mut self.client, self.sent[0]);
            owes
        }

        /// The next `bytes` down, after `harm` was done to them.
        fn down(&mut self, bytes: usize, harm: impl Fn(&mut [u8])) -> Progress {
            let mut text = vec![0; bytes];
            self.server.payload(self.sent[1], &mut text);
            harm(&mut text);
            self.sent[1] += bytes as u64;
            self.plan.received(&mut self.client, &text, &mut self.results)
        }
    }

    proptest! {
        /// Goal: both ends agree on every byte, however each direction is cut.
        #[test]
        fn a_transfer_both_ways_is_good_however_it_is_cut(
            up in 1u64..3000, down in 1u64..3000, step in 1usize..500,
        ) {
            let mut pair = Pair::new(up, down);
            prop_assert_eq!(pair.plan.begin(), Owes::send(up + 32));
            let mut owes = Owes::NOTHING;
            while pair.sent[0] < up + 32 {
                owes = owes.and(pair.up(step.min((up + 32 - pair.sent[0]) as usize)));
            }
            prop_assert_eq!(owes, Owes::send(down + 16).and(Owes::CLOSE));
            let mut progress = Progress::Waiting;
            while pair.sent[1] < down + 16 {
                prop_assert_eq!(progress, Progress::Waiting);
                progress = pair.down(step.min((down + 16 - pair.sent[1]) as usize), |_| {});
            }
            prop_assert_eq!(progress, Progress::Complete { good: true, last: true });
            prop_assert_eq!(pair.results.verify_errors + pair.results.length_errors, 0);
        }
    }

    #[test]
    fn wrong_bytes_are_counted_and_no_transfer_with_one_is_good() {
        let mut pair = Pair::new(1, 100);
        pair.up(33);
        let progress = pair.down(116, |text| text[50] ^= 1);
        assert_eq!(progress, Progress::Complete { good: false, last: true });
        assert_eq!(pair.results.verify_errors, 1);
        let mut pair = Pair::new(1, 100);
        pair.up(33);
        let progress = pair.down(116, |text| text[115] = 5);
        assert_eq!(progress, Progress::Complete { good: false, last: true });
        assert_eq!(pair.results.verify_errors, 5, "the receipt says five");
        let mut pair = Pair::new(1, 100);
        pair.up(33);
        pair.down(116, |text| text[107] = 9);
        assert_eq!(pair.results.length_errors, 1, "the receipt says nine bytes came");
        let mut pair = Pair::new(1, 100);
        pair.up(33);
        pair.down(116, |_| {});
        assert_eq!(pair.plan.received(&mut pair.client, b"x", &mut pair.results), Progress::Broken);
    }

    #[test]
    fn an_upload_closes_behind_its_last_byte_and_a_sink_that_has_all_is_enough() {
        let mut pair = Pair::new(500, 0);
        assert_eq!(pair.plan.begin(), Owes::send(532).and(Owes::CLOSE));
        pair.up(531);
        assert_eq!(pair.plan.peer_closed(&pair.client), Progress::Waiting);
        pair.up(1);
        let good = Progress::Complete { good: true, last: true };
        assert_eq!(pair.plan.peer_closed(&pair.client), good);
        assert_eq!(pair.down(16, |_| {}), good);
    }

    #[test]
    fn what_is_stopped_ends_with_what_was_sent() {
        let mut pair = Pair::new(ENDLESS, ENDLESS);
        assert_eq!(pair.plan.begin(), Owes::send(ENDLESS));
        pair.up(1000);
        assert_eq!(pair.down(1000, |_| {}), Progress::Waiting);
        assert_eq!(pair.plan.peer_closed(&pair.client), Progress::Waiting);
        assert_eq!(pair.plan.stop(&mut pair.client), Owes::CURTAIL.and(Owes::CLOSE));
        let good = Progress::Complete { good: true, last: true };
        assert_eq!(pair.plan.peer_closed(&pair.client), good);
    }
}

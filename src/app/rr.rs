//! A client's request and response of fixed sizes, against `echo` (ours, or any other) or, with no
//! response, `discard`. An echo is compared byte for byte.

use super::pattern;
use super::results::{Progress, Results};

/// The sizes of all exchanges of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    request_bytes: u64,
    response_bytes: u64,
}

/// A connection's.
#[derive(Clone, Copy, Debug)]
pub struct State {
    salt: u32,
    /// Bytes of the current response still to come.
    left: u64,
    /// Bytes of all responses so far.
    received: u64,
    /// Bytes of all requests so far.
    sent: u64,
}

impl Plan {
    /// # Panics
    /// If both are zero: such a transaction would have no end.
    pub fn new(request_bytes: u64, response_bytes: u64) -> Plan {
        assert!(request_bytes > 0 || response_bytes > 0, "a transaction needs a byte");
        Plan { request_bytes, response_bytes }
    }

    /// Starts the next transaction. Answers the bytes of its request.
    pub fn begin(&self, state: &mut State) -> u64 {
        state.left = self.response_bytes;
        state.sent = state.sent.saturating_add(self.request_bytes);
        self.request_bytes
    }

    pub fn received(&self, state: &mut State, data: &[u8], results: &mut Results) -> Progress {
        let bytes = data.len() as u64;
        if bytes > state.left {
            return Progress::Broken;
        }
        if self.request_bytes == self.response_bytes {
            results.verify_errors += pattern::mismatches(state.salt, state.received, data);
        }
        state.received += bytes;
        state.left -= bytes;
        if state.left == 0 { Progress::GOOD } else { Progress::Waiting }
    }

    /// A request without a response is done when all of it is acknowledged.
    pub fn acknowledged(&self, state: &State, acked: u64) -> Progress {
        if self.response_bytes == 0 && acked == state.sent {
            Progress::GOOD
        } else {
            Progress::Waiting
        }
    }
}

impl State {
    /// `salt` tells this connection's bytes from others'.
    pub fn new(salt: u32) -> State {
        State { salt, left: 0, received: 0, sent: 0 }
    }

    pub fn payload(&self, offset: u64, out: &mut [u8]) {
        pattern::fill(self.salt, offset, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_complete_with_its_last_byte_and_a_wrong_byte_is_counted() {
        let plan = Plan::new(1000, 1000);
        let (mut state, mut results) = (State::new(9), Results::default());
        for transaction in 0..3 {
            assert_eq!(plan.begin(&mut state), 1000);
            let mut data = [0; 1000];
            state.payload(transaction * 1000, &mut data);
            data[500] ^= 1;
            assert_eq!(plan.received(&mut state, &data[..999], &mut results), Progress::Waiting);
            assert_eq!(plan.received(&mut state, &data[999..], &mut results), Progress::GOOD);
            assert_eq!(results.verify_errors, transaction + 1);
        }
        assert_eq!(plan.received(&mut state, b"more", &mut results), Progress::Broken);
    }

    #[test]
    fn a_request_without_response_is_complete_when_acknowledged() {
        let plan = Plan::new(10, 0);
        let mut state = State::new(0);
        plan.begin(&mut state);
        assert_eq!(plan.acknowledged(&state, 9), Progress::Waiting);
        assert_eq!(plan.acknowledged(&state, 10), Progress::GOOD);
        plan.begin(&mut state);
        assert_eq!(plan.acknowledged(&state, 10), Progress::Waiting);
    }

    #[test]
    fn a_response_of_another_size_is_counted_and_not_compared() {
        let plan = Plan::new(1, 5);
        let (mut state, mut results) = (State::new(0), Results::default());
        plan.begin(&mut state);
        assert_eq!(plan.received(&mut state, b"hello", &mut results), Progress::GOOD);
        assert_eq!(results.verify_errors, 0);
    }
}

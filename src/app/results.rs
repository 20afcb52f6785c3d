//! What a client and a server find out, as values: added up over workers, printed by control.

use super::{Refusal, http, stream};
use crate::stats::histogram::Histogram;
use crate::tcp::End;
use crate::time::Span;

/// How a transaction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// The response is complete. `good` if it is what was asked for, `last` if the peer will close.
    Complete {
        good: bool,
        last: bool,
    },
    /// What came can't be understood.
    Broken,
}

impl Progress {
    pub const GOOD: Progress = Progress::Complete { good: true, last: false };
}

/// Connections by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends([u64; End::ALL.len()]);

impl Ends {
    pub fn count(&mut self, end: End) {
        self.0[end as usize] += 1;
    }

    pub fn of(&self, end: End) -> u64 {
        self.0[end as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn merge(&mut self, other: &Ends) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// What a client found out.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// Connections whose SYN was owed.
    pub launched: u64,
    /// Connections that were due and could not be launched, by reason.
    pub refused_no_tuple: u64,
    pub refused_table_full: u64,
    pub refused_not_a_host: u64,
    /// Connections launched more than 1 ms after they were due: the limit of connections, or this
    /// machine, held them up.
    pub launched_late: u64,
    /// The most that a launch was behind its due time.
    pub lag_max: Span,
    pub established: u64,
    /// Connections that ended as the workload meant them to: by FIN from both sides, or by the RST
    /// it chose to send.
    pub finished: u64,
    /// All others, by reason. None of them is [`End::Finished`].
    pub failed: Ends,
    /// From the scheduled start of a connection to ESTABLISHED.
    pub handshake: Histogram,
    /// From the request to the last byte of its response, of transactions without error.
    pub transaction: Histogram,
    /// Responses (or, where none is asked for, acknowledged requests) without error.
    pub transactions: u64,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// Responses with another status than 200.
    pub status_errors: u64,
    /// Responses with another length than asked for.
    pub length_errors: u64,
    /// Connections aborted because what the peer sent is not the protocol, or more than was asked
    /// for.
    pub protocol_errors: u64,
    /// Connections that the peer closed before a response was complete.
    pub incomplete: u64,
    /// Received bytes that are not the ones expected.
    pub verify_errors: u64,
    /// Connections that were to be held, ended, and were opened anew.
    pub reopened: u64,
}

impl Results {
    pub fn refused(&mut self, why: Refusal) {
        match why {
            Refusal::NoTuple => self.refused_no_tuple += 1,
            Refusal::TableFull => self.refused_table_full += 1,
            Refusal::NotAHost => self.refused_not_a_host += 1,
        }
    }

    /// Adds another worker's.
    pub fn merge(&mut self, other: &Results) {
        // Destructured, so that a field that is not added does not compile.
        let Results {
            launched,
            refused_no_tuple,
            refused_table_full,
            refused_not_a_host,
            launched_late,
            lag_max,
            established,
            finished,
            failed,
            handshake,
            transaction,
            transactions,
            received_bytes,
            status_errors,
            length_errors,
            protocol_errors,
            incomplete,
            verify_errors,
            reopened,
        } = other;
        self.launched += launched;
        self.refused_no_tuple += refused_no_tuple;
        self.refused_table_full += refused_table_full;
        self.refused_not_a_host += refused_not_a_host;
        self.launched_late += launched_late;
        self.lag_max = self.lag_max.max(*lag_max);
        self.established += established;
        self.finished += finished;
        self.failed.merge(failed);
        self.handshake.merge(handshake);
        self.transaction.merge(transaction);
        self.transactions += transactions;
        self.received_bytes += received_bytes;
        self.status_errors += status_errors;
        self.length_errors += length_errors;
        self.protocol_errors += protocol_errors;
        self.incomplete += incomplete;
        self.verify_errors += verify_errors;
        self.reopened += reopened;
    }
}

/// What a server found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub established: u64,
    /// HTTP requests.
    pub http: http::Served,
    /// Bulk transfers.
    pub stream: stream::Served,
    /// Connections aborted because all echo buffers were taken.
    pub echo_refused: u64,
    /// Connections by how they ended, attempts that were not established included.
    pub ended: Ends,
}

impl Served {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &Served) {
        let Served { established, http, stream, echo_refused, ended } = other;
        self.established += established;
        let http::Served { requests, rejected } = http;
        self.http.requests += requests;
        self.http.rejected += rejected;
        let stream::Served { orders, rejected, verify_errors } = stream;
        self.stream.orders += orders;
        self.stream.rejected += rejected;
        self.stream.verify_errors += verify_errors;
        self.echo_refused += echo_refused;
        self.ended.merge(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_reason() {
        let mut ends = Ends::default();
        for (times, end) in End::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| ends.count(end));
        }
        assert!(End::ALL.into_iter().enumerate().all(|(times, end)| ends.of(end) == times as u64));
        ends.merge(&ends.clone());
        assert_eq!(ends.total(), 2 * 36);
    }

    #[test]
    fn merging_adds_counts_and_keeps_the_worst_lag() {
        let one = |lag| {
            let mut results =
                Results { launched: 1, lag_max: Span::from_millis(lag), ..Results::default() };
            results.handshake.record(Span::from_millis(lag));
            results
        };
        let mut sum = one(5);
        sum.merge(&one(3));
        assert_eq!(
            (sum.launched, sum.lag_max, sum.handshake.summary().count),
            (2, Span::from_millis(5), 2)
        );
    }
}

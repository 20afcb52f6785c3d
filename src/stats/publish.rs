//! From the workers to the control thread without a lock: each worker stores into a row of its own,
//! control adds them up.
//!
//! Stores and loads are relaxed. One value is never torn and never goes back, but two values of a
//! snapshot may be a few turns apart: good enough for a line a second, and exact once a worker has
//! published for the last time and was joined.

use super::Counters;
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const COUNTERS: usize = Counters::TABLE.len();

/// One core's present state, where [`Counters`] are its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections that are not in TIME-WAIT.
    pub live: u64,
    /// Connections in TIME-WAIT.
    pub time_wait: u64,
    /// Free frames in the pool.
    pub pool_frames: u64,
}

/// The latest counters and gauges of every worker.
pub struct Board {
    rows: Box<[CachePadded<Row>]>,
}

/// A worker's row. On cache lines of its own, so that no worker slows another.
struct Row {
    counters: [AtomicU64; COUNTERS],
    gauges: [AtomicU64; 3],
}

impl Board {
    /// A board of zeros for workers `0..workers`.
    pub fn new(workers: usize) -> Board {
        let zero = || AtomicU64::new(0);
        let row = || Row {
            counters: std::array::from_fn(|_| zero()),
            gauges: std::array::from_fn(|_| zero()),
        };
        Board { rows: (0..workers).map(|_| CachePadded::new(row())).collect() }
    }

    /// Stores the present values of `worker`. About one store a counter: for every millisecond, not
    /// for every turn.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn publish(&self, worker: usize, counters: &Counters, gauges: &Gauges) {
        let row = &self.rows[worker];
        for (cell, value) in row.counters.iter().zip(counters.values()) {
            cell.store(value, Relaxed);
        }
        let Gauges { live, time_wait, pool_frames } = *gauges;
        for (cell, value) in row.gauges.iter().zip([live, time_wait, pool_frames]) {
            cell.store(value, Relaxed);
        }
    }

    /// The sums over all workers.
    pub fn snapshot(&self) -> (Counters, Gauges) {
        let (mut counters, mut gauges) = (Counters::default(), Gauges::default());
        for row in &self.rows {
            let values = std::array::from_fn(|index| row.counters[index].load(Relaxed));
            counters.add(&Counters::from_values(values));
            let [live, time_wait, pool_frames] =
                [0, 1, 2].map(|index| row.gauges[index].load(Relaxed));
            gauges.live += live;
            gauges.time_wait += time_wait;
            gauges.pool_frames += pool_frames;
        }
        (counters, gauges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_the_sum_of_what_the_workers_published_last() {
        let board = Board::new(2);
        assert_eq!(board.snapshot(), Default::default());
        let mut counters = Counters { in_segs: 5, out_segs: 1, ..Counters::default() };
        board.publish(0, &counters, &Gauges { live: 3, time_wait: 1, pool_frames: 10 });
        counters.in_segs = 7;
        board.publish(0, &counters, &Gauges { live: 2, time_wait: 2, pool_frames: 11 });
        board.publish(1, &counters, &Gauges { live: 1, time_wait: 0, pool_frames: 20 });
        let (sum, gauges) = board.snapshot();
        assert_eq!(sum, Counters { in_segs: 14, out_segs: 2, ..Counters::default() });
        assert_eq!(gauges, Gauges { live: 3, time_wait: 2, pool_frames: 31 });
    }

    #[test]
    fn a_reader_never_sees_a_counter_go_back() {
        let board = Board::new(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000 {
                    let counters = Counters { in_segs: n, ..Counters::default() };
                    board.publish(0, &counters, &Gauges::default());
                }
            });
            let mut last = 0;
            while last < 19_999 {
                let seen = board.snapshot().0.in_segs;
                assert!(seen >= last);
                last = seen;
            }
        });
    }
}

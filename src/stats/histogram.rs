//! Latencies: how many took how long, to three digits, in fixed memory.

use crate::time::Span;
use hdrhistogram::Histogram as Hdr;

/// The longest latency told apart from longer ones, in ns: 1000 s. Longer ones are counted as this.
const LONGEST_NS: u64 = 1_000_000_000_000;

/// A latency histogram from 1 ns to 1000 s with three significant digits (about 250 kB). Recording
/// allocates nothing.
#[derive(Clone, Debug)]
pub struct Histogram {
    spans: Hdr<u64>,
}

/// What a report says of a histogram. All zero if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub p50: Span,
    pub p90: Span,
    pub p99: Span,
    pub p999: Span,
    pub max: Span,
    pub mean: Span,
    /// Number of latencies recorded.
    pub count: u64,
}

impl Histogram {
    /// An empty one. All memory is allocated here.
    pub fn new() -> Histogram {
        let spans = Hdr::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are constants");
        Histogram { spans }
    }

    /// Counts one latency; above 1000 s it counts as 1000 s.
    pub fn record(&mut self, span: Span) {
        self.spans.saturating_record(span.as_nanos().min(LONGEST_NS));
    }

    /// Adds what another one recorded, as a worker's to the run's.
    pub fn merge(&mut self, other: &Histogram) {
        self.spans.add(&other.spans).expect("every histogram has the same bounds");
    }

    /// Forgets everything recorded, as between two intervals.
    pub fn reset(&mut self) {
        self.spans.reset();
    }

    /// The summary so far. Not for the fast path.
    pub fn summary(&self) -> Summary {
        let quantile = |q| Span::from_nanos(self.spans.value_at_quantile(q));
        Summary {
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: Span::from_nanos(self.spans.max()),
            mean: Span::from_nanos(self.spans.mean() as u64),
            count: self.spans.len(),
        }
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(span: Span, nanos: u64) -> bool {
        span.as_nanos().abs_diff(nanos) <= nanos / 1000 + 1
    }

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut latencies = Histogram::new();
        (1..=10_000).for_each(|n| latencies.record(Span::from_micros(n)));
        let Summary { p50, p90, p99, p999, max, mean, count } = latencies.summary();
        assert!(close(p50, 5_000_000) && close(p90, 9_000_000) && close(p99, 9_900_000));
        assert!(close(p999, 9_990_000) && close(max, 10_000_000) && close(mean, 5_000_500));
        assert_eq!(count, 10_000);
    }

    #[test]
    fn an_empty_histogram_is_all_zero() {
        assert_eq!(Histogram::new().summary(), Summary::default());
    }

    #[test]
    fn zero_and_endless_latencies_are_counted_at_the_bounds() {
        let mut latencies = Histogram::new();
        latencies.record(Span::ZERO);
        latencies.record(Span::MAX);
        let summary = latencies.summary();
        assert_eq!((summary.count, summary.p50), (2, Span::ZERO));
        assert!(close(summary.max, LONGEST_NS));
    }

    #[test]
    fn merging_is_as_if_one_had_recorded_all() {
        let (mut a, mut b, mut both) = (Histogram::new(), Histogram::new(), Histogram::new());
        for n in 1..1000 {
            let span = Span::from_nanos(n * n * 7);
            if n % 3 == 0 {
                a.record(span)
            } else {
                b.record(span)
            }
            both.record(span);
        }
        a.merge(&b);
        assert_eq!(a.summary(), both.summary());
        a.reset();
        assert_eq!(a.summary(), Summary::default());
    }
}

//! A line a second: what happened in it, and how things stand.

use crate::stats::Counters;
use crate::stats::publish::Gauges;
use crate::time::Span;

/// Turns two snapshots into a line.
#[derive(Debug, Default)]
pub struct Live {
    last: Counters,
}

/// With more payload for each connection opened than this, it is bytes that the run is about.
const BULK_BYTES: u64 = 64 * 1024;

impl Live {
    /// The line for the interval of length `interval` that ends now, `elapsed` after the start.
    pub fn line(
        &mut self,
        elapsed: Span,
        interval: Span,
        counters: &Counters,
        gauges: &Gauges,
    ) -> String {
        let seconds = interval.as_secs_f64().max(1e-9);
        let more = |pick: fn(&Counters) -> u64| pick(counters).saturating_sub(pick(&self.last));
        let opened = more(|c| c.active_opens + c.passive_opens);
        let carried = more(|c| c.tx_payload_bytes + c.rx_payload_bytes);
        let per_second = |count: u64| short(count as f64 / seconds);
        let happened = if carried / (opened + 1) > BULK_BYTES {
            format!(
                "sent {:>6}bit/s  received {:>6}bit/s",
                per_second(more(|c| c.tx_payload_bytes) * 8),
                per_second(more(|c| c.rx_payload_bytes) * 8),
            )
        } else {
            format!(
                "opened {:>6}/s  established {:>6}/s  ended {:>6}/s",
                per_second(opened),
                per_second(more(|c| c.established)),
                per_second(more(ended)),
            )
        };
        let line = format!(
            "{:>4.0}s  {happened}  open {:>6}  TIME-WAIT {:>6}  failed {:>5}  resent {:>5}",
            elapsed.as_secs_f64(),
            short(gauges.live as f64),
            short(gauges.time_wait as f64),
            short(failed(counters) as f64),
            short(counters.retrans_segs as f64),
        );
        self.last = *counters;
        line
    }
}

/// Connections that ended, in whatever way.
fn ended(counters: &Counters) -> u64 {
    counters.end_finished + counters.end_aborted + failed(counters)
}

/// Connections that ended in a way nobody here asked for.
pub fn failed(counters: &Counters) -> u64 {
    counters.end_reset
        + counters.end_refused
        + counters.end_syn_timeout
        + counters.end_data_timeout
        + counters.end_keepalive_timeout
        + counters.end_fin_wait2_timeout
        + counters.end_unreachable
}

/// A number in at most six characters: `950`, `12.3k`, `1.25M`, `9.41G`.
pub fn short(value: f64) -> String {
    match value {
        v if v < 999.5 => format!("{v:.0}"),
        v if v < 99_950.0 => format!("{:.1}k", v / 1e3),
        v if v < 999_500.0 => format!("{:.0}k", v / 1e3),
        v if v < 99_995_000.0 => format!("{:.2}M", v / 1e6),
        v if v < 999_500_000.0 => format!("{:.0}M", v / 1e6),
        v => format!("{:.2}G", v / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        let texts = [0.4, 950.0, 999.6, 12_345.0, 123_456.0, 999_600.0, 1_250_000.0, 3e8, 9.41e9];
        let shown: Vec<_> = texts.into_iter().map(short).collect();
        assert_eq!(shown, ["0", "950", "1.0k", "12.3k", "123k", "1.00M", "1.25M", "300M", "9.41G"]);
    }

    #[test]
    fn a_line_shows_the_interval_and_not_the_whole_run() {
        let mut live = Live::default();
        let gauges = Gauges { live: 7, time_wait: 3, pool_frames: 100 };
        let mut counters = Counters { active_opens: 1000, ..Counters::default() };
        let second = Span::from_secs(1);
        let first = live.line(second, second, &counters, &gauges);
        assert!(first.contains("opened   1.0k/s"), "{first}");
        counters.active_opens += 500;
        let line = live.line(Span::from_secs(2), second, &counters, &gauges);
        assert!(line.starts_with("   2s  opened    500/s"), "{line}");
        assert!(line.contains("open      7  TIME-WAIT      3"), "{line}");
        counters.tx_payload_bytes = 125_000_000;
        let line = live.line(Span::from_secs(3), second, &counters, &gauges);
        assert!(line.starts_with("   3s  sent  1.00Gbit/s  received      0bit/s"), "{line}");
    }
}

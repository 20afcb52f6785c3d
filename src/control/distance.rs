//! How far the engine is from the stateless floor: by rate where both go as fast as they can, by
//! the time that a handshake takes where both are given a rate.

use super::crew::Found;
use super::live::short;
use crate::floor::IN_FLIGHT_MAX;
use crate::stats::histogram::{Histogram, Summary};
use crate::time::Span;
use serde_json::{Value, json};

/// What one thread of the floor found. Rates are of the client's end, up to its stop.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub pace: Pace,
    /// At a rate: from when a connection was due to its SYN-ACK.
    pub opened: Option<Histogram>,
    pub lost: u64,
    /// Frames that were not answered, for whatever reason, at either end.
    pub dropped: u64,
}

/// How much in how long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub ran: Span,
    pub connections: u64,
    /// Sent and received by the client: each once on the link.
    pub packets: u64,
    /// That were at work, each for `ran`.
    pub cores: u64,
}

/// What one slice showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Half {
    pub pace: Pace,
    /// At a rate, from when a connection was due to its SYN-ACK.
    pub opened: Summary,
}

impl Half {
    /// Of the engine's threads.
    pub fn of_engine(found: &[Found]) -> Half {
        let mut pace = Pace { cores: found.len() as u64, ..Pace::default() };
        let mut opened = Histogram::new();
        for (client, results) in found.iter().filter_map(|found| found.client.as_ref()) {
            pace.ran = pace.ran.max(client.ran);
            pace.connections += client.counted.established;
            pace.packets += client.counted.rx_frames + client.counted.tx_frames;
            opened.merge(&results.handshake);
        }
        Half { pace, opened: opened.summary() }
    }

    /// Of the floor's threads.
    fn of_floor(tallies: &[Tally]) -> Half {
        let (mut pace, mut all) = (Pace::default(), Histogram::new());
        for Tally { pace: part, opened, .. } in tallies {
            pace.ran = pace.ran.max(part.ran);
            pace.connections += part.connections;
            pace.packets += part.packets;
            pace.cores += part.cores;
            if let Some(opened) = opened {
                all.merge(opened);
            }
        }
        Half { pace, opened: all.summary() }
    }

    fn p50(&self) -> f64 {
        self.opened.p50.as_secs_f64()
    }

    fn p99(&self) -> f64 {
        self.opened.p99.as_secs_f64()
    }

    fn connections_per_second(&self) -> f64 {
        self.pace.connections as f64 / self.pace.ran.as_secs_f64().max(1e-9)
    }

    fn packets_per_second(&self) -> f64 {
        self.pace.packets as f64 / self.pace.ran.as_secs_f64().max(1e-9)
    }

    /// Time of a core for a packet, sent at one end and received at the other.
    fn packet_nanos(&self) -> f64 {
        let Pace { ran, packets, cores, .. } = self.pace;
        cores as f64 * ran.as_nanos() as f64 / packets.max(1) as f64
    }
}

/// What came of a run with the floor between its slices.
#[derive(Default)]
pub(super) struct Outcome {
    /// The engine's and the floor's.
    slices: Vec<(Half, Half)>,
    /// What was asked for, of all cores together.
    in_flight: u32,
    at_a_rate: bool,
    lost: u64,
    dropped: u64,
}

impl Outcome {
    /// Of no slice yet, with `in_flight` connections asked for.
    pub fn new(in_flight: u32, at_a_rate: bool) -> Outcome {
        Outcome { in_flight, at_a_rate, ..Outcome::default() }
    }

    /// Adds a slice of the engine and the one of the floor that followed.
    pub fn add(&mut self, ours: Half, floor: impl Iterator<Item = Tally>) {
        let tallies: Vec<Tally> = floor.collect();
        self.slices.push((ours, Half::of_floor(&tallies)));
        self.lost += tallies.iter().map(|tally| tally.lost).sum::<u64>();
        self.dropped += tallies.iter().map(|tally| tally.dropped).sum::<u64>();
    }

    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// For the report.
    pub fn json(&self) -> Value {
        let of = |pick: fn(&Half) -> f64| -> Vec<f64> { self.ratios(pick).collect() };
        let by_slice = of(Half::connections_per_second);
        let (p50, p99) = (of(Half::p50), of(Half::p99));
        let handshake = self.at_a_rate.then(|| {
            json!({
                "p50": median(p50.iter().copied()), "p50_by_slice": p50,
                "p99": median(p99.iter().copied()), "p99_by_slice": p99,
            })
        });
        json!({
            "slices": self.slices.len(),
            "engine": self.half(|(ours, _)| ours),
            "floor": self.half(|(_, floor)| floor),
            "ratio": median(by_slice.iter().copied()),
            "ratio_by_slice": by_slice,
            "handshake_ratio": handshake,
            "connections_lost_total": self.lost,
            "frames_dropped_total": self.dropped,
        })
    }

    /// For people.
    pub fn note(&self) -> String {
        let mut note = if self.at_a_rate { self.waits() } else { self.rates() };
        if self.in_flight > IN_FLIGHT_MAX && !self.at_a_rate {
            note += &format!("; it had at most {IN_FLIGHT_MAX} connections under way a client");
        }
        if self.lost + self.dropped > 0 {
            let (lost, dropped) = (self.lost, self.dropped);
            note += &format!("; it lost {lost} connections and dropped {dropped} frames");
        }
        note
    }

    fn rates(&self) -> String {
        let of = |pick: fn(&Half) -> f64| median(self.slices.iter().map(|(_, floor)| pick(floor)));
        format!(
            "the stateless floor on the same link: {} connections/s, {} packets/s, {:.0} ns of a core a packet; \
             we reach {:.2} of it, with {:.0} ns (medians of {})",
            short(of(Half::connections_per_second)),
            short(of(Half::packets_per_second)),
            of(Half::packet_nanos),
            median(self.ratios(Half::connections_per_second)),
            median(self.slices.iter().map(|(ours, _)| ours.packet_nanos())),
            self.slices.len(),
        )
    }

    fn waits(&self) -> String {
        let of = |pick: fn(&Half) -> f64| {
            let seconds = median(self.slices.iter().map(|(_, floor)| pick(floor)));
            Span::from_nanos((seconds * 1e9).round() as u64)
        };
        format!(
            "the stateless floor at this rate on the same link: from due to SYN-ACK p50 {}, p99 {}; \
             we take {:.2} and {:.2} times as long (medians of {})",
            of(Half::p50),
            of(Half::p99),
            median(self.ratios(Half::p50)),
            median(self.ratios(Half::p99)),
            self.slices.len(),
        )
    }

    /// The engine's by those of the floor's slice that followed.
    fn ratios(&self, pick: fn(&Half) -> f64) -> impl Iterator<Item = f64> + '_ {
        self.slices.iter().map(move |(ours, floor)| pick(ours) / pick(floor).max(1e-9))
    }

    fn half(&self, whose: fn(&(Half, Half)) -> &Half) -> Value {
        let of = |pick: fn(&Half) -> f64| median(self.slices.iter().map(whose).map(pick));
        let handshake =
            self.at_a_rate.then(|| json!({ "p50": of(Half::p50), "p99": of(Half::p99) }));
        json!({
            "connections_per_second": of(Half::connections_per_second),
            "packets_per_second": of(Half::packets_per_second),
            "packet_nanoseconds": of(Half::packet_nanos),
            "handshake_seconds": handshake,
        })
    }
}

/// The middle one; of an even number, the higher of two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(connections: u64, wait: Span) -> Half {
        let pace =
            Pace { ran: Span::from_secs(1), connections, packets: 6 * connections, cores: 2 };
        let opened = Summary { p50: wait, p99: wait.times(10), ..Summary::default() };
        Half { pace, opened }
    }

    fn outcome(at_a_rate: bool) -> Outcome {
        let of = |connections, micros| half(connections, Span::from_micros(micros));
        let slices =
            vec![(of(10, 30), of(20, 10)), (of(90, 10), of(100, 10)), (of(400, 22), of(500, 11))];
        Outcome { slices, in_flight: 100, at_a_rate, lost: 0, dropped: 0 }
    }

    #[test]
    fn a_slice_is_compared_with_the_one_next_to_it() {
        let outcome = outcome(false);
        let json = outcome.json();
        assert_eq!(json["ratio"], 0.8);
        assert_eq!(json["engine"]["connections_per_second"], 90.0);
        assert_eq!(json["floor"]["packets_per_second"], 600.0);
        assert!(json["handshake_ratio"].is_null());
        assert!(outcome.note().contains("100 connections/s, 600 packets/s"), "{}", outcome.note());
        assert!(outcome.note().contains("we reach 0.80 of it"), "{}", outcome.note());
        let lossy = Outcome { in_flight: 1000, lost: 3, dropped: 4, ..outcome };
        let note = lossy.note();
        assert!(note.contains("lost 3 connections and dropped 4 frames"), "{note}");
        assert!(note.contains("at most 192"), "{note}");
    }

    #[test]
    fn at_a_rate_what_is_compared_is_how_long_a_handshake_takes() {
        let outcome = outcome(true);
        let json = outcome.json();
        let ratio = json["handshake_ratio"]["p99"].as_f64().expect("there is one");
        assert!((ratio - 2.0).abs() < 1e-9, "the median of 3, 1 and 2: {ratio}");
        let floor = json["floor"]["handshake_seconds"]["p50"].as_f64().expect("there is one");
        assert!((floor - 10e-6).abs() < 1e-12, "the median of 10, 10 and 11 µs: {floor}");
        let note = outcome.note();
        assert!(note.contains("we take 2.00 and 2.00 times as long"), "{note}");
        assert!(!note.contains("at most"), "{note}");
    }
}

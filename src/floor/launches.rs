//! What a client of the floor knows: when it launches, and how many connections are under way.

use super::SEQS_BITS;
use crate::app::schedule::Schedule;
use crate::stats::histogram::Histogram;
use crate::time::Instant;
use crate::wire::segment::Segment;

/// An ISN is the generation, the connection's number, and room for its sequence numbers.
const GENERATION_AT: u32 = 24;
const NUMBERS: usize = 1 << (GENERATION_AT - SEQS_BITS);

/// The connections under way, of the generation that began last and of the one before. A
/// generation gets as old as [`PATIENCE`](super::PATIENCE); its number stands in the ISN, and so in
/// what the server acknowledges.
pub(super) struct Launches {
    generation: u8,
    young: u32,
    old: u32,
    /// The most there are to be.
    most: u32,
    /// Of all ever launched, wrapping.
    number: u32,
    port: u16,
    ports: (u16, u16),
    stopped: bool,
    paced: Option<Paced>,
}

/// At a rate: when connections are due, and what a round trip takes from then on. What it keeps of
/// the connections under way is the client's only memory of any.
struct Paced {
    schedule: Schedule,
    /// When each was due, by number; of so few connections none is under way when its number comes
    /// round again.
    due: Box<[Instant]>,
    opened: Histogram,
}

impl Launches {
    /// Connections from each of `ports` in turn, `most` under way.
    pub fn new(ports: (u16, u16), most: u32, schedule: Option<Schedule>) -> Launches {
        assert!(ports.0 <= ports.1);
        let paced = schedule.map(|schedule| Paced {
            schedule,
            due: vec![Instant::ZERO; NUMBERS].into(),
            opened: Histogram::new(),
        });
        Launches {
            generation: 0,
            young: 0,
            old: 0,
            most,
            number: 0,
            port: ports.0,
            ports,
            stopped: false,
            paced,
        }
    }

    /// Whether there is one to be launched now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.stopped || self.under_way() >= self.most {
            return false;
        }
        self.paced.as_mut().is_none_or(|paced| paced.schedule.due(now) <= now)
    }

    /// Port and ISN of the next connection, which is under way from now on.
    pub fn next(&mut self, now: Instant) -> (u16, u32) {
        let port = self.port;
        self.port = if port == self.ports.1 { self.ports.0 } else { port + 1 };
        self.number = self.number.wrapping_add(1);
        self.young += 1;
        let place = (self.number << SEQS_BITS) & ((1 << GENERATION_AT) - 1);
        if let Some(Paced { schedule, due, .. }) = &mut self.paced {
            due[self.number as usize % NUMBERS] = schedule.due(now);
            schedule.advance();
        }
        (port, u32::from(self.generation) << GENERATION_AT | place)
    }

    /// Takes note of a segment of the exchange, which opened a connection or `finished` it or
    /// neither; false if it belongs to one that was given up.
    pub fn heard(&mut self, now: Instant, segment: &Segment, opened: bool, finished: bool) -> bool {
        // What the server acknowledges is at most `1 << SEQS_BITS` past the ISN.
        let generation = (segment.ack >> GENERATION_AT) as u8;
        let count = match self.generation.wrapping_sub(generation) {
            0 => &mut self.young,
            1 => &mut self.old,
            _ => return false,
        };
        if finished {
            // A frame that came twice must not count below zero.
            *count = count.saturating_sub(1);
        }
        if let (true, Some(Paced { due, opened, .. })) = (opened, &mut self.paced) {
            let number = (segment.ack >> SEQS_BITS) as usize % NUMBERS;
            opened.record(now.since(due[number]));
        }
        true
    }

    /// Begins a generation, and tells how many connections are given up: what is two old.
    pub fn next_generation(&mut self) -> u32 {
        let lost = self.old;
        (self.old, self.young) = (self.young, 0);
        self.generation = self.generation.wrapping_add(1);
        lost
    }

    /// Launches nothing more.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    pub fn under_way(&self) -> u32 {
        self.young + self.old
    }

    /// From when a connection was due to its SYN-ACK, where they are launched at a rate.
    pub fn opened(&self) -> Option<&Histogram> {
        self.paced.as_ref().map(|paced| &paced.opened)
    }
}

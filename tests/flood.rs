//! SYN floods (RFC 4987): SYNs from addresses that answer nothing fill the SYN cache and nothing
//! else, and whoever answers goes on being served. And floods of segments to a connection by
//! somebody who guesses at its numbers (RFC 5961): few are answered, and none harms.

mod common;

use common::crowd::{Crowd, OURS6, ack, syn};
use shakedown::app::{App, Conn};
use shakedown::flow::Endpoints;
use shakedown::tcp::{self, CookiesWhen, End, State};
use shakedown::time::{Instant, Span};
use shakedown::wire::Family;
use shakedown::wire::options::Options;
use shakedown::wire::segment::Segment;
use shakedown::wire::tcp::Flags;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BACKLOG: u32 = 256;
const CONNECTIONS: u32 = 4096;

/// Counts who was established.
#[derive(Default)]
struct Tally {
    established: u64,
    ended: u64,
}

impl App for Tally {
    type State = ();
    type Idle = ();

    fn established(&mut self, _conn: &mut Conn<'_, ()>) {
        self.established += 1;
    }
    fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}
    fn peer_closed(&mut self, _conn: &mut Conn<'_, ()>) {}
    fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
    fn ended(&mut self, _now: Instant, _state: &mut (), _end: End) {
        self.ended += 1;
    }
    fn payload(&self, _state: &(), _offset: u64, _out: &mut [u8]) {}
}

fn lab(syncookies: CookiesWhen) -> Crowd<Tally> {
    let tcp = tcp::Config { syn_backlog: BACKLOG, syncookies, ..tcp::Config::default() };
    Crowd::new(Tally::default(), CONNECTIONS, tcp)
}

/// A hundred thousand SYNs from nowhere, an honest client for every hundred, whose answers take
/// 20 ms; answers how many of the thousand get in.
fn served_in_a_flood(lab: &mut Crowd<Tally>, family: Family) -> u64 {
    let mut under_way: VecDeque<(Instant, Segment)> = VecDeque::new();
    for n in 0..1000 {
        let mut segments: Vec<Segment> = (0..100).map(|_| lab.spoofed(family)).collect();
        let client: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(10, 0, 0, 1).into(),
            Family::V6 => Ipv6Addr::from_bits(OURS6.to_bits() - 1).into(),
        };
        segments.push(syn(client, 2000 + n));
        while under_way.front().is_some_and(|(at, _)| *at <= lab.now) {
            segments.extend(under_way.pop_front().map(|(_, segment)| segment));
        }
        let answers = lab.turn(&segments);
        let to_client = answers.iter().filter(|answer| answer.dst == client);
        let later = lab.now + Span::from_millis(20);
        let syn_acks = to_client.filter(|answer| answer.flags.has(Flags::SYN));
        under_way.extend(syn_acks.map(|answer| (later, ack(answer))));
        lab.engine.check();
    }
    let late: Vec<Segment> = under_way.into_iter().map(|(_, segment)| segment).collect();
    lab.now += Span::from_millis(20);
    lab.turn(&late);
    lab.engine.check();
    lab.engine.app.established
}

#[test]
fn every_honest_client_is_served_in_a_flood() {
    for family in [Family::V4, Family::V6] {
        let mut lab = lab(CookiesWhen::Full);
        assert_eq!(served_in_a_flood(&mut lab, family), 1000);
        let counters = lab.engine.counters;
        assert!(counters.syncookies_sent > 90_000, "{}", counters.syncookies_sent);
        assert_eq!(counters.req_q_full_do_cookies, counters.syncookies_sent);
        assert!(counters.syncookies_recv > 900);
        assert_eq!((counters.listen_overflows, counters.req_q_full_drop), (0, 0));
        assert_eq!(lab.engine.connections(), 1000 + BACKLOG as usize);
    }
}

#[test]
fn without_cookies_hardly_anybody_is_served_in_a_flood() {
    let mut lab = lab(CookiesWhen::Off);
    let served = served_in_a_flood(&mut lab, Family::V4);
    let counters = lab.engine.counters;
    assert!(served < 20, "{served}");
    assert_eq!(counters.passive_opens + counters.req_q_full_drop, 101_000);
    assert_eq!((counters.syncookies_sent, counters.syncookies_recv), (0, 0));
}

/// Goal: what a flood leaves behind is gone when its SYN-ACKs were sent as often as they are, and
/// no SYN-ACK is sent more often than that.
#[test]
fn a_flood_leaves_nothing_behind() {
    let mut lab = lab(CookiesWhen::Off);
    let flood: Vec<Segment> = (0..2000).map(|_| lab.spoofed(Family::V4)).collect();
    let mut sent = lab.turn(&flood).len();
    assert_eq!(lab.engine.connections(), BACKLOG as usize);
    while lab.engine.connections() > 0 {
        lab.now += Span::from_millis(100);
        assert!(lab.now < Instant::ZERO + Span::from_secs(300));
        for _ in 0..8 {
            let one = lab.spoofed(Family::V4);
            sent += lab.turn(&[Segment { flags: Flags::FIN, ..one }]).len();
        }
    }
    // Those of a cache that is more than half full are given up sooner.
    let (pressed, tries) = (BACKLOG / 2, 1 + u32::from(tcp::Config::default().syn_retries));
    assert_eq!(sent as u32, 3 * pressed + tries * (BACKLOG - pressed));
    let counters = lab.engine.counters;
    assert_eq!(counters.end_syn_timeout, u64::from(BACKLOG));
    assert_eq!(counters.attempt_fails, u64::from(BACKLOG));
    assert_eq!(lab.engine.app.ended, u64::from(BACKLOG));
    lab.engine.check();
}

/// Goal: a client that comes again from a port whose connection is in TIME-WAIT here is answered at
/// once, beyond the old one's numbers, however full the cache is. A cookie could not promise that:
/// one in two such SYNs was dropped, and its client waited a second.
#[test]
fn who_comes_again_finds_room_in_a_full_cache() {
    let mut lab = lab(CookiesWhen::Full);
    let client: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
    let flood: Vec<Segment> = (0..2000).map(|_| lab.spoofed(Family::V4)).collect();
    lab.turn(&flood);
    let mut old = Vec::new();
    for port in 2000..2100 {
        let syn_ack = lab.turn(&[syn(client, port)])[0];
        let acked = ack(&syn_ack);
        lab.turn(&[acked]);
        let endpoints = Endpoints::of_received(&acked);
        assert!(lab.engine.prod(lab.now, &endpoints, |_, conn| conn.close()));
        let stray = Segment { flags: Flags::FIN, ..lab.spoofed(Family::V4) };
        let fin = lab.turn(&[stray])[0];
        assert!(fin.flags.has(Flags::FIN));
        let last = Segment { flags: Flags::FIN | Flags::ACK, ack: fin.seq + 1, ..acked };
        assert_eq!(lab.turn(&[last]).len(), 1);
        assert_eq!(lab.engine.state_of(&endpoints), State::TimeWait);
        old.push(fin.seq);
    }
    let mut answers = Vec::new();
    for (port, old) in (2000..).zip(old) {
        let mut again = syn(client, port);
        again.seq += 1 << 20;
        again.options.timestamps = Some((3, 0));
        let answer = lab.turn(&[again]);
        assert_eq!(answer.len(), 1, "{port}");
        assert!((answer[0].seq.wrapping_sub(old) as i32) > 0, "{port}");
        answers.push(answer[0]);
    }
    lab.engine.check();
    for answer in answers {
        let acked = ack(&answer);
        let timestamps = answer.options.timestamps.map(|(value, _)| (4, value));
        lab.turn(&[Segment { options: Options { timestamps, ..Options::NONE }, ..acked }]);
        assert_eq!(lab.engine.state_of(&Endpoints::of_received(&acked)), State::Established);
    }
    lab.engine.check();
    assert_eq!(lab.engine.counters.req_q_full_drop, 100);
}

/// Goal: ACKs out of nowhere, while cookies are about, make no connection.
#[test]
fn guessed_cookies_make_no_connection() {
    let mut lab = lab(CookiesWhen::Always);
    let first = lab.spoofed(Family::V4);
    assert_eq!(lab.turn(&[first]).len(), 1);
    for _ in 0..1000 {
        let guesses: Vec<Segment> = (0..64)
            .map(|_| {
                let bits = lab.rng.next();
                let (seq, ack) = (bits as u32, (bits >> 32) as u32);
                Segment { seq, ack, flags: Flags::ACK, ..lab.spoofed(Family::V4) }
            })
            .collect();
        let answers = lab.turn(&guesses);
        assert!(answers.iter().all(|answer| answer.flags == Flags::RST));
    }
    assert_eq!(lab.engine.counters.syncookies_failed, 64_000);
    assert_eq!(lab.engine.connections(), 0);
}

/// Goal: whatever a stranger tries on a connection, it answers now and then, each connection by
/// itself; it stays what it is, and what its peer sends is answered always (RFC 5961 s3-s5, s7).
#[test]
fn a_connection_answers_a_stranger_now_and_then_and_its_peer_always() {
    // Offsets to its right numbers; `n` goes up.
    type Offsets = fn(u32) -> (u32, u32);
    let tries: [(&str, Flags, Offsets); 5] = [
        ("RST in the window", Flags::RST, |n| (1 + n, 0)),
        ("SYN", Flags::SYN, |n| (n, 0)),
        ("ACK of what was not sent", Flags::ACK, |n| (0, 1 + n)),
        ("ACK that is too old", Flags::ACK, |n| (0, 0u32.wrapping_sub(100_000_000 + n))),
        ("out of the window", Flags::ACK, |n| (0u32.wrapping_sub(1 + n), 0)),
    ];
    for (name, flags, offsets) in tries {
        let attempt = |on: Segment, n| {
            let (seq, ack) = offsets(n);
            let (seq, ack) = (on.seq.wrapping_add(seq), on.ack.wrapping_add(ack));
            Segment { seq, ack, flags, ..on }
        };
        let mut lab = lab(CookiesWhen::Full);
        let peers = [2000, 2001].map(|port| {
            let syn_ack = lab.turn(&[syn(Ipv4Addr::new(10, 0, 0, 1).into(), port)]);
            let mut ack = ack(&syn_ack[0]);
            assert!(lab.turn(&[ack]).is_empty());
            ack.options = Options::NONE;
            ack
        });
        for round in 0..4 {
            let mut answered = 0;
            for n in 0..5000 {
                lab.now += Span::from_millis(1);
                answered += lab.turn(&[attempt(peers[0], n)]).len();
            }
            assert!((6..=30).contains(&answered), "{name}: {answered} answers in 5 s");
            // The other one answers its own, and this one its peer's FIN that comes again.
            lab.now += Span::from_millis(1);
            assert_eq!(lab.turn(&[attempt(peers[1], round)]).len(), 1, "{name}");
        }
        assert_eq!(lab.engine.connections(), 2, "{name}");
        let fin = Segment { flags: Flags::FIN | Flags::ACK, ..peers[0] };
        assert_eq!(lab.turn(&[fin]).len(), 1);
        for _ in 0..100 {
            assert_eq!(lab.turn(&[fin]).len(), 1, "{name}: what comes again asks for its ACK");
        }
        lab.engine.check();
        let counters = lab.engine.counters;
        assert!(counters.skipped_challenge + counters.skipped_seq > 19_000, "{name}");
    }
}

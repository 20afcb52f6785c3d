//! Peers that take up room and give nothing for it: every state has a limit of time or of number,
//! what is refused is counted, and whoever is honest is served beside them.

mod common;

use common::crowd::{Crowd, REQUEST, ack, syn};
use shakedown::app::server::{Server, Service};
use shakedown::flow::Endpoints;
use shakedown::stats::Counters;
use shakedown::tcp::{self, State};
use shakedown::time::Span;
use shakedown::wire::options::Options;
use shakedown::wire::segment::Segment;
use shakedown::wire::tcp::Flags;
use std::net::{IpAddr, Ipv4Addr};

const CONNECTIONS: u32 = 64;
const HTTP: Service = Service::Http { response_size: 20_000 };

fn crowd(service: Service, connections_max: u32) -> Crowd<Server> {
    let server = Server::new(vec![service], connections_max);
    Crowd::new(server, connections_max, tcp::Config::default())
}

fn peer() -> IpAddr {
    Ipv4Addr::new(10, 0, 0, 1).into()
}

/// Opens a connection from a port; what its peer sends next, without text.
fn open(crowd: &mut Crowd<Server>, port: u16) -> Option<Segment> {
    crowd.open(&Segment { options: Options::NONE, ..syn(peer(), port) })
}

/// Closes our end of a peer's connection first.
fn close(crowd: &mut Crowd<Server>, at: &Segment) -> Segment {
    let endpoints = Endpoints::of_received(at);
    assert!(crowd.engine.prod(crowd.now, &endpoints, |_, conn| conn.close()));
    let fin = crowd.wait(Span::ZERO)[0];
    assert!(fin.flags.has(Flags::FIN));
    fin
}

fn counters(crowd: &Crowd<Server>) -> Counters {
    crowd.engine.counters
}

/// Fetches a page; true if all of it came.
fn fetches(crowd: &mut Crowd<Server>, port: u16) -> bool {
    let Some(mut at) = open(crowd, port) else { return false };
    at.window = 65_535;
    let mut answers =
        crowd.turn(&[Segment { payload_len: REQUEST.len() as u16, flags: Flags::ACK, ..at }]);
    let (mut bytes, mut closed) = (0, false);
    while !closed {
        let Some(last) = answers.last().copied() else { return false };
        bytes += answers.iter().map(|answer| u64::from(answer.payload_len)).sum::<u64>();
        closed = last.flags.has(Flags::FIN);
        at = Segment { window: 65_535, ..ack(&last) };
        if closed {
            at.flags = Flags::FIN | Flags::ACK;
        }
        answers = crowd.turn(&[at]);
    }
    bytes > 20_000
}

/// Goal: a byte here and a byte there, never the one that is waited for: what is kept is bounded,
/// what is not is counted, and when the gaps are filled all of it goes on.
#[test]
fn bytes_ahead_that_never_meet() {
    const BYTES: u32 = 3_000;
    let mut crowd = crowd(Service::Echo, CONNECTIONS);
    let memory = crowd.engine.memory_bytes();
    let peers: Vec<Segment> =
        (0..CONNECTIONS as u16 - 1).map(|n| open(&mut crowd, 2000 + n).unwrap()).collect();
    for n in 0..BYTES {
        let ahead = |at: &Segment| Segment {
            seq: at.seq + 1 + 2 * n,
            payload_len: 1,
            window: 65_535,
            ..*at
        };
        let all: Vec<Segment> = peers.iter().map(ahead).collect();
        let answers = crowd.turn(&all);
        assert!(answers.len() <= all.len(), "{} answers to {}", answers.len(), all.len());
    }
    crowd.engine.check();
    let Counters { ofo_queued, ofo_dropped, .. } = counters(&crowd);
    assert_eq!(ofo_queued + ofo_dropped, u64::from(BYTES) * peers.len() as u64);
    assert!(ofo_dropped > ofo_queued, "{ofo_queued} kept, {ofo_dropped} not");
    assert_eq!(crowd.engine.memory_bytes(), memory);
    assert!(open(&mut crowd, 1999).is_some(), "there is room for another");
    for at in &peers {
        let whole = Segment { payload_len: 1000, window: 65_535, ..*at };
        let echoed = crowd.turn(&[whole]);
        assert!(echoed.iter().map(|answer| u64::from(answer.payload_len)).sum::<u64>() >= 1000);
    }
    crowd.engine.check();
}

/// Goal: peers that ask for a page and then take nothing, but answer each probe, hold the table
/// for as long as R2 lasts once the server has closed, and no longer; who is refused meanwhile is
/// counted.
#[test]
fn windows_that_stay_closed() {
    let mut crowd = crowd(HTTP, CONNECTIONS);
    for n in 0..CONNECTIONS as u16 {
        let at = open(&mut crowd, 2000 + n).unwrap();
        crowd.turn(&[Segment { payload_len: REQUEST.len() as u16, window: 0, ..at }]);
    }
    assert!(!fetches(&mut crowd, 1999));
    assert_eq!(counters(&crowd).listen_overflows, 1);
    let (started, mut probes) = (crowd.now, 0);
    while crowd.engine.connections() > 0 {
        let sent = crowd.wait(Span::from_millis(100));
        probes += sent.len();
        let refusals = sent.iter().map(|probe| Segment { ack: probe.seq, window: 0, ..ack(probe) });
        let refusals: Vec<Segment> = refusals.collect();
        crowd.turn(&refusals);
        assert!(crowd.now.since(started) < Span::from_secs(3600), "an hour");
    }
    crowd.engine.check();
    assert!(probes > 14 * CONNECTIONS as usize, "{probes}");
    assert_eq!(counters(&crowd).end_data_timeout, u64::from(CONNECTIONS));
    assert!(fetches(&mut crowd, 1999));
}

/// Goal: a peer that takes a byte at a time slows nobody but itself, and gets no more segments
/// than it sends.
#[test]
fn readers_that_take_a_byte_at_a_time() {
    let mut crowd = crowd(HTTP, CONNECTIONS);
    let mut readers = Vec::new();
    for n in 0..CONNECTIONS as u16 - 1 {
        let at = open(&mut crowd, 2000 + n).unwrap();
        let request = Segment { payload_len: REQUEST.len() as u16, window: 1, ..at };
        crowd.turn(&[request]);
        readers.push(Segment { seq: request.seq + u32::from(request.payload_len), ..request });
    }
    for round in 0..20 {
        for reader in &mut readers {
            *reader = Segment { payload_len: 0, window: 1, ..*reader };
            let sent = crowd.turn(&[*reader]);
            assert!(sent.len() <= 2, "{}", sent.len());
            if let Some(last) = sent.last() {
                reader.ack = last.seq.wrapping_add(last.seq_len());
            }
        }
        crowd.wait(Span::from_millis(300));
        assert!(fetches(&mut crowd, 1000 + round), "{round}");
        crowd.engine.check();
    }
    assert_eq!(counters(&crowd).listen_overflows, 0);
}

/// Goal: FIN-WAIT-2 ends though the peer never closes.
#[test]
fn peers_that_never_close() {
    let mut crowd = crowd(Service::Echo, CONNECTIONS);
    for n in 0..CONNECTIONS as u16 {
        let at = open(&mut crowd, 2000 + n).unwrap();
        let fin = close(&mut crowd, &at);
        crowd.turn(&[ack(&fin)]);
        assert_eq!(crowd.engine.state_of(&Endpoints::of_received(&at)), State::FinWait2);
    }
    assert!(open(&mut crowd, 1999).is_none());
    for _ in 0..61 {
        crowd.wait(Span::from_secs(1));
    }
    assert_eq!(crowd.engine.connections(), 0);
    assert_eq!(counters(&crowd).end_fin_wait2_timeout, u64::from(CONNECTIONS));
    crowd.engine.check();
}

/// Goal: CLOSE-WAIT lasts as long as a service has something to say, and LAST-ACK as long as R2.
#[test]
fn peers_that_close_and_never_acknowledge() {
    for service in [Service::Echo, Service::Discard, Service::HalfClose, HTTP] {
        let mut crowd = crowd(service, CONNECTIONS);
        for n in 0..CONNECTIONS as u16 {
            let at = open(&mut crowd, 2000 + n).unwrap();
            let sent = crowd.turn(&[Segment { flags: Flags::FIN | Flags::ACK, ..at }]);
            assert!(sent.iter().any(|answer| answer.flags.has(Flags::FIN)), "{service:?}");
            let state = crowd.engine.state_of(&Endpoints::of_received(&at));
            assert_eq!(state, State::LastAck, "{service:?}");
        }
        let started = crowd.now;
        while crowd.engine.connections() > 0 {
            crowd.wait(Span::from_millis(500));
            assert!(crowd.now.since(started) < Span::from_secs(3600), "an hour");
        }
        assert_eq!(counters(&crowd).end_data_timeout, u64::from(CONNECTIONS), "{service:?}");
        crowd.engine.check();
    }
}

/// Goal: connections that we close first, one after the other within a TIME-WAIT: all are served,
/// and there are never more in TIME-WAIT than there is room for.
#[test]
fn more_in_time_wait_than_there_is_room_for() {
    const EACH: u16 = 2_000;
    let mut crowd = crowd(HTTP, CONNECTIONS);
    for port in 1000..1000 + EACH {
        assert!(fetches(&mut crowd, port), "{port}");
        assert!(crowd.engine.connections() <= CONNECTIONS as usize);
    }
    crowd.engine.check();
    let Counters { time_waits, time_wait_overflows, .. } = counters(&crowd);
    assert_eq!(time_waits, u64::from(EACH));
    assert_eq!(time_wait_overflows, u64::from(EACH - CONNECTIONS as u16));
    crowd.wait(Span::from_secs(61));
    assert_eq!(crowd.engine.connections(), 0);
}

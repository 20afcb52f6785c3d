//! Connections that rest while they are idle do what those that never rest do.

mod common;

use common::crowd::{Crowd, OURS, REQUEST, ack, config, syn};
use shakedown::app::server::{Server, Service};
use shakedown::engine::{Config, Listener};
use shakedown::flow::Endpoints;
use shakedown::rng::Rng;
use shakedown::tcp::{self, Keepalive, State};
use shakedown::time::Span;
use shakedown::wire::segment::Segment;
use shakedown::wire::tcp::Flags;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const CONNECTIONS: u32 = 64;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn crowd(service: Service, awake_max: u32, keepalive: Option<Keepalive>) -> Crowd<Server> {
    let listeners = vec![Listener { port: 80, keepalive }];
    let config = config(CONNECTIONS, tcp::Config::default());
    let config = Config { awake_max, listeners, ..config };
    Crowd::of(config, Server::new(vec![service], CONNECTIONS))
}

/// Opens some connections and lets them rest; what their peers send next.
fn resting(crowd: &mut Crowd<Server>) -> Vec<Segment> {
    let peers = (2000..2040).map(|port| crowd.open(&syn(PEER, port)).unwrap()).collect();
    crowd.wait(Span::from_millis(100));
    // Each that comes has others looked at.
    (3000..3020).for_each(|port| assert!(crowd.open(&syn(PEER, port)).is_some()));
    crowd.engine.check();
    let rested = crowd.engine.counters.idle_rested;
    assert!(rested >= 40, "{rested}");
    peers
}

/// One random act of a peer, or of time. There are twelve peers at a time.
fn act(rng: &mut Rng, peers: &BTreeMap<u16, Segment>, fresh: &mut u16) -> (Vec<Segment>, Span) {
    if peers.len() < 12 {
        // A port that had none yet: what is owed to who was there before is rationed by slot.
        *fresh += 1;
        return (vec![syn(PEER, *fresh)], Span::ZERO);
    }
    let at = *peers.values().nth(rng.below(12) as usize).expect("there are as many");
    let len = rng.below(REQUEST.len() as u64 + 1) as u16;
    match rng.below(20) {
        0..8 => (vec![], Span::from_millis(20 + rng.below(150))),
        8..12 => (vec![Segment { payload_len: len, ..at }], Span::ZERO),
        12 => (vec![at], Span::ZERO),
        13 => (vec![Segment { flags: Flags::FIN | Flags::ACK, ..at }], Span::ZERO),
        14 => (vec![Segment { flags: Flags::RST, ..at }], Span::ZERO),
        15 => (vec![Segment { window: 0, payload_len: 1, ..at }], Span::ZERO),
        // Again, ahead, and acknowledging what was not sent.
        16 => (vec![Segment { seq: at.seq.wrapping_sub(3), payload_len: 2, ..at }], Span::ZERO),
        17 => (vec![Segment { seq: at.seq.wrapping_add(3), payload_len: 2, ..at }], Span::ZERO),
        18 => (vec![Segment { ack: at.ack.wrapping_add(9), ..at }], Span::ZERO),
        _ => (vec![], Span::ZERO),
    }
}

/// Goal: whatever peers do, and whenever, an engine whose idle connections rest sends the same
/// segments at the same times as one whose connections never do.
#[test]
fn nobody_can_tell_who_rests() {
    let services =
        [Service::Discard, Service::HalfClose, Service::Http { response_size: 20 }, Service::Echo];
    let mut rested = 0;
    for seed in 0..200u64 {
        let service = services[seed as usize % services.len()];
        let mut both = [0, CONNECTIONS].map(|awake_max| crowd(service, awake_max, None));
        let mut rng = Rng::new(seed);
        let mut peers: BTreeMap<u16, Segment> = BTreeMap::new();
        let mut fresh = 2000;
        for step in 0..400 {
            let (segments, span) = act(&mut rng, &peers, &mut fresh);
            let [sent, other] = both.each_mut().map(|crowd| {
                let mut sent = crowd.turn(&segments);
                sent.extend(crowd.wait(span));
                crowd.engine.check();
                // Among connections whose time came meanwhile there is no order.
                sent.sort_by_key(|segment| segment.dst_port);
                sent
            });
            assert_eq!(sent, other, "seed {seed}, step {step}, {service:?}: {segments:?}");
            for segment in &segments {
                let len = segment.seq_len();
                if let Some(at) = peers.get_mut(&segment.src_port)
                    && segment.seq == at.seq
                {
                    at.seq = at.seq.wrapping_add(len);
                }
            }
            for segment in &sent {
                let next = ack(segment);
                if segment.flags.has(Flags::SYN) {
                    for crowd in &mut both {
                        crowd.turn(&[next]);
                    }
                    peers.insert(segment.dst_port, next);
                } else if let Some(at) = peers.get_mut(&segment.dst_port) {
                    (at.ack, at.options) = (next.ack, next.options);
                }
            }
            peers.retain(|_, at| {
                let state = both[0].engine.state_of(&Endpoints::of_received(at));
                assert_eq!(state, both[1].engine.state_of(&Endpoints::of_received(at)));
                state != State::Closed && state != State::TimeWait
            });
        }
        let [counters, other] = both.each_ref().map(|crowd| crowd.engine.counters);
        rested += counters.idle_rested;
        assert_eq!(other.idle_rested, 0);
        let counted = shakedown::stats::Counters { idle_rested: 0, idle_woken: 0, ..counters };
        assert_eq!(counted, other, "seed {seed}");
    }
    assert!(rested > 500, "{rested}");
}

/// Goal: who rests is asked for, probed, answered and closed like any other.
#[test]
fn what_is_silent_for_too_long_is_probed_and_given_up() {
    let keepalive =
        Keepalive { idle: Span::from_secs(10), interval: Span::from_secs(1), probes: 2 };
    let mut crowd = crowd(Service::Discard, 0, Some(keepalive));
    let peers = resting(&mut crowd);
    let woken = crowd.engine.counters.idle_woken;
    assert_eq!(crowd.wait(Span::from_millis(9_800)), [], "10 s are not over");
    let mut probes = crowd.wait(Span::from_millis(300));
    probes.retain(|probe| peers.iter().any(|at| at.src_port == probe.dst_port));
    assert_eq!(probes.len(), peers.len());
    assert!(crowd.engine.counters.idle_woken >= woken + 40);
    // Half of them answer.
    let answers: Vec<Segment> =
        probes.iter().map(ack).map(|it| Segment { seq: 101, ..it }).collect();
    crowd.turn(&answers[..20]);
    (0..40).for_each(|_| drop(crowd.wait(Span::from_millis(100))));
    crowd.engine.check();
    let open =
        |at: &&Segment| crowd.engine.state_of(&Endpoints::of_received(at)) == State::Established;
    assert_eq!(answers[..20].iter().filter(open).count(), 20);
    assert_eq!(answers[20..].iter().filter(open).count(), 0);
    // Those that were given up, and the twenty that came for the others to be looked at.
    assert_eq!(crowd.engine.counters.end_keepalive_timeout, 40);
}

#[test]
fn a_server_that_stops_closes_who_rests() {
    for service in [Service::Discard, Service::HalfClose, Service::Http { response_size: 1 }] {
        let mut crowd = crowd(service, 0, None);
        let peers = resting(&mut crowd);
        crowd.engine.stop();
        let mut sent = crowd.wait(Span::ZERO);
        sent.extend(crowd.wait(Span::ZERO));
        crowd.engine.check();
        let fin = |at: &&Segment| {
            sent.iter().any(|it| it.dst_port == at.src_port && it.flags.has(Flags::FIN))
        };
        assert_eq!(peers.iter().filter(fin).count(), peers.len(), "{service:?}");
    }
}

/// Goal: a call of the user's reaches who rests; what it sends is answered from the same numbers.
#[test]
fn a_call_reaches_who_rests() {
    let mut crowd = crowd(Service::HalfClose, 0, None);
    let at = resting(&mut crowd)[7];
    let endpoints = Endpoints::of_received(&at);
    assert_eq!(crowd.engine.state_of(&endpoints), State::Established);
    assert!(crowd.engine.connect(crowd.now, &endpoints, Default::default()).is_err());
    assert!(crowd.engine.prod(crowd.now, &endpoints, |_, conn| conn.abort()));
    let sent = crowd.wait(Span::ZERO);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].seq, sent[0].src), (at.ack, OURS.into()));
    assert!(sent[0].flags.has(Flags::RST));
    crowd.engine.check();
}

/// Goal: there are never more connections than were allowed, wherever they are, and each that is
/// needed finds a slot.
#[test]
fn who_rests_counts_as_a_connection_and_finds_a_slot_again() {
    let mut crowd = crowd(Service::Discard, 0, None);
    let peers = resting(&mut crowd);
    (4000..4004).for_each(|port| assert!(crowd.open(&syn(PEER, port)).is_some()));
    assert!(crowd.open(&syn(PEER, 4004)).is_none(), "{CONNECTIONS} there may be");
    assert!(crowd.engine.counters.listen_overflows > 0);
    let text: Vec<Segment> = peers.iter().map(|at| Segment { payload_len: 9, ..*at }).collect();
    let answers = crowd.turn(&text);
    crowd.engine.check();
    assert_eq!(answers.len(), peers.len(), "each has its ACK");
    assert!(answers.iter().zip(&peers).all(|(it, at)| it.ack == at.seq.wrapping_add(9)));
}

/// Goal: what is promised of the memory that a connection takes, where there may be many.
#[test]
fn a_connection_that_does_nothing_takes_few_bytes() {
    let services = vec![Service::Http { response_size: 20 }];
    let server = Server::new(services, 1_000_000);
    let engine = Crowd::of(config(1_000_000, tcp::Config::default()), server).engine;
    let idle = engine.bytes_per_idle();
    assert!(idle <= 128, "{idle} idle");
    assert!(idle < engine.bytes_per_connection());
    let time_wait = engine.bytes_per_time_wait();
    assert!(time_wait <= 48, "{time_wait} in TIME-WAIT");
    let syn_received = engine.bytes_per_syn_received();
    assert!(syn_received <= 64, "{syn_received} in SYN-RECEIVED");
}

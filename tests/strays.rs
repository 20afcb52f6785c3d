//! Frames that arrive at a worker which does not have their connection: handed round the ring of
//! the run's workers over in-memory queues, each worker with memory of its own.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::app::{App, results::Results};
use shakedown::device::{Device, Report};
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::Endpoints;
use shakedown::flow::tuples::{Range, Ranges, Target};
use shakedown::frame::{Burst, Pool};
use shakedown::stats::Counters;
use shakedown::tcp::{self, End, State};
use shakedown::time::{Instant, Span};
use shakedown::wire::Family;
use shakedown::wire::ethernet::{self, ETHERTYPE_IPV4, Mac};
use shakedown::wire::icmp::{self, Unspoken};
use shakedown::wire::ipv4;
use shakedown::wire::options::Options;
use shakedown::wire::segment::{self, Body, Segment, Verify};
use shakedown::wire::tcp::Flags;
use shakedown::worker::{self, Worker};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const POOL_FRAMES: u32 = 256;
const INBOX_FRAMES: u64 = 512;

/// Frames on their way to one worker.
type Lane = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// Which of the peer's lanes the `n`th frame sent goes to.
type Spread = fn(u64) -> usize;

fn alternately(n: u64) -> usize {
    n as usize
}

fn all_to_the_first(_: u64) -> usize {
    0
}

/// A queue of a NIC whose other end spreads frames as it pleases.
struct Port {
    inbox: Lane,
    peers: Vec<Lane>,
    spread: Spread,
    sent: u64,
}

impl Device for Port {
    fn rx(&mut self, _now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let mut inbox = self.inbox.borrow_mut();
        for _ in 0..inbox.len().min(rx.room()).min(pool.len()) {
            let (mut frame, bytes) = (pool.take().unwrap(), inbox.pop_front().unwrap());
            frame.reset(bytes.len());
            frame.bytes_mut().copy_from_slice(&bytes);
            rx.push(frame);
        }
    }

    fn tx(&mut self, _now: Instant, pool: &mut Pool, tx: &mut Burst) {
        for frame in tx.drain(tx.len()) {
            let to = (self.spread)(self.sent) % self.peers.len();
            self.peers[to].borrow_mut().push_back(frame.bytes().to_vec());
            self.sent += 1;
            pool.put(frame);
        }
    }

    fn lent(&self) -> usize {
        0
    }

    fn report(&self) -> Report {
        Report::default()
    }
}

fn lanes(count: usize) -> Vec<Lane> {
    (0..count).map(|_| Lane::default()).collect()
}

fn config(address: Ipv4Addr, mac: Mac) -> Config {
    Config {
        mac,
        mtu: 1500,
        ttl: 64,
        subnets: vec![Subnet::only(address, 24)],
        gateways: vec![],
        listeners: vec![],
        ranges: None,
        keepalive: None,
        connections_max: 1024,
        awake_max: 0,
        tcp: tcp::Config { msl: Span::from_millis(2), ..tcp::Config::default() },
        verify: Verify::All,
        device_sums: false,
        seed: 1,
    }
}

/// The workers of one host, in a ring: one for each of its lanes.
fn host<A: App>(
    own: &[Lane],
    peers: &[Lane],
    spread: Spread,
    build: impl Fn(u16) -> (Config, A),
) -> Vec<Worker<Port, A>> {
    let places = worker::ring(own.len() as u16).into_iter().enumerate();
    let workers = places.map(|(index, place)| {
        let (config, app) = build(index as u16);
        let port = Port { inbox: own[index].clone(), peers: peers.to_vec(), spread, sent: 0 };
        let engine = Engine::new(config, app, Instant::ZERO);
        let mut worker = Worker::new(port, engine, Pool::new(POOL_FRAMES).unwrap());
        worker.join(place);
        worker
    });
    workers.collect()
}

fn servers(own: &[Lane], peers: &[Lane], spread: Spread) -> Vec<Worker<Port, Server>> {
    host(own, peers, spread, |_| {
        let listeners = vec![Listener { port: 80, keepalive: None }];
        let config = Config { listeners, ..config(SERVER, SERVER_MAC) };
        (config, Server::new(vec![Service::Echo], 1024))
    })
}

/// Clients that open `each` connections a worker.
fn clients(own: &[Lane], peers: &[Lane], spread: Spread, each: u64) -> Vec<Worker<Port, Client>> {
    host(own, peers, spread, |share| {
        let addresses = Range::only(SERVER);
        let ranges = Ranges {
            locals: vec![Range::only(CLIENT)],
            first_port: 1024,
            last_port: 65_535,
            targets: vec![Target { addresses, first_port: 80, last_port: 80 }],
            share,
            shares: own.len() as u16,
            rss: None,
        };
        let workload = Workload::Rr { request_bytes: 100, response_bytes: 100, count: 2 };
        let load = Load {
            rate_per_second: None,
            connections: 20,
            held: 0,
            count: Some(each),
            close: Close::Fin,
        };
        let config = Config { ranges: Some(ranges), ..config(CLIENT, CLIENT_MAC) };
        (config, Client::new(workload, load, 7))
    })
}

/// A turn of each; no frame may get lost.
fn turn<A: App>(workers: &mut [Worker<Port, A>], now: Instant) {
    for worker in workers {
        worker.turn(now);
        assert_eq!(worker.frames(), POOL_FRAMES as usize);
    }
}

fn sum<A: App>(workers: &[Worker<Port, A>]) -> Counters {
    let mut sum = Counters::default();
    workers.iter().for_each(|worker| sum.add(&worker.engine.counters));
    sum
}

/// Runs `each` connections from each of `from` workers to `to` workers until all is over; what the
/// clients saw, and the counters of both hosts.
fn run(from: usize, to: usize, spread: Spread, each: u64) -> (Results, Counters, Counters) {
    let (near, far) = (lanes(from), lanes(to));
    let mut clients = clients(&near, &far, spread, each);
    let mut servers = servers(&far, &near, spread);
    let mut now = Instant::ZERO;
    let over = |clients: &[Worker<Port, Client>], servers: &[Worker<Port, Server>]| {
        clients.iter().all(|it| it.engine.app.done() && it.engine.connections() == 0)
            && servers.iter().all(|it| it.engine.connections() == 0)
    };
    while !over(&clients, &servers) {
        now += Span::from_micros(10);
        assert!(now < Instant::ZERO + Span::from_secs(60), "{:?}", sum(&clients));
        turn(&mut clients, now);
        turn(&mut servers, now);
    }
    let mut results = Results::default();
    for client in &clients {
        client.engine.check();
        results.merge(client.engine.app.results());
    }
    servers.iter().for_each(|server| server.engine.check());
    (results, sum(&clients), sum(&servers))
}

/// Goal: whichever workers frames come to, every connection completes without a reset and without a
/// loss, and no frame is counted as received twice.
#[test]
fn connections_complete_although_their_frames_arrive_at_any_worker() {
    for (from, to, spread) in [
        (1, 2, alternately as Spread),
        (2, 1, alternately),
        (2, 2, alternately),
        (3, 4, alternately),
        (2, 3, all_to_the_first),
        (1, 1, alternately),
    ] {
        println!("{from} to {to}");
        let (results, client, server) = run(from, to, spread, 100);
        let total = 100 * from as u64;
        assert_eq!((results.finished, results.failed.total()), (total, 0), "{results:?}");
        assert_eq!(results.verify_errors + results.protocol_errors, 0);
        for (counters, workers) in [(client, from), (server, to)] {
            assert_eq!((counters.established, counters.closed), (total, total));
            assert_eq!(
                (counters.out_rsts, counters.estab_resets, counters.retrans_segs),
                (0, 0, 0)
            );
            assert_eq!(counters.strays_in, counters.strays_out);
            assert_eq!(counters.strays_in > 0, workers > 1);
            assert_eq!(counters.strays_dropped, 0);
        }
        for (sender, receiver) in [(client, server), (server, client)] {
            assert_eq!(sender.out_segs, receiver.in_segs);
            assert_eq!(
                (sender.tx_frames, sender.tx_bytes),
                (receiver.rx_frames, receiver.rx_bytes)
            );
        }
    }
}

/// Goal: an ARP reply is for all: a worker to which no frame ever comes by itself finds its next
/// hop.
#[test]
fn an_arp_reply_that_arrives_at_one_worker_resolves_for_the_others() {
    let (results, client, _) = run(3, 1, all_to_the_first, 10);
    assert_eq!((results.finished, results.failed.total()), (30, 0));
    assert_eq!(client.end_unreachable, 0);
    assert_eq!(client.arp_requests, 3, "each asked once");
}

fn segment(flags: Flags, port: u16, seq: u32, ack: u32) -> Vec<u8> {
    emit(&to_server(), [(CLIENT, 5000), (SERVER, port)], flags, seq, ack)
}

fn emit(
    link: &ethernet::Header,
    [(src, src_port), (dst, dst_port)]: [(Ipv4Addr, u16); 2],
    flags: Flags,
    seq: u32,
    ack: u32,
) -> Vec<u8> {
    let options = Options::default();
    let header_len = segment::header_len(false, Family::V4, &options);
    let segment = Segment {
        src: src.into(),
        dst: dst.into(),
        src_port,
        dst_port,
        seq,
        ack,
        flags,
        window: 1000,
        urgent: 0,
        tos: 0,
        options,
        payload_at: header_len as u16,
        payload_len: 0,
    };
    let mut frame = vec![0; header_len];
    segment::emit(&mut frame, link, &segment, 1, 64);
    frame
}

fn to_server() -> ethernet::Header {
    ethernet::Header { dst: SERVER_MAC, src: CLIENT_MAC, vlan: None, ethertype: ETHERTYPE_IPV4 }
}

fn to_client() -> ethernet::Header {
    ethernet::Header { dst: CLIENT_MAC, src: SERVER_MAC, vlan: None, ethertype: ETHERTYPE_IPV4 }
}

/// The TCP segments that were sent to the first lane.
fn sent(lane: &Lane) -> Vec<Segment> {
    let parse = |frame: Vec<u8>| match segment::parse(&frame, Verify::All).unwrap().body {
        Body::Tcp(segment) => Some(segment),
        _ => None,
    };
    lane.borrow_mut().drain(..).filter_map(parse).collect()
}

#[test]
fn what_belongs_to_no_worker_is_answered_once_by_the_last() {
    let cases = [
        (Flags::ACK, 80, Some((7, Flags::RST))),
        (Flags::SYN, 81, Some((0, Flags::RST | Flags::ACK))),
        (Flags::SYN | Flags::ACK, 80, Some((7, Flags::RST))),
        (Flags::RST, 80, None),
        (Flags::default(), 80, None),
    ];
    for count in 1..=4 {
        for (flags, port, answer) in cases {
            let (near, far) = (lanes(1), lanes(count));
            let mut servers = servers(&far, &near, alternately);
            far[0].borrow_mut().push_back(segment(flags, port, 1, 7));
            for step in 1..10 {
                turn(&mut servers, Instant::ZERO + Span::from_micros(step));
            }
            let answers: Vec<_> = sent(&near[0]).iter().map(|it| (it.seq, it.flags)).collect();
            assert_eq!(answers, Vec::from_iter(answer), "{flags:?} to {count} workers");
            let last = &servers[count - 1].engine.counters;
            assert_eq!((last.in_segs, last.out_rsts), (1, answers.len() as u64));
            let counters = sum(&servers);
            assert_eq!(counters.strays_out, count as u64 - 1);
            assert_eq!((counters.in_segs, counters.rx_frames), (1, 1));
        }
    }
}

/// Goal: a client's source port says which worker it is of, so that what strays goes there in one
/// step, and is refused there if there is no connection.
#[test]
fn a_client_s_stray_takes_one_step_to_the_worker_whose_port_it_is() {
    for (at, port) in [(0, 40_000), (0, 40_001), (2, 40_000), (3, 40_002), (1, 40_004)] {
        let (near, far) = (lanes(4), lanes(1));
        let mut clients = clients(&near, &far, alternately, 1);
        let ports = [(SERVER, 80), (CLIENT, port)];
        near[at].borrow_mut().push_back(emit(&to_client(), ports, Flags::ACK, 1, 7));
        for step in 1..10 {
            turn(&mut clients, Instant::ZERO + Span::from_micros(step));
        }
        let owner = usize::from(port % 4);
        let counters = sum(&clients);
        assert_eq!(counters.strays_out, u64::from(at != owner), "at {at} for {owner}");
        assert_eq!((counters.strays_in, counters.in_segs), (counters.strays_out, 1));
        assert_eq!(clients[owner].engine.counters.out_rsts, 1, "at {at} for {owner}");
        assert_eq!(counters.out_rsts, 1);
    }
}

#[test]
fn a_full_inbox_drops_and_counts_and_what_it_holds_is_dealt_with_later() {
    const TOO_MANY: u64 = 100;
    let (near, far) = (lanes(1), lanes(2));
    let mut servers = servers(&far, &near, alternately);
    for _ in 0..INBOX_FRAMES + TOO_MANY {
        far[0].borrow_mut().push_back(segment(Flags::ACK, 80, 1, 7));
    }
    let mut now = Instant::ZERO;
    while !far[0].borrow().is_empty() {
        now += Span::from_micros(1);
        turn(&mut servers[..1], now);
    }
    assert_eq!(servers[0].engine.counters.strays_dropped, TOO_MANY);
    for _ in 0..100 {
        now += Span::from_micros(1);
        turn(&mut servers[1..], now);
    }
    assert_eq!(sent(&near[0]).len() as u64, INBOX_FRAMES);
    assert_eq!(servers[1].engine.counters.strays_in, INBOX_FRAMES);
}

/// Goal: a SYN that is sent again and moves to another worker leaves a half-open block behind that
/// does no harm: the handshake goes through with whichever SYN-ACK the peer took, and the two ISNs
/// are of one clock.
#[test]
fn a_syn_that_moves_to_another_worker_still_becomes_one_connection() {
    for taken in 0..2 {
        let (near, far) = (lanes(1), lanes(2));
        let mut servers = servers(&far, &near, alternately);
        let mut numbers = Vec::new();
        for (second, lane) in far.iter().enumerate() {
            lane.borrow_mut().push_back(segment(Flags::SYN, 80, 1, 0));
            turn(&mut servers, Instant::ZERO + Span::from_millis(900 * second as u64));
            numbers.extend(sent(&near[0]).iter().map(|syn_ack| syn_ack.seq));
        }
        assert_eq!(numbers[1].wrapping_sub(numbers[0]), 900_000 / 4, "one clock");
        // It comes to the wrong worker.
        let ack = segment(Flags::ACK, 80, 2, numbers[taken].wrapping_add(1));
        far[1 - taken].borrow_mut().push_back(ack);
        for step in 0..4 {
            turn(&mut servers, Instant::ZERO + Span::from_millis(901 + step));
        }
        let local = (SERVER, 80).into();
        let endpoints = Endpoints { local, remote: (CLIENT, 5000).into() };
        let state = |worker: usize| servers[worker].engine.state_of(&endpoints);
        assert_eq!((state(taken), state(1 - taken)), (State::Established, State::SynReceived));
        let counters = sum(&servers);
        assert_eq!((counters.established, counters.out_rsts), (1, 0));
    }
}

/// Goal: an ICMP error comes to the connection that it quotes, at whichever worker that is.
#[test]
fn an_icmp_error_reaches_the_worker_that_has_what_it_quotes() {
    let (near, far) = (lanes(2), lanes(1));
    let mut clients = clients(&near, &far, alternately, 1);
    let mut server = servers(&far, &near, alternately);
    // The second worker's next hop is resolved, its SYN sent, and not answered.
    let syn = (0..100).find_map(|step| {
        let now = Instant::ZERO + Span::from_micros(step);
        turn(&mut clients[1..], now);
        let frames: Vec<_> = far[0].borrow_mut().drain(..).collect();
        let tcp = |frame: &&Vec<u8>| frame[12..14] == [8, 0];
        let syn = frames.iter().find(tcp).cloned();
        far[0].borrow_mut().extend(frames.into_iter().filter(|frame| !tcp(&frame)));
        turn(&mut server, now);
        // Everything that the server says comes to the second worker in this part.
        let strayed: Vec<_> = near[0].borrow_mut().drain(..).collect();
        near[1].borrow_mut().extend(strayed);
        syn
    });
    let syn = syn.expect("a SYN is sent");
    let quote = &syn[14..14 + 28];
    let header = ipv4::Header {
        src: CLIENT,
        dst: SERVER,
        protocol: ipv4::PROTOCOL_TCP,
        tos: 0,
        header_len: 20,
        payload_len: 8,
    };
    let about = Unspoken::v4(&header, 14);
    let mut error = vec![0; icmp::error_len(false, &about)];
    icmp::emit_error(&mut error, &to_client(), &about, quote, 1, 64);
    near[0].borrow_mut().push_back(error);
    turn(&mut clients, Instant::ZERO + Span::from_millis(1));
    assert_eq!(clients[1].engine.app.results().failed.of(End::Unreachable), 1);
    let counters = clients[0].engine.counters;
    assert_eq!((counters.strays_out, counters.end_unreachable), (1, 0));
}

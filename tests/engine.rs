//! Two engines over the in-memory link: connections open, close, and leave nothing behind.

use shakedown::app::{App, Conn, Launch, Refusal};
use shakedown::device::link::{self, Link};
use shakedown::engine::{Config, Engine, Listener, Subnet};
use shakedown::flow::tuples::{Range, Ranges, Target};
use shakedown::frame::Pool;
use shakedown::tcp::{self, End};
use shakedown::time::{Instant, Span};
use shakedown::wire::ethernet::Mac;
use shakedown::wire::segment::Verify;
use shakedown::worker::Worker;
use std::net::Ipv4Addr;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// Opens `left` connections, at most `most` at a time; both sides close when told to.
#[derive(Default)]
struct Plain {
    left: u64,
    most: u64,
    live: u64,
    closes: bool,
    ended: Vec<(End, u64)>,
}

impl App for Plain {
    type State = u8;

    fn established(&mut self, conn: &mut Conn<'_, u8>) {
        if self.closes {
            conn.close();
        }
    }
    fn received(&mut self, _conn: &mut Conn<'_, u8>, _data: &[u8]) {}
    fn peer_closed(&mut self, conn: &mut Conn<'_, u8>) {
        conn.close();
    }
    fn acknowledged(&mut self, _conn: &mut Conn<'_, u8>, _acked: u64) {}
    fn ended(&mut self, _now: Instant, _state: &mut u8, end: End) {
        self.live = self.live.saturating_sub(1);
        match self.ended.iter_mut().find(|(seen, _)| *seen == end) {
            Some((_, count)) => *count += 1,
            None => self.ended.push((end, 1)),
        }
    }
    fn payload(&self, _state: &u8, _offset: u64, _out: &mut [u8]) {}
    fn launch(&mut self, _now: Instant) -> Option<Launch<u8>> {
        if self.left == 0 || self.live == self.most {
            return None;
        }
        self.left -= 1;
        self.live += 1;
        Some(Launch { state: 0 })
    }
    fn refused(&mut self, _now: Instant, _state: &mut u8, _why: Refusal) {
        self.left += 1;
        self.live -= 1;
    }
}

fn config(address: Ipv4Addr, mac: u8) -> Config {
    Config {
        mac: Mac([2, 0, 0, 0, 0, mac]),
        vlan: None,
        mtu: 1500,
        ttl: 64,
        subnets: vec![Subnet { first: address, last: address, prefix_len: 24 }],
        gateway: None,
        listeners: vec![],
        ranges: None,
        keepalive: None,
        connections_max: 4096,
        tcp: tcp::Config { msl: Span::from_millis(5), ..tcp::Config::default() },
        verify: Verify::All,
        seed: u64::from(mac),
    }
}

type Side = Worker<Link, Plain>;

fn sides(total: u64, most: u64) -> (Side, Side) {
    let (ours, theirs) = Pool::pair(512).unwrap();
    let (near, far) = link::pair(ours.umem(), 128);
    let server =
        Config { listeners: vec![Listener { port: 80, keepalive: None }], ..config(SERVER, 2) };
    let addresses = Range { first: SERVER, last: SERVER };
    let targets = vec![Target { addresses, first_port: 80, last_port: 80 }];
    let locals = vec![Range { first: CLIENT, last: CLIENT }];
    let ranges =
        Ranges { locals, first_port: 1024, last_port: 65_535, targets, share: 0, shares: 1 };
    let client = Config { ranges: Some(ranges), ..config(CLIENT, 1) };
    let opener = Plain { left: total, most, closes: true, ..Plain::default() };
    let client = Worker::new(near, Engine::new(client, opener, Instant::ZERO), ours);
    let server = Worker::new(far, Engine::new(server, Plain::default(), Instant::ZERO), theirs);
    (client, server)
}

#[test]
fn every_connection_is_established_and_closed_on_both_sides() {
    let (mut client, mut server) = sides(20_000, 500);
    let frames = (client.frames(), server.frames());
    let mut now = Instant::ZERO;
    for turn in 0..200_000 {
        now += Span::from_micros(10);
        client.turn(now);
        server.turn(now);
        if turn % 64 == 0 {
            client.engine.check();
            server.engine.check();
        }
        assert_eq!((client.frames(), server.frames()), frames);
        let open = client.engine.connections() + server.engine.connections();
        if client.engine.app.left == 0 && open == 0 {
            break;
        }
    }
    for side in [&client, &server] {
        let counters = side.engine.counters;
        assert_eq!(side.engine.connections(), 0);
        assert_eq!(side.engine.app.ended, [(End::Finished, 20_000)], "{counters:?}");
        assert_eq!((counters.established, counters.closed), (20_000, 20_000));
        assert_eq!((counters.retrans_segs, counters.in_errs, counters.out_rsts), (0, 0, 0));
    }
    // SYN, SYN-ACK, ACK, FIN, FIN-ACK, ACK.
    let segments = client.engine.counters.out_segs + server.engine.counters.out_segs;
    assert_eq!(segments, 20_000 * 6);
}

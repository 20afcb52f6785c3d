//! Full connections, from SYN to closed on both sides, client and server on one core over memory,
//! with 1, 1,000 and 100,000 in flight, beside smoltcp doing the same.
//!
//! `cargo bench --bench engine`. Each side keeps its connections established until they are the
//! oldest of the number in flight; then the client closes, the server answers with its own close,
//! and a new one is opened. So that many are really open all the time, and the time a connection
//! takes holds a handshake, a teardown, and finding it six times. The client's TIME-WAIT lasts 2
//! ms.
//!
//! smoltcp looks at every socket for every packet, and for every socket that is added: at 100,000
//! it takes a good part of a minute to begin. Narrow down (`-- engine/shakedown`) when only the
//! engine is of interest.
//!
//! The floor sends the same six packets and remembers nothing. It has no established connections
//! that lie idle, so beside 1,000 in flight stand as many of its own as are opened or closed at a
//! time; a hundred thousand would be no other measurement.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};
use criterion::{criterion_group, criterion_main};
use std::time::Duration;

/// Connections that are being closed or opened at any time; all others are established. As many as
/// there are frames in a burst: more would only wait for each other.
const CHURN_MAX: usize = 64;

/// Both rivals' clock goes on by this every turn: about what a busy turn takes, and no clock is
/// read.
const TURN_US: u64 = 10;

/// A client and a server, and the number of connections that went all the way.
trait Rival {
    fn new(in_flight: usize) -> Self;
    /// Opens connections until all in flight are established.
    fn fill(&mut self);
    /// Lets `connections` more go all the way.
    fn run(&mut self, connections: u64);
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(1));
    group.sampling_mode(SamplingMode::Flat);
    group.sample_size(10);
    for in_flight in [1, 1_000, 100_000] {
        bench::<ours::Pair>(&mut group, "shakedown", in_flight);
        bench::<smoltcp_pair::Pair>(&mut group, "smoltcp", in_flight);
    }
    for in_flight in [1, 1_000] {
        bench::<bottom::Pair>(&mut group, "floor", in_flight);
    }
    group.finish();
}

fn bench<R: Rival>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, in_flight: usize) {
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let mut rival: Option<R> = None;
    group.bench_function(criterion::BenchmarkId::new(name, in_flight), |bencher| {
        // Filled once, when it is known that this one is wanted at all.
        let rival = rival.get_or_insert_with(|| {
            let mut rival = R::new(in_flight);
            rival.fill();
            rival
        });
        bencher.iter_custom(|connections| {
            let start = std::time::Instant::now();
            rival.run(connections);
            start.elapsed()
        });
    });
}

mod ours {
    use super::{CHURN_MAX, Rival, TURN_US};
    use shakedown::app::server::{Server, Service};
    use shakedown::app::{App, Conn, Launch, Refusal};
    use shakedown::device::link::{self, Link};
    use shakedown::engine::{AWAKE_MAX, Config, Engine, Listener, Subnet};
    use shakedown::flow::FlowKey;
    use shakedown::flow::tuples::{Range, Ranges, Target};
    use shakedown::frame::Pool;
    use shakedown::tcp::{self, End};
    use shakedown::time::{Instant, Span};
    use shakedown::wire::ethernet::Mac;
    use shakedown::wire::segment::Verify;
    use shakedown::worker::Worker;
    use std::collections::VecDeque;
    use std::net::Ipv4Addr;

    pub struct Pair {
        client: Worker<Link, Churn>,
        server: Worker<Link, Server>,
        now: Instant,
    }

    /// Keeps `in_flight` connections open; the driver closes the oldest.
    struct Churn {
        in_flight: usize,
        live: usize,
        /// Established ones, the oldest first.
        open: VecDeque<FlowKey>,
    }

    impl App for Churn {
        type State = ();
        type Idle = ();

        fn established(&mut self, conn: &mut Conn<'_, ()>) {
            self.open.push_back(conn.key());
        }
        fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}
        fn peer_closed(&mut self, _conn: &mut Conn<'_, ()>) {}
        fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
        fn ended(&mut self, _now: Instant, _state: &mut (), end: End) {
            assert_eq!(end, End::Finished);
            self.live -= 1;
        }
        fn payload(&self, _state: &(), _offset: u64, _out: &mut [u8]) {}
        fn launch(&mut self, _now: Instant) -> Option<Launch<()>> {
            (self.live < self.in_flight).then(|| {
                self.live += 1;
                Launch { state: () }
            })
        }
        fn next_launch(&self, now: Instant) -> Instant {
            if self.live < self.in_flight { now } else { Instant::NEVER }
        }
        fn refused(&mut self, _now: Instant, _state: &mut (), why: Refusal) {
            panic!("the bench is to have room: {why:?}");
        }
    }

    impl Pair {
        fn turn(&mut self) {
            self.now += Span::from_micros(TURN_US);
            self.client.turn(self.now);
            self.server.turn(self.now);
        }

        fn closed(&self) -> u64 {
            let closed = |counters: &shakedown::stats::Counters| counters.closed;
            closed(&self.client.engine.counters).min(closed(&self.server.engine.counters))
        }
    }

    impl Rival for Pair {
        fn new(in_flight: usize) -> Pair {
            // Beside those in flight, those in TIME-WAIT: 2 ms at a few million a second.
            let connections_max = in_flight as u32 + 20_000;
            let (ours, theirs) = Pool::pair(1024).expect("memory for frames");
            let (near, far) = link::pair(ours.umem(), 256);
            let (first, last) = ([10, 0, 0, 1].into(), [10, 0, 0, 16].into());
            let server = Ipv4Addr::new(10, 0, 0, 100);
            let base = Config {
                mac: Mac([2, 0, 0, 0, 0, 1]),
                mtu: 1500,
                ttl: 64,
                subnets: vec![Subnet { first, last, prefix_len: 24, vlan: None }],
                gateways: vec![],
                listeners: vec![],
                ranges: Some(Ranges {
                    locals: vec![Range { first, last }],
                    first_port: 1024,
                    last_port: 65_535,
                    targets: vec![Target {
                        addresses: Range::only(server),
                        first_port: 80,
                        last_port: 80,
                    }],
                    share: 0,
                    shares: 1,
                    rss: None,
                }),
                keepalive: None,
                connections_max,
                awake_max: AWAKE_MAX,
                tcp: tcp::Config { msl: Span::from_millis(1), ..tcp::Config::default() },
                verify: Verify::All,
                device_sums: false,
                seed: 1,
            };
            let server = Config {
                mac: Mac([2, 0, 0, 0, 0, 2]),
                subnets: vec![Subnet::only(server, 24)],
                listeners: vec![Listener { port: 80, keepalive: None }],
                ranges: None,
                ..base.clone()
            };
            let churn = Churn { in_flight, live: 0, open: VecDeque::with_capacity(in_flight + 1) };
            let discard = Server::new(vec![Service::Discard], connections_max);
            Pair {
                client: Worker::new(near, Engine::new(base, churn, Instant::ZERO), ours),
                server: Worker::new(far, Engine::new(server, discard, Instant::ZERO), theirs),
                now: Instant::ZERO,
            }
        }

        fn fill(&mut self) {
            while self.client.engine.app.open.len() < self.client.engine.app.in_flight {
                self.turn();
            }
        }

        fn run(&mut self, connections: u64) {
            let target = self.closed() + connections;
            while self.closed() < target {
                while self.client.engine.app.open.len() + CHURN_MAX
                    > self.client.engine.app.in_flight
                {
                    let Some(oldest) = self.client.engine.app.open.pop_front() else { break };
                    let endpoints = self.client.engine.endpoints(&oldest);
                    self.client.engine.prod(self.now, &endpoints, |_, conn| conn.close());
                }
                self.turn();
            }
        }
    }
}

mod bottom {
    use super::{CHURN_MAX, Rival, TURN_US};
    use shakedown::device::link::{self, Link};
    use shakedown::floor::{Config, Exchange, Floor};
    use shakedown::frame::Pool;
    use shakedown::time::{Instant, Span};
    use shakedown::wire::ethernet::Mac;
    use shakedown::wire::segment::Verify;

    pub struct Pair {
        client: Floor<Link>,
        server: Floor<Link>,
        now: Instant,
    }

    impl Rival for Pair {
        fn new(in_flight: usize) -> Pair {
            let (ours, theirs) = Pool::pair(1024).expect("memory for frames");
            let (near, far) = link::pair(ours.umem(), 256);
            let config = Config {
                macs: [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])],
                addresses: [[10, 0, 0, 1].into(), [10, 0, 0, 100].into()],
                first_port: 1024,
                last_port: 65_535,
                server_port: 80,
                exchange: Exchange::Bare,
                mss: 1460,
                window_scale: Some(3),
                sack_permitted: true,
                timestamp_origin_ms: Some(0),
                syn_window: 65_535,
                window: 32_768,
                tos: 0,
                ttl: 64,
                verify: Verify::All,
                in_flight: in_flight.min(CHURN_MAX) as u32,
            };
            Pair {
                client: Floor::client(near, ours, config.clone(), None),
                server: Floor::server(far, theirs, config),
                now: Instant::ZERO,
            }
        }

        fn fill(&mut self) {}

        fn run(&mut self, connections: u64) {
            let target = self.client.counted().finished + connections;
            while self.client.counted().finished < target {
                self.now += Span::from_micros(TURN_US);
                self.client.turn(self.now);
                self.server.turn(self.now);
            }
        }
    }
}

mod smoltcp_pair {
    use super::{CHURN_MAX, Rival, TURN_US};
    use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
    use smoltcp::phy::{self, DeviceCapabilities, Medium};
    use smoltcp::socket::Socket as Any;
    use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
    use smoltcp::time::{Duration, Instant};
    use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// Smallest that a socket does with: no connection carries text.
    const BUFFER_BYTES: usize = 64;

    pub struct Pair {
        client: Side,
        server: Side,
        in_flight: usize,
        opened: u64,
        /// Ports of the server: as many as give every connection in flight a tuple. Divides
        /// [`CHURN_MAX`], so that the sockets in order listen on the ports in order.
        ports: u64,
        /// Established ones, the oldest first.
        open: VecDeque<SocketHandle>,
        /// Sockets that a connection may be opened with.
        idle: Vec<SocketHandle>,
        /// On the way to ESTABLISHED, and to TIME-WAIT, in order.
        opening: VecDeque<SocketHandle>,
        closing: VecDeque<SocketHandle>,
        closed: u64,
        now: Instant,
    }

    struct Side {
        device: End,
        interface: Interface,
        crowd: Crowd,
    }

    /// Sockets, in the order in which they were added.
    struct Crowd {
        sockets: SocketSet<'static>,
        handles: Vec<SocketHandle>,
    }

    type Lane = Rc<RefCell<VecDeque<Vec<u8>>>>;

    /// One end of a link in memory. Buffers that were received are written again.
    struct End {
        rx: Lane,
        tx: Lane,
        spare: Lane,
    }

    struct Received {
        frame: Vec<u8>,
        spare: Lane,
    }

    struct Sending {
        lane: Lane,
        spare: Lane,
    }

    impl phy::RxToken for Received {
        fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
            let result = read(&self.frame);
            self.spare.borrow_mut().push_back(self.frame);
            result
        }
    }

    impl phy::TxToken for Sending {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
            let mut frame = self.spare.borrow_mut().pop_back().unwrap_or_default();
            frame.resize(len, 0);
            let result = write(&mut frame);
            self.lane.borrow_mut().push_back(frame);
            result
        }
    }

    impl phy::Device for End {
        type RxToken<'a> = Received;
        type TxToken<'a> = Sending;

        fn receive(&mut self, now: Instant) -> Option<(Received, Sending)> {
            let frame = self.rx.borrow_mut().pop_front()?;
            Some((Received { frame, spare: self.spare.clone() }, self.transmit(now)?))
        }

        fn transmit(&mut self, _now: Instant) -> Option<Sending> {
            Some(Sending { lane: self.tx.clone(), spare: self.spare.clone() })
        }

        /// Checksums are computed and verified, as ours are.
        fn capabilities(&self) -> DeviceCapabilities {
            let mut capabilities = DeviceCapabilities::default();
            capabilities.max_transmission_unit = 1514;
            capabilities.medium = Medium::Ethernet;
            capabilities
        }
    }

    impl Crowd {
        fn new(sockets: usize) -> Crowd {
            let mut crowd = Crowd { sockets: SocketSet::new(Vec::new()), handles: Vec::new() };
            let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
            for _ in 0..sockets {
                let mut socket = Socket::new(buffer(), buffer());
                socket.set_ack_delay(None);
                crowd.handles.push(crowd.sockets.add(socket));
            }
            crowd
        }

        fn join(&mut self, mut others: Crowd) {
            for handle in others.handles {
                let Any::Tcp(socket) = others.sockets.remove(handle);
                self.handles.push(self.sockets.add(socket));
            }
        }
    }

    impl Side {
        fn new(number: u8, rx: &Lane, tx: &Lane, spare: &Lane) -> Side {
            let mut device = End { rx: rx.clone(), tx: tx.clone(), spare: spare.clone() };
            let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, number]).into());
            let mut interface = Interface::new(config, &mut device, Instant::ZERO);
            interface.update_ip_addrs(|addresses| {
                let address = IpCidr::new(IpAddress::v4(10, 0, 0, number), 24);
                addresses.push(address).expect("room for one address");
            });
            Side { device, interface, crowd: Crowd::new(0) }
        }

        fn poll(&mut self, now: Instant) {
            self.interface.poll(now, &mut self.device, &mut self.crowd.sockets);
        }
    }

    impl Pair {
        /// Opens what is closed, and lets both sides do their work.
        fn turn(&mut self) {
            while let Some(handle) = self.idle.pop() {
                let (port, lap) = (self.opened % self.ports, self.opened / self.ports);
                self.opened += 1;
                let server = IpEndpoint::new(IpAddress::v4(10, 0, 0, 2), 80 + port as u16);
                let local_port = 1024 + (lap % 64_000) as u16;
                let context = self.client.interface.context();
                let socket = self.client.crowd.sockets.get_mut::<Socket>(handle);
                socket.connect(context, server, local_port).expect("the socket is closed");
                self.opening.push_back(handle);
            }
            self.now += Duration::from_micros(TURN_US);
            self.client.poll(self.now);
            self.server.poll(self.now);
            self.serve();
            self.look();
        }

        /// The server's application: closes what the peer closed, listens again with what is
        /// closed.
        fn serve(&mut self) {
            for (place, &handle) in self.server.crowd.handles.iter().enumerate() {
                let socket = self.server.crowd.sockets.get_mut::<Socket>(handle);
                match socket.state() {
                    State::CloseWait => socket.close(),
                    State::Closed => {
                        let endpoint = IpListenEndpoint {
                            addr: None,
                            port: 80 + (place as u64 % self.ports) as u16,
                        };
                        socket.listen(endpoint).expect("the socket is closed");
                    }
                    _ => {}
                }
            }
        }

        /// The client's application: in order, which were established and which were closed.
        fn look(&mut self) {
            let state = |side: &Side, handle| side.crowd.sockets.get::<Socket>(handle).state();
            while let Some(&first) = self.opening.front() {
                if state(&self.client, first) != State::Established {
                    break;
                }
                self.open.extend(self.opening.pop_front());
            }
            while let Some(&first) = self.closing.front() {
                if state(&self.client, first) != State::TimeWait {
                    break;
                }
                self.idle.extend(self.closing.pop_front());
                self.closed += 1;
            }
        }
    }

    impl Rival for Pair {
        fn new(in_flight: usize) -> Pair {
            let (there, back, spare) = Default::default();
            Pair {
                client: Side::new(1, &back, &there, &spare),
                server: Side::new(2, &there, &back, &spare),
                in_flight,
                opened: 0,
                ports: 1 + in_flight as u64 / 32_000,
                open: VecDeque::with_capacity(in_flight),
                idle: Vec::new(),
                opening: VecDeque::new(),
                closing: VecDeque::new(),
                closed: 0,
                now: Instant::ZERO,
            }
        }

        /// A few at a time, in sockets that join the others once they are established: among all
        /// 100,000 it would take minutes.
        fn fill(&mut self) {
            let (mut clients, mut servers) = (Crowd::new(0), Crowd::new(0));
            while clients.handles.len() < self.in_flight {
                let few = CHURN_MAX.min(self.in_flight - clients.handles.len());
                (self.client.crowd, self.server.crowd) = (Crowd::new(few), Crowd::new(few));
                self.idle.clone_from(&self.client.crowd.handles);
                self.serve();
                while self.open.len() < few {
                    self.turn();
                }
                self.open.clear();
                clients.join(std::mem::replace(&mut self.client.crowd, Crowd::new(0)));
                servers.join(std::mem::replace(&mut self.server.crowd, Crowd::new(0)));
            }
            self.open.extend(&clients.handles);
            // Beside those in flight there must be some that listen.
            servers.join(Crowd::new(self.in_flight.min(CHURN_MAX) * self.ports as usize));
            (self.client.crowd, self.server.crowd) = (clients, servers);
            self.serve();
        }

        fn run(&mut self, connections: u64) {
            let target = self.closed + connections;
            while self.closed < target {
                while self.open.len() + CHURN_MAX > self.client.crowd.handles.len() {
                    let Some(oldest) = self.open.pop_front() else { break };
                    self.client.crowd.sockets.get_mut::<Socket>(oldest).close();
                    self.closing.push_back(oldest);
                }
                self.turn();
            }
        }
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);

//! `bench --floor`: the run in slices, each followed by as long a slice of the stateless floor on
//! the same link and the same cores. What drifts on the machine drifts for both, and so a slice is
//! compared with the one next to it.

use super::Failure;
use super::assemble::{self, Share};
use super::bench::{Bench, Port, SPORT_DEFAULT};
use super::clock::Clock;
use super::crew::{Ending, Found, Member, Post};
use super::distance::{Half, Outcome, Pace, Tally};
use super::launch::{Run, Sides};
use super::output;
use super::plan::{BenchPlan, Drive, Stack};
use super::runner::Orders;
use super::settings::{CloseName, Output, PeerName, WorkloadName};
use crate::app::{App, Conn, server};
use crate::device::Device;
use crate::floor::{Config, Counted, Exchange, Floor, IN_FLIGHT_MAX};
use crate::flow::FlowKey;
use crate::time::{Instant, Span};
use crate::wire::ethernet::Mac;
use std::net::IpAddr;
use std::sync::Arc;

/// Slices of each: so many that what else the machine does, which falls into a few of them, does
/// not decide their median.
const SLICES: u64 = 9;

/// How long nothing must move before a link is empty: more than a busy poll takes to come round to
/// every queue, hardly noticed by a person.
const QUIET: Span = Span::from_millis(5);

/// As a runner's.
const LOOK_EVERY: Span = Span::from_millis(1);

/// Bytes of the timestamps option, which every segment has.
const TIMESTAMPS_BYTES: u16 = 12;

/// Holds a bench to what the floor can do as well.
///
/// # Errors
/// What it can't, and what to leave out.
pub(super) fn suits(
    drive: &Drive,
    stack: &Stack,
    peer: PeerName,
    output: &Output,
) -> Result<(), String> {
    let without = |what: &str| Err(format!("--floor needs a run without {what}"));
    match drive.workload {
        WorkloadName::Handshake => {}
        WorkloadName::Http if drive.requests == 1 => {}
        WorkloadName::Http => return without("--requests: one a connection"),
        WorkloadName::Rr | WorkloadName::Hold | WorkloadName::Stream => {
            return Err("--floor knows --workload handshake and http".to_string());
        }
    }
    match () {
        () if drive.count.is_some() => without("--count: say how long, -d 10s"),
        () if drive.close != CloseName::Fin => without("--close rst"),
        () if stack.impair.is_some() => without("--impair-*: what is lost stays lost"),
        () if output.pcap.is_some() => without("--pcap"),
        () if peer != PeerName::Ours => without("--peer"),
        () => Ok(()),
    }
}

/// What the ends of a floor are made with.
#[derive(Clone)]
pub(super) struct Under {
    /// Of the whole run, and without MAC addresses.
    config: Config,
    plan: Arc<BenchPlan>,
    duration: Span,
    orders: Arc<Orders>,
    mtu: u16,
}

impl Under {
    /// The floor under `bench`, for slices of `duration`.
    ///
    /// # Errors
    /// A request or a response takes more than a segment.
    pub fn new(bench: &Bench, duration: Span) -> Result<Under, Failure> {
        let BenchPlan { stack, service, .. } = &*bench.plan;
        let tcp = assemble::config(stack, Vec::new(), Mac::default(), bench.mtu()).tcp;
        let addresses = [stack.subnets[0].first, bench.plan.server_subnet().first];
        let mss = match addresses[0] {
            IpAddr::V4(_) => tcp.mss.v4,
            IpAddr::V6(_) => tcp.mss.v6,
        };
        // As the engine chooses it: what fits the window into sixteen bits.
        let shift = tcp.window.max(1).ilog2().saturating_sub(15).min(14) as u8;
        let window_scale = tcp.window_scaling.then_some(shift);
        let scaled = |shift: u8| (tcp.window >> shift).min(u32::from(u16::MAX)) as u16;
        let exchange = exchange(&bench.plan);
        if let Exchange::Text { request, response } = &exchange
            && request.len().max(response.len()) > usize::from(mss.saturating_sub(TIMESTAMPS_BYTES))
        {
            return Err(Failure::Usage(format!(
                "--floor takes a request and a response of one segment each, and these are of {} and {} bytes",
                request.len(),
                response.len()
            )));
        }
        let config = Config {
            macs: [Mac::default(); 2],
            addresses,
            first_port: SPORT_DEFAULT.first,
            last_port: SPORT_DEFAULT.last,
            server_port: service.listener.port,
            exchange,
            mss,
            window_scale,
            sack_permitted: tcp.sack,
            timestamp_origin_ms: tcp.timestamps.then_some(tcp.timestamp_origin_ms),
            syn_window: scaled(0),
            window: scaled(window_scale.unwrap_or(0)),
            tos: tcp.dscp << 2,
            ttl: stack.ttl,
            verify: stack.verify,
            in_flight: 0,
        };
        Ok(Under {
            config,
            plan: Arc::clone(&bench.plan),
            duration,
            orders: Arc::clone(&bench.orders),
            mtu: bench.mtu(),
        })
    }

    /// Largest IP datagram in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Worker `share`'s client, under orders, and its server, which has none: it answers as long as
    /// it is turned.
    pub fn ends<C: Device, S: Device>(
        &self,
        client: Port<C>,
        server: Port<S>,
        share: Share,
    ) -> (Driver<C>, Floor<S>) {
        let BenchPlan { stack, drive, .. } = &*self.plan;
        let in_flight = share.of(u64::from(drive.connections)).max(1) as u32;
        let in_flight = in_flight.min(IN_FLIGHT_MAX);
        let macs = [client.mac, server.mac];
        let config = Config { macs, in_flight, ..self.config.clone() };
        let server = Floor::server(server.device, server.pool, config.clone());
        let schedule = drive.rate.map(|rate| assemble::schedule(rate, stack, share));
        let end = Floor::client(client.device, client.pool, config, schedule);
        let (duration, orders) = (self.duration, Arc::clone(&self.orders));
        (Driver { end, duration, orders, times: None, stopped: None }, server)
    }
}

/// What each connection of the run says: its applications are asked, as if there were one.
fn exchange(plan: &BenchPlan) -> Exchange {
    let BenchPlan { stack, drive, service, .. } = plan;
    let mut client = assemble::client(drive, stack, Share::WHOLE);
    let (_, mut server) = assemble::server(&[*service], 1);
    let Some(launch) = client.launch(Instant::ZERO) else { return Exchange::Bare };
    let request = said(&mut client, launch.state, None);
    if request.is_empty() {
        return Exchange::Bare;
    }
    let response = said(&mut server, server::State::default(), Some(&request));
    Exchange::Text { request, response }
}

/// What an application says on a new connection, before or after it has `heard` something.
fn said<A: App>(app: &mut A, mut state: A::State, heard: Option<&[u8]>) -> Box<[u8]> {
    let key = FlowKey::v4(([0; 4], 0), ([0; 4], 0));
    let mut conn = Conn::new(&mut state, Instant::ZERO, key, 0);
    app.established(&mut conn);
    if let Some(heard) = heard {
        app.received(&mut conn, heard);
    }
    let mut text = vec![0; conn.owes().bytes as usize].into_boxed_slice();
    if !text.is_empty() {
        app.payload(&state, 0, &mut text);
    }
    text
}

/// A client's end of the floor under orders: it runs for its time, and lets what is under way end.
pub(super) struct Driver<D> {
    end: Floor<D>,
    duration: Span,
    orders: Arc<Orders>,
    times: Option<Times>,
    /// How long it ran, and what it had counted by then.
    stopped: Option<(Span, Counted)>,
}

#[derive(Clone, Copy)]
struct Times {
    started: Instant,
    look_at: Instant,
    moved: Instant,
}

impl<D: Device> Driver<D> {
    /// One turn. False once it is over and nothing is under way.
    #[inline]
    pub fn turn(&mut self, now: Instant) -> bool {
        let moved = self.end.turn(now);
        let times = self.times.get_or_insert(Times { started: now, look_at: now, moved: now });
        if moved {
            times.moved = now;
        }
        now < times.look_at || self.look(now)
    }

    fn look(&mut self, now: Instant) -> bool {
        let Some(times) = &mut self.times else { return true };
        times.look_at = now + LOOK_EVERY;
        let ran = now.since(times.started);
        if self.stopped.is_none() && (ran >= self.duration || self.orders.is_stopped()) {
            self.stopped = Some((ran, *self.end.counted()));
            self.end.stop();
        }
        // What is lost is given up after a while, so this comes.
        self.stopped.is_none() || self.end.in_flight() > 0 || now.since(times.moved) < QUIET
    }

    fn tally(&self) -> Tally {
        let (ran, at_stop) = self.stopped.unwrap_or_default();
        let packets = at_stop.rx_packets + at_stop.tx_packets;
        let pace = Pace { ran, connections: at_stop.finished, packets, cores: 1 };
        let counted = self.end.counted();
        let opened = self.end.opened().cloned();
        Tally { pace, opened, lost: counted.lost, dropped: dropped(counted) }
    }
}

/// Frames that an end did not answer although they were for it, or could not.
fn dropped(counted: &Counted) -> u64 {
    let &Counted { malformed, strangers, late, shed, no_frame, .. } = counted;
    malformed + strangers + late + shed + no_frame
}

/// Turns both ends until the client's is over, on one thread as the bench's own.
pub(super) fn alternate<C: Device, S: Device>(
    mut client: Driver<C>,
    mut server: Floor<S>,
    clock: &Clock,
) -> Found {
    loop {
        let now = clock.now();
        let goes_on = client.turn(now);
        server.turn(now);
        if !goes_on {
            break;
        }
    }
    let mut tally = client.tally();
    tally.dropped += dropped(server.counted());
    Found { floor: Some(tally), ..Found::default() }
}

/// A core for each end.
pub(super) fn two_threads<C: Device + Send + 'static, S: Device + Send + 'static>(
    mut client: Driver<C>,
    mut server: Floor<S>,
    cores: [u32; 2],
) -> Vec<Member> {
    // Gone when the client's thread is over, in whatever way.
    let driving = Arc::new(());
    let driven = Arc::downgrade(&driving);
    let drive = move |post: &Post| {
        let clock = post.confined()?;
        let _driving = driving;
        while client.turn(clock.now()) {}
        Ok(Found { floor: Some(client.tally()), ..Found::default() })
    };
    let serve = move |post: &Post| {
        let clock = post.confined()?;
        while driven.strong_count() > 0 {
            server.turn(clock.now());
        }
        let pace = Pace { cores: 1, ..Pace::default() };
        let tally = Tally { pace, dropped: dropped(server.counted()), ..Tally::default() };
        Ok(Found { floor: Some(tally), ..Found::default() })
    };
    vec![
        Member { core: cores[0], job: Box::new(drive) },
        Member { core: cores[1], job: Box::new(serve) },
    ]
}

/// Runs a bench in slices with the floor between them: `engine` and `floor` give the threads of one
/// slice of each. A signal ends it with what was measured till then.
///
/// # Errors
/// What can't be made, and what goes wrong in a thread.
pub(super) fn interleave(
    run: &Run,
    bench: &Bench,
    engine: impl Fn(&Bench) -> Result<Vec<Member>, Failure>,
    floor: impl Fn(&Under) -> Result<Vec<Member>, Failure>,
) -> Result<Sides, Failure> {
    let (plan, output) = (&*bench.plan, &bench.plan.output);
    let duration = plan.drive.duration.unwrap_or_default().over(SLICES);
    let under = Under::new(bench, duration)?;
    let drive = Drive { duration: Some(duration), ..plan.drive.clone() };
    let bench = Bench { plan: Arc::new(BenchPlan { drive, ..plan.clone() }), ..bench.clone() };
    let board = output::shows_live(output).then_some(&*bench.board);
    let mut outcome = Outcome::new(plan.drive.connections, plan.drive.rate.is_some());
    let mut all = Vec::new();
    let mut ending = Ending::Own;
    for _ in 0..SLICES {
        let (found, how) = run.watched(engine(&bench)?, board, None)?;
        let ours = Half::of_engine(&found);
        Found::follow(&mut all, found);
        ending = how;
        if ending != Ending::Own {
            break;
        }
        let (found, how) = run.watched(floor(&under)?, None, None)?;
        ending = how;
        if ending != Ending::Own {
            break;
        }
        outcome.add(ours, found.into_iter().filter_map(|found| found.floor));
    }
    let mut sides = Sides::merge(all, plan.drive.rate, ending);
    sides.floor = (!outcome.is_empty()).then_some(outcome);
    Ok(sides)
}

#[cfg(test)]
mod tests {
    use super::super::memory::{CLIENT_MAC, SERVER_MAC};
    use super::super::settings::{self, FamilyName, Load, Rig, Tcp};
    use super::*;
    use crate::device::link::{self, Link};
    use crate::floor::tests::{Seen, Tap, segment_of};
    use crate::frame::Pool;
    use crate::stats::publish::Board;
    use crate::wire::segment::Segment;
    use crate::wire::tcp::Flags;
    use std::rc::Rc;

    fn plan(workload: WorkloadName, family: FamilyName, tcp: Tcp) -> BenchPlan {
        let rig = Rig { floor: true, family: Some(family), ..Rig::default() };
        let (workload, connections) = (Some(workload), Some(1));
        let load = Load { workload, connections, ..Load::default() };
        let (run, impair) = (settings::Run::default(), settings::Impair::default());
        BenchPlan::new(rig, run, load, tcp, impair, Output::default()).unwrap()
    }

    fn bench(plan: BenchPlan) -> Bench {
        Bench {
            plan: Arc::new(plan),
            clock: Clock::start(),
            orders: Arc::new(Orders::default()),
            board: Arc::new(Board::new(1)),
            rss: None,
        }
    }

    fn ports() -> (Port<Tap<Link>>, Port<Tap<Link>>, Seen) {
        let (ours, theirs) = Pool::pair(512).unwrap();
        let (near, far) = link::pair(ours.umem(), 64);
        let seen = Seen::default();
        let tap = |dev| Tap { dev, seen: Rc::clone(&seen) };
        let client = Port { device: tap(near), pool: ours, mac: CLIENT_MAC };
        let server = Port { device: tap(far), pool: theirs, mac: SERVER_MAC };
        (client, server, seen)
    }

    /// One connection's frames, without those before its SYN: length, everything that is the same
    /// for all connections, and text.
    fn six(seen: &Seen) -> Vec<(usize, Segment, Vec<u8>)> {
        let frames = seen.borrow();
        let is_tcp = |frame: &&Vec<u8>| {
            frame[12..14] == [8, 0] && frame[23] == 6
                || frame[12..14] == [0x86, 0xdd] && frame[20] == 6
        };
        let connection = frames.iter().filter(is_tcp).take(6);
        connection
            .enumerate()
            .map(|(place, frame)| {
                let (mut segment, text) = segment_of(frame);
                (segment.seq, segment.ack) = (0, 0);
                // Of what is used of a window the floor does not know.
                if place > 2 {
                    segment.window = 0;
                }
                segment.options.timestamps = segment.options.timestamps.map(|_| (0, 0));
                (frame.len(), segment, text)
            })
            .collect()
    }

    /// Goal: the floor's frames are the engine's, but for the numbers in them.
    #[test]
    fn the_floor_sends_the_frames_that_the_engine_sends() {
        let plain = || Tcp { tcp_timestamps: Some(false), tcp_sack: Some(false), ..Tcp::default() };
        let small = || Tcp { tcp_window: Some(30_000), tcp_mss: Some(500), ..Tcp::default() };
        for (workload, family, tcp) in [
            (WorkloadName::Handshake, FamilyName::Ipv4, Tcp::default()),
            (WorkloadName::Http, FamilyName::Ipv4, Tcp::default()),
            (WorkloadName::Http, FamilyName::Ipv6, Tcp::default()),
            (WorkloadName::Http, FamilyName::Ipv4, plain()),
            (WorkloadName::Handshake, FamilyName::Ipv6, small()),
        ] {
            let bench = bench(plan(workload, family, tcp));
            let (client, server, of_engine) = ports();
            let mut server =
                bench.server(server, Share::WHOLE, &Arc::new(Orders::default())).unwrap();
            let mut client = bench.client(client, Share::WHOLE).unwrap();
            let (near, far, of_floor) = ports();
            let under = Under::new(&bench, Span::from_secs(1)).unwrap();
            let (mut near, mut far) = under.ends(near, far, Share::WHOLE);
            for turn in 0..100 {
                let now = Instant::from_nanos(turn * 10_000);
                client.turn(now);
                server.turn(now);
                near.turn(now);
                far.turn(now);
            }
            let (ours, floor) = (six(&of_engine), six(&of_floor));
            assert_eq!(ours.len(), 6);
            for (place, (ours, floor)) in ours.iter().zip(&floor).enumerate() {
                assert_eq!(floor, ours, "frame {place} of {workload:?}");
            }
            assert_eq!(ours[0].1.flags, Flags::SYN);
        }
    }

    #[test]
    fn what_the_floor_can_not_do_is_refused_by_the_flag_to_leave_out() {
        let refused = |workload, change: &dyn Fn(&mut Drive)| {
            let plan = plan(WorkloadName::Handshake, FamilyName::Ipv4, Tcp::default());
            let mut drive = Drive { workload, ..plan.drive };
            change(&mut drive);
            suits(&drive, &plan.stack, plan.peer, &plan.output).unwrap_err()
        };
        let (bare, http) = (WorkloadName::Handshake, WorkloadName::Http);
        assert!(refused(WorkloadName::Stream, &|_| {}).contains("--workload handshake"));
        assert!(refused(http, &|drive| drive.requests = 2).contains("--requests"));
        assert!(refused(bare, &|drive| drive.count = Some(1)).contains("--count"));
        assert!(refused(bare, &|drive| drive.close = CloseName::Rst).contains("--close rst"));
    }

    #[test]
    fn texts_of_more_than_a_segment_are_refused() {
        let mut plan = plan(WorkloadName::Http, FamilyName::Ipv4, Tcp::default());
        plan.service.response_size = 1400;
        let refused = Under::new(&bench(plan), Span::from_secs(1)).err().unwrap();
        assert!(refused.message().contains("one segment each"), "{}", refused.message());
    }
}

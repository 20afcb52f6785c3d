//! From names to types: a plan's words become engines and applications.

use super::clock;
use super::plan::{Drive, Service, Stack};
use super::settings::{CloseName, DirectionName, WorkloadName};
use super::value::{AppName, Ports};
use crate::app::client::{self, Client, Close, Workload};
use crate::app::schedule::Schedule;
use crate::app::server::{self, Server};
use crate::app::stream::ENDLESS;
use crate::engine::{AWAKE_MAX, Config, Listener, Subnet};
use crate::flow::Rss;
use crate::flow::tuples::Ranges;
use crate::rng::Rng;
use crate::tcp::{self, Mss};
use crate::wire::ethernet::Mac;
use std::sync::Arc;

/// Which of several workers: `index` of `count`.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub index: u16,
    pub count: u16,
}

impl Share {
    /// The only worker.
    pub const WHOLE: Share = Share { index: 0, count: 1 };

    /// This worker's part of `total`; the parts add up to it.
    pub fn of(self, total: u64) -> u64 {
        let (index, count) = (u64::from(self.index), u64::from(self.count));
        total / count + u64::from(index < total % count)
    }

    /// As much of `rate` as every other worker has.
    pub fn of_rate(self, rate: f64) -> f64 {
        rate / f64::from(self.count)
    }
}

/// The engine's configuration but for whom it listens or connects to.
pub fn config(stack: &Stack, subnets: Vec<Subnet>, mac: Mac, mtu: u16) -> Config {
    // RFC 9293 s3.7.1, MUST-67, and s3.7.3, SHLD-6: no more than the interface takes in one piece.
    let Mss { v4, v6 } = Mss::within(mtu);
    let limit = stack.mss.unwrap_or(u16::MAX);
    let mss = Mss { v4: v4.min(limit), v6: v6.min(limit) };
    Config {
        mac,
        mtu,
        ttl: stack.ttl,
        subnets,
        gateways: stack.gateways.clone(),
        listeners: Vec::new(),
        ranges: None,
        keepalive: stack.keepalive,
        connections_max: stack.connections_max,
        awake_max: AWAKE_MAX,
        tcp: tcp::Config { mss, timestamp_origin_ms: clock::wall_ms(), ..stack.tcp },
        verify: stack.verify,
        device_sums: false,
        seed: seed(stack, Share::WHOLE),
    }
}

/// A seed of its own for each worker, from the run's.
pub fn seed(stack: &Stack, share: Share) -> u64 {
    Rng::new(stack.seed.wrapping_add(u64::from(share.index) << 32)).next()
}

/// The server's listeners and what serves them, in the same order.
pub fn server(services: &[Service], connections_max: u32) -> (Vec<Listener>, Server) {
    let listeners = services.iter().map(|service| service.listener).collect();
    let services = services.iter().map(|service| served(service.app, service.response_size));
    (listeners, Server::new(services.collect(), connections_max))
}

fn served(app: AppName, response_size: u64) -> server::Service {
    match app {
        AppName::Http => server::Service::Http { response_size },
        AppName::Accept => server::Service::Accept,
        AppName::Echo => server::Service::Echo,
        AppName::Discard => server::Service::Discard,
        AppName::Chargen => server::Service::Chargen,
        AppName::Halfclose => server::Service::HalfClose,
        AppName::Stream => server::Service::Stream,
    }
}

/// Where this worker's connections go from and to; `rss` brings their replies back to it.
pub fn ranges(
    subnets: &[Subnet],
    drive: &Drive,
    sport: Ports,
    share: Share,
    rss: Option<Arc<Rss>>,
) -> Ranges {
    Ranges {
        locals: subnets.iter().map(Subnet::range).collect(),
        first_port: sport.first,
        last_port: sport.last,
        targets: drive.targets.clone(),
        share: share.index,
        shares: share.count,
        rss,
    }
}

/// When this worker's connections are due, at `rate` a second of all workers together.
pub fn schedule(rate: f64, stack: &Stack, share: Share) -> Schedule {
    Schedule::new(share.of_rate(rate), seed(stack, share))
}

/// This worker's part of the load.
pub fn client(drive: &Drive, stack: &Stack, share: Share) -> Client {
    let workload = match drive.workload {
        WorkloadName::Handshake => Workload::Handshake,
        WorkloadName::Http => Workload::Http {
            host: drive.host.clone(),
            path: drive.path.clone(),
            requests: drive.requests,
            response_bytes: drive.response_size,
        },
        WorkloadName::Rr => Workload::Rr {
            request_bytes: drive.request_size,
            response_bytes: drive.response_size.unwrap_or(drive.request_size),
            count: drive.requests,
        },
        WorkloadName::Hold => Workload::Hold,
        WorkloadName::Stream => {
            let (up_bytes, down_bytes) = stream_bytes(drive);
            Workload::Stream { up_bytes, down_bytes }
        }
    };
    let load = client::Load {
        rate_per_second: drive.rate.map(|rate| share.of_rate(rate)),
        // At least one: a client without a connection has nothing to do.
        connections: (share.of(u64::from(drive.connections)) as u32).max(1),
        held: share.of(u64::from(drive.held)) as u32,
        count: drive.count.map(|count| share.of(count)),
        close: match drive.close {
            CloseName::Fin => Close::Fin,
            CloseName::Rst => Close::Rst,
        },
    };
    Client::new(workload, load, seed(stack, share))
}

/// Bytes of a stream, up and down.
pub fn stream_bytes(drive: &Drive) -> (u64, u64) {
    let bytes = drive.bytes.unwrap_or(ENDLESS);
    match drive.direction {
        DirectionName::Up => (bytes, 0),
        DirectionName::Down => (0, bytes),
        DirectionName::Both => (bytes, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;
    use crate::wire::segment::Verify;

    #[test]
    fn shares_add_up_to_the_whole() {
        for (total, count) in [(0, 3), (7, 3), (1_000_000, 7), (2, 5)] {
            let parts = (0..count).map(|index| Share { index, count }.of(total));
            assert_eq!(parts.sum::<u64>(), total);
        }
    }

    fn stack() -> Stack {
        Stack {
            subnets: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            ttl: 64,
            mss: None,
            tcp: tcp::Config::default(),
            keepalive: None,
            verify: Verify::All,
            connections_max: 1,
            cpus: None,
            drain: Span::ZERO,
            sandbox: true,
            seed: 1,
            impair: None,
        }
    }

    /// Goal: a peer in TIME-WAIT from the run before sees later timestamps in this one.
    #[test]
    fn the_timestamps_of_a_run_go_on_where_those_of_the_last_one_stopped() {
        let stack = stack();
        let origin = || config(&stack, Vec::new(), Mac::default(), 1500).tcp.timestamp_origin_ms;
        let last_run = origin();
        std::thread::sleep(std::time::Duration::from_millis(30));
        let later_ms = origin().wrapping_sub(last_run);
        assert!((30..30_000).contains(&later_ms), "{later_ms}");
    }

    #[test]
    fn datagrams_leave_with_the_ttl_that_was_asked_for() {
        let stack = Stack { ttl: 7, ..stack() };
        assert_eq!(config(&stack, Vec::new(), Mac::default(), 1500).ttl, 7);
    }

    #[test]
    fn the_mss_that_is_offered_fits_the_interface_whatever_is_asked_for() {
        let mss = |asked, mtu| {
            config(&Stack { mss: asked, ..stack() }, Vec::new(), Mac::default(), mtu).tcp.mss
        };
        let each = |v4, v6| Mss { v4, v6 };
        assert_eq!((mss(None, 1500), mss(None, 576)), (each(1460, 1440), each(536, 516)));
        assert_eq!(mss(Some(1000), 1500), each(1000, 1000));
        assert_eq!(mss(Some(9000), 1500), each(1460, 1440));
    }
}

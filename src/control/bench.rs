//! The two ends of a bench, whatever joins them: how each is made, and how they take turns on one
//! core.

use super::assemble::{self, Share, config};
use super::clock::Clock;
use super::crew::Found;
use super::nic::numbered;
use super::plan::BenchPlan;
use super::runner::{Finding, Milestones, Orders, Runner, Term};
use super::value::Ports;
use super::wrapped::{Wrapped, Wrappers};
use crate::app::client::Client;
use crate::app::results::{Results, Served};
use crate::app::server::Server;
use crate::device::Device;
use crate::engine::Engine;
use crate::flow::Rss;
use crate::frame::Pool;
use crate::stats::publish::Board;
use crate::time::Instant;
use crate::wire::ethernet::Mac;
use crate::worker::Worker;
use std::sync::Arc;

const MTU_DEFAULT: u16 = 1500;

/// All but the privileged ports.
pub(super) const SPORT_DEFAULT: Ports = Ports { first: 1024, last: 65_535 };

/// What every worker of a bench is made with.
#[derive(Clone)]
pub(super) struct Bench {
    pub plan: Arc<BenchPlan>,
    pub clock: Clock,
    /// Those of the clients: a signal stops them, and each stops its server.
    pub orders: Arc<Orders>,
    /// A row for each client.
    pub board: Arc<Board>,
    /// Where the link spreads frames over several workers of a side.
    pub rss: Option<Arc<Rss>>,
}

/// A device with the frames that belong to it, and its MAC address.
pub(super) struct Port<D> {
    pub device: D,
    pub pool: Pool,
    pub mac: Mac,
}

impl Bench {
    /// The client of worker `share`.
    pub fn client<D: Device>(
        &self,
        port: Port<D>,
        share: Share,
    ) -> Result<Runner<D, Client>, String> {
        let BenchPlan { stack, drive, output, .. } = &*self.plan;
        let index = usize::from(share.index);
        let pcap = output.pcap.as_ref().map(|path| numbered(path, index));
        let wrappers = Wrappers {
            impair: stack.impair.as_ref(),
            pcap: pcap.as_deref(),
            seed: assemble::seed(stack, share),
        };
        let mut config = config(stack, stack.subnets.clone(), port.mac, self.mtu());
        let rss = self.rss.clone();
        config.ranges = Some(assemble::ranges(&stack.subnets, drive, SPORT_DEFAULT, share, rss));
        let app = assemble::client(drive, stack, share);
        let device = self.wrapped(port.device, &port.pool, &wrappers)?;
        let worker = Worker::new(device, Engine::new(config, app, self.clock.now()), port.pool);
        let term = Term { duration: drive.duration, drain: stack.drain, until_empty: true };
        let (orders, board) = (Arc::clone(&self.orders), Arc::clone(&self.board));
        Ok(Runner::new(worker, Milestones::client(), term, orders, board, index))
    }

    /// The server of worker `share`, stopped by `orders`.
    pub fn server<D: Device>(
        &self,
        port: Port<D>,
        share: Share,
        orders: &Arc<Orders>,
    ) -> Result<Runner<D, Server>, String> {
        let BenchPlan { stack, service, .. } = &*self.plan;
        // What the server sends is impaired too, by dice of its own. The recording at the client
        // shows both directions.
        let seed = assemble::seed(stack, share).wrapping_add(1);
        let wrappers = Wrappers { impair: stack.impair.as_ref(), pcap: None, seed };
        let subnets = vec![self.plan.server_subnet()];
        let mut config = config(stack, subnets, port.mac, self.mtu());
        let (listeners, app) = assemble::server(&[*service], stack.connections_max);
        config.listeners = listeners;
        let device = self.wrapped(port.device, &port.pool, &wrappers)?;
        let worker = Worker::new(device, Engine::new(config, app, self.clock.now()), port.pool);
        let term = Term { duration: None, drain: stack.drain, until_empty: true };
        let aside = Arc::new(Board::new(1));
        Ok(Runner::new(worker, Milestones::server(), term, Arc::clone(orders), aside, 0))
    }

    fn wrapped<D: Device>(
        &self,
        device: D,
        pool: &Pool,
        wrappers: &Wrappers<'_>,
    ) -> Result<Wrapped<D>, String> {
        Wrapped::new(device, pool, wrappers, &self.clock).map_err(|error| error.to_string())
    }

    /// Largest IP datagram in bytes.
    pub fn mtu(&self) -> u16 {
        self.plan.stack.mtu.unwrap_or(MTU_DEFAULT)
    }
}

/// Turns both ends until both are over; the server is told to stop when the client is over, and the
/// client goes on answering until the server is. One clock read for a turn of each.
pub(super) fn alternate<C: Device, S: Device>(
    mut client: Runner<C, Client>,
    mut server: Runner<S, Server>,
    server_orders: &Orders,
    clock: &Clock,
) -> Found {
    loop {
        let now = clock.now();
        let client_goes_on = client.turn(now);
        let server_goes_on = server.turn(now);
        if !client_goes_on {
            server_orders.stop();
            if !server_goes_on {
                break;
            }
        }
    }
    let server = Some(server_found(server, clock.now()));
    Found { client: Some(client_found(client, clock.now())), server, ..Found::default() }
}

/// What the server found, its own part having been over at `over_at`.
pub(super) fn server_found<D: Device>(
    server: Runner<D, Server>,
    over_at: Instant,
) -> (Finding, Served) {
    let (finding, app) = server.finish(over_at);
    (finding, *app.served())
}

/// What the client found, its own part having been over at `over_at`.
pub(super) fn client_found<D: Device>(
    client: Runner<D, Client>,
    over_at: Instant,
) -> (Finding, Results) {
    let (finding, app) = client.finish(over_at);
    (finding, app.results().clone())
}

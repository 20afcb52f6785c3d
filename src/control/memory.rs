//! A bench whose two ends are joined in memory: on one core, turn by turn, or on a core each.

use super::assemble::{self, Share};
use super::clock::Clock;
use super::crew::{Found, Member};
use super::launch::Run;
use super::plan::BenchPlan;
use super::runner::{Finding, Orders, Runner, Term};
use super::value::Ports;
use super::wrapped::{Wrapped, Wrappers};
use super::{Failure, assemble::config};
use crate::app::client::Client;
use crate::app::results::Results;
use crate::app::server::Server;
use crate::device::{Device, link};
use crate::engine::{Engine, Subnet};
use crate::frame::Pool;
use crate::stats::publish::Board;
use crate::wire::ethernet::Mac;
use crate::worker::Worker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Frames of each end. Both rings full and a few bursts in hand leave half of them free.
const POOL_FRAMES: u32 = 4096;
const RING_FRAMES: u32 = 1024;
const RING_BURSTS: u32 = 32;

/// Addresses of the two ends: locally administered, and different.
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

const MTU_DEFAULT: u16 = 1500;

/// All but the privileged ports.
const SPORT_DEFAULT: Ports = Ports { first: 1024, last: 65_535 };

/// Both ends alternating on one thread.
pub(super) fn one_thread(
    plan: Arc<BenchPlan>,
    core: u32,
    orders: &Arc<Orders>,
    board: &Arc<Board>,
) -> Vec<Member> {
    let (orders, board) = (Arc::clone(orders), Arc::clone(board));
    let job = move |clock: &Clock| {
        let (client_pool, server_pool) = pools()?;
        let (client_link, server_link) = link::pair(client_pool.umem(), RING_FRAMES);
        let server_orders = Arc::new(Orders::default());
        let aside = Arc::new(Board::new(1));
        let server = server(&plan, server_link, server_pool, clock, &server_orders, aside)?;
        let client = client(&plan, client_link, client_pool, clock, orders, board)?;
        Ok(alternate(client, server, &server_orders, clock))
    };
    vec![Member { core, job: Box::new(job) }]
}

/// A core for each end.
pub(super) fn two_threads(
    plan: &Arc<BenchPlan>,
    cores: [u32; 2],
    run: &Run,
    board: &Arc<Board>,
) -> Result<Vec<Member>, Failure> {
    let (client_pool, server_pool) = pools().map_err(Failure::Run)?;
    let (client_link, server_link) = link::threads(client_pool.umem(), RING_BURSTS);
    let server_orders = Arc::new(Orders::default());
    let server_over = Arc::new(AtomicBool::new(false));
    let (clock, aside) = (&run.clock, Arc::new(Board::new(1)));
    let mut server = server(plan, server_link, server_pool, clock, &server_orders, aside)
        .map_err(Failure::Run)?;
    let (orders, board) = (Arc::clone(&run.orders), Arc::clone(board));
    let mut client =
        client(plan, client_link, client_pool, clock, orders, board).map_err(Failure::Run)?;
    let over = Arc::clone(&server_over);
    let serve = move |clock: &Clock| {
        while server.turn(clock.now()) {}
        over.store(true, Relaxed);
        let (finding, _) = server.finish(clock.now());
        Ok(Found { client: None, server: Some(finding) })
    };
    let drive = move |clock: &Clock| {
        while client.turn(clock.now()) {}
        // The server may still wait for an ACK of ours.
        server_orders.stop();
        while !server_over.load(Relaxed) {
            client.turn(clock.now());
        }
        Ok(Found { client: Some(end(client, clock)), server: None })
    };
    Ok(vec![
        Member { core: cores[0], job: Box::new(drive) },
        Member { core: cores[1], job: Box::new(serve) },
    ])
}

/// Turns both ends until both are over; the server is told to stop when the client is over, and the client goes on
/// answering until the server is. One clock read for a turn of each.
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
    let (finding, _) = server.finish(clock.now());
    Found { client: Some(end(client, clock)), server: Some(finding) }
}

/// What the client found.
fn end<D: Device>(client: Runner<D, Client>, clock: &Clock) -> (Finding, Results) {
    let (finding, app) = client.finish(clock.now());
    (finding, app.results().clone())
}

fn pools() -> Result<(Pool, Pool), String> {
    Pool::pair(POOL_FRAMES).map_err(|error| error.to_string())
}

fn client<D: Device>(
    plan: &BenchPlan,
    device: D,
    pool: Pool,
    clock: &Clock,
    orders: Arc<Orders>,
    board: Arc<Board>,
) -> Result<Runner<D, Client>, String> {
    let (stack, share) = (&plan.stack, Share::WHOLE);
    let wrappers = Wrappers {
        impair: stack.impair.as_ref(),
        pcap: plan.output.pcap.as_deref(),
        seed: stack.seed,
    };
    let device =
        Wrapped::new(device, &pool, &wrappers, clock).map_err(|error| error.to_string())?;
    let subnets = stack.subnets.clone();
    let mut config = config(stack, subnets.clone(), CLIENT_MAC, mtu(plan), share);
    config.ranges = Some(assemble::ranges(&subnets, &plan.drive, SPORT_DEFAULT, share));
    let app = assemble::client(&plan.drive, stack, share);
    let worker = Worker::new(device, Engine::new(config, app, clock.now()), pool);
    let term = Term { duration: plan.drive.duration, drain: stack.drain, until_empty: true };
    Ok(Runner::new(worker, Client::done, term, orders, board, 0))
}

fn server<D: Device>(
    plan: &BenchPlan,
    device: D,
    pool: Pool,
    clock: &Clock,
    orders: &Arc<Orders>,
    board: Arc<Board>,
) -> Result<Runner<D, Server>, String> {
    let stack = &plan.stack;
    // What the server sends is impaired too, by dice of its own.
    let wrappers =
        Wrappers { impair: stack.impair.as_ref(), pcap: None, seed: stack.seed.wrapping_add(1) };
    let device =
        Wrapped::new(device, &pool, &wrappers, clock).map_err(|error| error.to_string())?;
    let address = plan.server_address();
    let subnets = vec![Subnet { first: address, last: address, prefix_len: 24 }];
    let mut config = config(stack, subnets, SERVER_MAC, mtu(plan), Share::WHOLE);
    let (listeners, app) = assemble::server(&[plan.service], stack.connections_max);
    config.listeners = listeners;
    let worker = Worker::new(device, Engine::new(config, app, clock.now()), pool);
    let term = Term { duration: None, drain: stack.drain, until_empty: true };
    Ok(Runner::new(worker, |_| false, term, Arc::clone(orders), board, 0))
}

fn mtu(plan: &BenchPlan) -> u16 {
    plan.stack.mtu.unwrap_or(MTU_DEFAULT)
}

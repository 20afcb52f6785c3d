//! A bench whose two ends are joined in memory: on one core, turn by turn, or on a core each.

use super::assemble::Share;
use super::bench::{Bench, Port, alternate, client_found, server_found};
use super::clock::Clock;
use super::crew::{Found, Member};
use super::floor::{self, Under};
use super::runner::Orders;
use crate::device::link;
use crate::frame::Pool;
use crate::wire::ethernet::Mac;
use std::sync::Arc;

/// Frames of each end. Both rings full and a few bursts in hand leave half of them free.
const POOL_FRAMES: u32 = 4096;
const RING_FRAMES: u32 = 1024;
const RING_BURSTS: u32 = 32;

/// Addresses of the two ends: locally administered, and different.
pub(super) const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(super) const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Both ends alternating on one thread.
pub(super) fn one_thread(bench: Bench, core: u32) -> Vec<Member> {
    // The link's ends can't move between threads, so the thread makes them.
    let job = move |clock: &Clock| {
        let pools = pools(bench.mtu())?;
        let (client, server) = ports(link::pair(pools.0.umem(), RING_FRAMES), pools);
        let server_orders = Arc::new(Orders::default());
        let server = bench.server(server, Share::WHOLE, &server_orders)?;
        let client = bench.client(client, Share::WHOLE)?;
        Ok(alternate(client, server, &server_orders, clock))
    };
    vec![Member { core, job: Box::new(job) }]
}

/// A core for each end.
pub(super) fn two_threads(bench: &Bench, cores: [u32; 2]) -> Result<Vec<Member>, String> {
    let pools = pools(bench.mtu())?;
    let (client, server) = ports(link::threads(pools.0.umem(), RING_BURSTS), pools);
    let server_orders = Arc::new(Orders::default());
    let mut server = bench.server(server, Share::WHOLE, &server_orders)?;
    let mut client = bench.client(client, Share::WHOLE)?;
    // Gone when the server's thread is over, in whatever way.
    let serving = Arc::new(());
    let served = Arc::downgrade(&serving);
    let serve = move |clock: &Clock| {
        let _serving = serving;
        while server.turn(clock.now()) {}
        Ok(Found { server: Some(server_found(server, clock)), ..Found::default() })
    };
    let drive = move |clock: &Clock| {
        while client.turn(clock.now()) {}
        // The server may still wait for an ACK of ours.
        server_orders.stop();
        while served.strong_count() > 0 {
            client.turn(clock.now());
        }
        Ok(Found { client: Some(client_found(client, clock)), ..Found::default() })
    };
    Ok(vec![
        Member { core: cores[0], job: Box::new(drive) },
        Member { core: cores[1], job: Box::new(serve) },
    ])
}

/// Both ends of the floor, on one core or two as those of the bench.
pub(super) fn floor(under: &Under, cores: &[u32]) -> Result<Vec<Member>, String> {
    let under = under.clone();
    match *cores {
        [core] => {
            let job = move |clock: &Clock| {
                let pools = pools(under.mtu())?;
                let (client, server) = ports(link::pair(pools.0.umem(), RING_FRAMES), pools);
                let (client, server) = under.ends(client, server, Share::WHOLE);
                Ok(floor::alternate(client, server, clock))
            };
            Ok(vec![Member { core, job: Box::new(job) }])
        }
        [first, second, ..] => {
            let pools = pools(under.mtu())?;
            let (client, server) = ports(link::threads(pools.0.umem(), RING_BURSTS), pools);
            let (client, server) = under.ends(client, server, Share::WHOLE);
            Ok(floor::two_threads(client, server, [first, second]))
        }
        [] => Ok(Vec::new()),
    }
}

fn ports<D>(devices: (D, D), pools: (Pool, Pool)) -> (Port<D>, Port<D>) {
    let client = Port { device: devices.0, pool: pools.0, mac: CLIENT_MAC };
    (client, Port { device: devices.1, pool: pools.1, mac: SERVER_MAC })
}

fn pools(mtu: u16) -> Result<(Pool, Pool), String> {
    Pool::pair_for_mtu(POOL_FRAMES, mtu).map_err(|error| error.to_string())
}

//! A bench whose two ends are joined in memory: on one core, turn by turn; on a core each; or by as
//! many workers a side as are wanted, over a link with a queue for each of them.

use super::assemble::Share;
use super::bench::{Bench, Port, alternate, client_found, server_found};
use super::clock::Clock;
use super::crew::{Found, Job, Member, Post};
use super::floor::{self, Under};
use super::runner::{Orders, Runner};
use crate::app::App;
use crate::app::client::Client;
use crate::app::server::Server;
use crate::device::mesh;
use crate::device::{Device, link};
use crate::flow::Rss;
use crate::flow::rss::KEY_BYTES;
use crate::frame::Pool;
use crate::wire::ethernet::Mac;
use crate::worker;
use std::sync::Arc;

/// Frames of each end. Both rings full and a few bursts in hand leave half of them free.
const POOL_FRAMES: u32 = 4096;
const RING_FRAMES: u32 = 1024;
const RING_BURSTS: u32 = 32;

/// Of each lane where there are several: they share the pool, and a burst has part of its frames in
/// each.
const MESH_BURSTS: u32 = 4;

/// Buckets of the queues' table, as NICs have at least.
const MESH_BUCKETS: u16 = 128;

/// The key of the queues' hash: the one that Microsoft publishes with the verification suite.
const MESH_KEY: [u8; KEY_BYTES] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Addresses of the two ends: locally administered, and different.
pub(super) const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(super) const SERVER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Both ends alternating on one thread.
pub(super) fn one_thread(bench: Bench, core: u32) -> Vec<Member> {
    // The link's ends can't move between threads, so the thread makes them.
    let job = move |post: &Post| {
        let pools = pools(bench.mtu())?;
        let (client, server) = ports(link::pair(pools.0.umem(), RING_FRAMES), pools);
        let server_orders = Arc::new(Orders::default());
        let server = bench.server(server, Share::WHOLE, &server_orders)?;
        let client = bench.client(client, Share::WHOLE)?;
        Ok(alternate(client, server, &server_orders, post.confined()?))
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
    let serve = move |post: &Post| {
        let clock = post.confined()?;
        let _serving = serving;
        while server.turn(clock.now()) {}
        Ok(Found { server: Some(server_found(server, clock.now())), ..Found::default() })
    };
    let drive = move |post: &Post| {
        let clock = post.confined()?;
        while client.turn(clock.now()) {}
        // The server may still wait for an ACK of ours.
        server_orders.stop();
        while served.strong_count() > 0 {
            client.turn(clock.now());
        }
        Ok(Found { client: Some(client_found(client, clock.now())), ..Found::default() })
    };
    Ok(vec![
        Member { core: cores[0], job: Box::new(drive) },
        Member { core: cores[1], job: Box::new(serve) },
    ])
}

/// As many clients as servers, each a thread with a queue of its own. Frames are spread over a
/// side's queues as a NIC would, so clients choose source ports whose replies come home, and what
/// strays all the same (ARP) goes round the side's ring. Threads may outnumber cores.
pub(super) fn many_threads(
    bench: &Bench,
    threads: usize,
    cores: &[u32],
) -> Result<Vec<Member>, String> {
    let workers = threads / 2;
    let dealt = (0..MESH_BUCKETS).map(|bucket| bucket % workers as u16).collect();
    let rss = Rss::new(&MESH_KEY, dealt).map(Arc::new).ok_or("a table of no size: a bug")?;
    let bench = Bench { rss: Some(Arc::clone(&rss)), ..bench.clone() };
    let frames = mesh::frames_for(workers, MESH_BURSTS).max(POOL_FRAMES);
    let pools = Pool::several(threads, frames, bench.mtu()).map_err(|error| error.to_string())?;
    let umem = pools.first().ok_or("no threads: a bug")?.umem().clone();
    // What has no ports to hash comes to the first queue.
    let queue = move |frame: &[u8]| usize::from(rss.worker_of_frame(frame).unwrap_or(0));
    let ends = mesh::mesh(&umem, [workers; 2], MESH_BURSTS, [queue.clone(), queue]);
    let mut queues = ends.into_iter().flatten().zip(pools).zip(cores.iter().cycle());
    let server_orders = Arc::new(Orders::default());
    let stage = Stage::new(threads > cores.len());
    let mut members = Vec::new();
    for (index, place) in worker::ring(workers as u16).into_iter().enumerate() {
        let ((device, pool), &core) = queues.next().ok_or("a queue for each client: a bug")?;
        let share = Share { index: index as u16, count: workers as u16 };
        let mut client = bench.client(Port { device, pool, mac: CLIENT_MAC }, share)?;
        client.join(place);
        let job = stage.drive(client, &server_orders);
        members.push(Member { core, job });
    }
    for (index, place) in worker::ring(workers as u16).into_iter().enumerate() {
        let ((device, pool), &core) = queues.next().ok_or("a queue for each server: a bug")?;
        let share = Share { index: index as u16, count: workers as u16 };
        let port = Port { device, pool, mac: SERVER_MAC };
        let mut server = bench.server(port, share, &server_orders)?;
        server.join(place);
        members.push(Member { core, job: stage.serve(server) });
    }
    Ok(members)
}

/// How the threads of both sides end together: each turns for the others' sake until they are over.
struct Stage {
    /// More threads than cores: who is idle makes way.
    crowded: bool,
    /// Held by each client, and by each server, until its own part is over.
    driving: Arc<()>,
    serving: Arc<()>,
}

impl Stage {
    fn new(crowded: bool) -> Stage {
        Stage { crowded, driving: Arc::new(()), serving: Arc::new(()) }
    }

    fn drive<D>(&self, mut client: Runner<D, Client>, server_orders: &Arc<Orders>) -> Job
    where
        D: Device + Send + 'static,
    {
        let (crowded, server_orders) = (self.crowded, Arc::clone(server_orders));
        let (driving, served) = (Arc::clone(&self.driving), Arc::downgrade(&self.serving));
        Box::new(move |post| {
            let clock = post.confined()?;
            turns(&mut client, clock, crowded, |goes_on| goes_on);
            let over_at = clock.now();
            let driven = Arc::downgrade(&driving);
            drop(driving);
            turns(&mut client, clock, crowded, |_| {
                if driven.strong_count() == 0 {
                    server_orders.stop();
                }
                served.strong_count() > 0
            });
            Ok(Found { client: Some(client_found(client, over_at)), ..Found::default() })
        })
    }

    fn serve<D>(&self, mut server: Runner<D, Server>) -> Job
    where
        D: Device + Send + 'static,
    {
        let (crowded, serving) = (self.crowded, Arc::clone(&self.serving));
        Box::new(move |post| {
            let clock = post.confined()?;
            turns(&mut server, clock, crowded, |goes_on| goes_on);
            let over_at = clock.now();
            let served = Arc::downgrade(&serving);
            drop(serving);
            turns(&mut server, clock, crowded, |_| served.strong_count() > 0);
            Ok(Found { server: Some(server_found(server, over_at)), ..Found::default() })
        })
    }
}

/// Turns as long as `on` says, told whether the runner's own part goes on.
fn turns<D: Device, A: App>(
    runner: &mut Runner<D, A>,
    clock: &Clock,
    crowded: bool,
    mut on: impl FnMut(bool) -> bool,
) {
    while on(runner.turn(clock.now())) {
        if crowded && runner.is_idle() {
            std::thread::yield_now();
        }
    }
}

/// Both ends of the floor, on one core or two as those of the bench.
pub(super) fn floor(under: &Under, cores: &[u32]) -> Result<Vec<Member>, String> {
    let under = under.clone();
    match *cores {
        [core] => {
            let job = move |post: &Post| {
                let pools = pools(under.mtu())?;
                let (client, server) = ports(link::pair(pools.0.umem(), RING_FRAMES), pools);
                let (client, server) = under.ends(client, server, Share::WHOLE);
                Ok(floor::alternate(client, server, post.confined()?))
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

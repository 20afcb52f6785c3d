//! After its start, the stack allocates and frees nothing: a million turns of client and server,
//! opening, using and closing connections all the time, under an allocator that tells.
//!
//! The allocator is armed for this thread only, after a warm-up. It counts rather than panics,
//! because an allocator may not unwind, and prints where the first allocation came from.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::device::Device;
use shakedown::device::impair::{Impair, Options};
use shakedown::device::link::{self, Link};
use shakedown::engine::Engine;
use shakedown::frame::Pool;
use shakedown::sim::Setup;
use shakedown::tcp::Keepalive;
use shakedown::time::{Instant, Span};
use shakedown::worker::Worker;
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Telltale = Telltale;

/// The system's allocator, which tells of what is done while the thread is armed.
struct Telltale;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static TOLD: Cell<u64> = const { Cell::new(0) };
}

impl Telltale {
    fn tell(&self, what: &str, bytes: usize) {
        if !ARMED.get() {
            return;
        }
        TOLD.set(TOLD.get() + 1);
        if TOLD.get() == 1 {
            ARMED.set(false);
            eprintln!("{what} {bytes} bytes:\n{}", Backtrace::force_capture());
            ARMED.set(true);
        }
    }
}

// SAFETY: every call goes on to `System` unchanged; telling allocates only while disarmed.
unsafe impl GlobalAlloc for Telltale {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.tell("allocated", layout.size());
        // SAFETY: the caller's promises are `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.tell("freed", layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const WARM_UP_TURNS: u64 = 20_000;
const DRAIN_TURNS: u64 = 20_000;

/// Runs client and server for `turns` turns of `turn` each after the warm-up; answers the
/// connections that were established in them, and how often the allocator told of something.
fn run<D: Device>(
    (turns, turn): (u64, Span),
    workload: Workload,
    close: Close,
    service: Service,
    wrap: impl Fn(Link, &Pool) -> D,
) -> (u64, u64) {
    let mut setup = Setup::new(1, 1);
    for config in [&mut setup.a, &mut setup.b] {
        config.connections_max = 1000;
        // Short, so that TIME-WAIT, its end and four-tuples used again are a part of it.
        config.tcp.msl = Span::from_millis(2);
    }
    // For connections whose RST was lost.
    let second = Span::from_secs(1);
    setup.b.listeners[0].keepalive = Some(Keepalive { idle: second, interval: second, probes: 3 });
    let load = Load { rate_per_second: None, connections: 64, held: 0, count: None, close };
    let (pool_a, pool_b) = Pool::pair(2048).unwrap();
    let (link_a, link_b) = link::pair(pool_a.umem(), 256);
    let (dev_a, dev_b) = (wrap(link_a, &pool_a), wrap(link_b, &pool_b));
    let server = Server::new(vec![service], setup.b.connections_max);
    let client = Client::new(workload, load, 1);
    let mut a = Worker::new(dev_a, Engine::new(setup.a, client, Instant::ZERO), pool_a);
    let mut b = Worker::new(dev_b, Engine::new(setup.b, server, Instant::ZERO), pool_b);
    let mut now = Instant::ZERO;
    let mut run = |a: &mut Worker<D, Client>, b: &mut Worker<D, Server>, turns, turn: Span| {
        for _ in 0..turns {
            a.turn(now);
            b.turn(now);
            now += turn;
        }
    };
    run(&mut a, &mut b, WARM_UP_TURNS, turn);
    let before = a.engine.counters.established;
    TOLD.set(0);
    ARMED.set(true);
    run(&mut a, &mut b, turns, turn);
    // Stopping and draining is a part of the loop, too. The clock goes faster: retransmissions may
    // be due.
    a.engine.stop();
    run(&mut a, &mut b, DRAIN_TURNS, Span::from_millis(2));
    ARMED.set(false);
    assert_eq!((a.engine.live(), b.engine.live()), (0, 0), "stopped, and nothing left open");
    (a.engine.counters.established - before, TOLD.get())
}

fn bad(link: Link, pool: &Pool) -> Impair<Link> {
    let options =
        Options { loss: 0.02, duplicate: 0.02, reorder: 0.05, corrupt: 0.01, ..Options::default() };
    Impair::new(link, pool.umem(), Some(options), None, 1)
}

#[test]
fn a_million_turns_allocate_nothing() {
    let http = || Workload::Http {
        host: "server".into(),
        path: "/".into(),
        requests: 2,
        response_bytes: Some(3000),
    };
    let echo = || Workload::Rr { request_bytes: 2000, response_bytes: 2000, count: 2 };
    let site = Service::Http { response_size: 3000 };
    let (short, long) = ((200_000, Span::from_micros(5)), (100_000, Span::from_millis(1)));
    let good = |link: Link, _: &Pool| link;
    let runs = [
        run(short, Workload::Handshake, Close::Fin, Service::Discard, good),
        run(short, Workload::Handshake, Close::Rst, Service::Accept, good),
        run(short, http(), Close::Fin, site, good),
        run(short, echo(), Close::Fin, Service::Echo, good),
        run(long, http(), Close::Fin, site, bad),
        run(long, echo(), Close::Rst, Service::Echo, bad),
    ];
    for (index, (established, told)) in runs.into_iter().enumerate() {
        assert_eq!(told, 0, "run {index}");
        assert!(established > 1000, "run {index} established {established}");
    }
}

#[test]
fn the_allocator_tells() {
    TOLD.set(0);
    ARMED.set(true);
    let boxed = std::hint::black_box(Box::new(7));
    ARMED.set(false);
    assert_eq!((TOLD.get(), *boxed), (1, 7));
}

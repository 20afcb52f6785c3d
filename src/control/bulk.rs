//! Streams over the kernel's own sockets in a veth pair: as the server of a bench whose client is
//! ours, and at both ends as its rival, once with the kernel's offloads and once with a segment in
//! each frame, as on any wire and in our own stack.

use super::Failure;
use super::assemble::{self, Share};
use super::clock::Clock;
use super::kernel::{self, Host};
use super::pin;
use super::plan::BenchPlan;
use super::report::Side;
use super::settings::PeerName;
use super::signals::Signals;
use super::veth::{INTERFACES, Pair};
use crate::app::client::Client;
use crate::app::results::Served;
use crate::app::server::Server;
use crate::sys::net::Offloads;
use crate::sys::netns::Namespace;
use crate::time::Span;
use serde_json::{Value, json};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// The rival's first port: not the bench's own, where connections may be in TIME-WAIT.
const PORT: u16 = 5001;

/// How long the rival may take over a number of bytes.
const DURATION_MAX: Span = Span::from_secs(60);

/// What a server on the kernel's sockets did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub served: Served,
    pub tx_bytes: u64,
    pub rx_bytes: u64,
}

impl Carried {
    /// Whether a kernel that served and our client agree: every connection came to its end, and
    /// every byte of it was right.
    ///
    /// # Errors
    /// What was wrong, with its numbers.
    pub fn reconcile(&self, client: &Side) -> Result<String, String> {
        let (c, opened) = (&client.found.counters, client.opened());
        let mut wrong = Vec::new();
        let mut same = |what: &str, left: u64, right: u64| {
            if left != right {
                wrong.push(format!("{what}: {left} against {right}"));
            }
        };
        same("opened and established", opened, c.established);
        same("opened and closed", opened, client.closed());
        same("opened by us and accepted by the kernel", opened, self.served.established);
        same("bytes wrong as we received them", client.verify_errors, 0);
        same("bytes wrong as the kernel received them", self.served.stream.verify_errors, 0);
        if c.end_aborted == 0 {
            same("payload bytes up", c.tx_payload_bytes, self.rx_bytes);
            same("payload bytes down", self.tx_bytes, c.rx_payload_bytes);
        }
        for (what, count) in client.client.iter().flat_map(|client| client.errors) {
            same(&format!("transfers wrong in {what}"), count, 0);
        }
        same("frames missing", client.found.frames_missing.unsigned_abs(), 0);
        if opened == 0 {
            wrong.push("no connection was opened".to_string());
        }
        match wrong.is_empty() {
            true => Ok(format!(
                "ok: {opened} connections to the kernel opened and closed, {} bytes up and {} down, all right",
                self.rx_bytes, self.tx_bytes
            )),
            false => Err(format!("we and the kernel disagree: {}", wrong.join("; "))),
        }
    }

    /// For the report.
    pub fn json(&self) -> Value {
        json!({
            "connections_established_total": self.served.established,
            "tx_payload_bytes_total": self.tx_bytes,
            "rx_payload_bytes_total": self.rx_bytes,
            "verify_errors_total": self.served.stream.verify_errors,
        })
    }
}

/// What the kernel did with both ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// The kernel left the cutting of segments to the interface.
    segmentation: bool,
    ran: Span,
    up_bytes: u64,
    down_bytes: u64,
    wrong_bytes: u64,
}

impl Outcome {
    /// Both directions together.
    fn bits_per_second(&self) -> f64 {
        (self.up_bytes + self.down_bytes) as f64 * 8.0 / self.ran.as_secs_f64().max(1e-9)
    }

    /// For the report, next to our client's.
    pub fn json(&self, client: &Side) -> Value {
        json!({
            "rival": "kernel",
            "segmentation_offload": self.segmentation,
            "duration_seconds": self.ran.as_secs_f64(),
            "up_bytes_total": self.up_bytes,
            "down_bytes_total": self.down_bytes,
            "goodput_bits_per_second": self.bits_per_second(),
            "verify_errors_total": self.wrong_bytes,
            "ratio": ours(client) / self.bits_per_second().max(1e-9),
        })
    }

    /// For people.
    pub fn note(&self, client: &Side) -> String {
        let how = match self.segmentation {
            true => "the kernel at both ends, large frames cut by nobody",
            false => "the kernel at both ends, a segment a frame",
        };
        let kernel = self.bits_per_second();
        format!(
            "{how}: {}bit/s; we did {:.2} times as much",
            super::live::short(kernel),
            ours(client) / kernel.max(1e-9)
        )
    }
}

fn ours(client: &Side) -> f64 {
    client.tx_bits_per_second() + client.rx_bits_per_second()
}

/// Makes the kernel the server of the bench: its end has the server's address, and fills in
/// checksums, because no hardware will.
///
/// # Errors
/// What this machine can't do.
pub(super) fn prepare(pair: &Pair, plan: &BenchPlan) -> Result<(), Failure> {
    pair.address(1, &plan.server_subnet())?;
    let offloads = Offloads { checksums: false, segmentation: true };
    pair.inside(1, || offloads.set(INTERFACES[1])).map_err(environment)
}

/// Runs the bench's streams between the kernel's sockets at both ends, twice: with the offloads
/// that the kernel has by itself, and without. They take the addresses of the bench, which is over;
/// each client and its server are on the cores that ours were on.
///
/// # Errors
/// The kernel's.
pub(super) fn measure(
    pair: &Pair,
    plan: &BenchPlan,
    cores: &[u32],
    clock: &Clock,
    signals: &Signals,
) -> Result<Vec<Outcome>, Failure> {
    pair.address(0, &plan.stack.subnets[0])?;
    pair.address(1, &plan.server_subnet())?;
    let places: Vec<_> = match (plan.peer, cores) {
        (PeerName::Kernel, [first, .., last]) => vec![(*first, *last)],
        (PeerName::Kernel | PeerName::Ours, cores) => {
            cores.iter().map(|&core| (core, core)).collect()
        }
    };
    let mut outcomes = Vec::new();
    for segmentation in [true, false] {
        for (end, interface) in INTERFACES.into_iter().enumerate() {
            let offloads = Offloads { checksums: true, segmentation };
            pair.inside(end, || offloads.set(interface)).map_err(environment)?;
        }
        let outcome = both_ends(pair, plan, &places, clock, signals).map_err(environment)?;
        outcomes.push(Outcome { segmentation, ..outcome });
    }
    Ok(outcomes)
}

fn environment(error: io::Error) -> Failure {
    Failure::Environment(error.to_string())
}

fn both_ends(
    pair: &Pair,
    plan: &BenchPlan,
    places: &[(u32, u32)],
    clock: &Clock,
    signals: &Signals,
) -> io::Result<Outcome> {
    let [here, there] = pair.namespaces();
    // A rival at its end by bytes has as long as it takes, within reason.
    let duration = plan.drive.duration.unwrap_or(DURATION_MAX);
    let (over, drain) = (AtomicBool::new(false), plan.stack.drain);
    let is_over = || over.load(Relaxed);
    thread::scope(|scope| {
        // Whatever goes wrong in here, the servers end.
        let over = Over(&over);
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for (index, &(client_core, server_core)) in places.iter().enumerate() {
            let remote = SocketAddr::new(plan.server_subnet().first, PORT + index as u16);
            let listener = pair.inside(1, || TcpListener::bind(remote))?;
            servers.push(scope.spawn(move || -> io::Result<Carried> {
                settle(there, server_core)?;
                serve(plan, listener, clock, is_over)
            }));
            let share = Share { index: index as u16, count: places.len() as u16 };
            clients.push(scope.spawn(move || -> io::Result<(Host<Client>, Span)> {
                settle(here, client_core)?;
                let app = assemble::client(&plan.drive, &plan.stack, share);
                let mut host = Host::client(app, Some(remote), *clock)?;
                let started = clock.now();
                let done = |host: &Host<Client>| {
                    host.app.done() || clock.now().since(started) >= duration || signals.came()
                };
                let ran = kernel::run(&mut host, drain, done)?;
                Ok((host, ran))
            }));
        }
        let mut outcome = Outcome::default();
        for client in clients {
            let (host, ran) = joined(client.join())?;
            outcome.ran = outcome.ran.max(ran);
            outcome.up_bytes += host.tx_bytes;
            outcome.down_bytes += host.rx_bytes;
            outcome.wrong_bytes += host.app.results().verify_errors;
        }
        drop(over);
        for server in servers {
            outcome.wrong_bytes += joined(server.join())?.served.stream.verify_errors;
        }
        Ok(outcome)
    })
}

/// Says that it is over when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Serves the bench's service behind `listener` in the calling thread until it is over.
///
/// # Errors
/// The kernel's.
pub(super) fn serve(
    plan: &BenchPlan,
    listener: TcpListener,
    clock: &Clock,
    is_over: impl Fn() -> bool,
) -> io::Result<Carried> {
    let (_, app) = assemble::server(&[plan.service], plan.stack.connections_max);
    let mut host: Host<Server> = Host::server(app, listener, *clock)?;
    kernel::run(&mut host, plan.stack.drain, |_| is_over())?;
    let Host { app, tx_bytes, rx_bytes, .. } = host;
    Ok(Carried { served: *app.served(), tx_bytes, rx_bytes })
}

/// Moves the calling thread into `namespace` and onto `core`.
///
/// # Errors
/// Not permitted, or there is no such core.
pub(super) fn settle(namespace: &Namespace, core: u32) -> io::Result<()> {
    namespace.enter()?;
    pin::to(core).map_err(io::Error::other)
}

fn joined<T>(result: thread::Result<io::Result<T>>) -> io::Result<T> {
    result.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

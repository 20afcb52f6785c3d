//! What `scripts/flood.sh` measures with: SYNs from addresses that nobody has, honest clients on
//! the kernel's sockets beside them, and a server on the kernel's sockets to compare with. For a
//! network namespace made for it; every run is bounded in time.

mod honest;
mod serve;
mod syns;

use clap::Parser;
use serde_json::json;
use shakedown::wire::ethernet::Mac;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(about = "SYN floods with honest clients beside them, in a lab")]
enum Task {
    /// Load a server honestly, and flood it meanwhile if a rate is given; prints JSON.
    Load(Load),
    /// Serve HTTP/1.0 pages on the kernel's sockets until killed, an hour at the most.
    Serve { listen: SocketAddr },
}

#[derive(Parser)]
struct Load {
    server: SocketAddrV4,
    /// Honest connections a second, whatever becomes of those before.
    #[arg(long, default_value_t = 500)]
    honest: u32,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The interface that the flood leaves by.
    #[arg(short)]
    interface: String,
    /// MAC address of the server.
    #[arg(long)]
    mac: Mac,
    /// First of the 2^16 addresses that SYNs claim to come from.
    #[arg(long)]
    spoof: Ipv4Addr,
    /// SYNs a second; 0 for none, `max` for as many as it can.
    #[arg(long, value_parser = rate)]
    syns: Rate,
}

/// SYNs a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    Paced(u64),
    Max,
}

fn rate(text: &str) -> Result<Rate, String> {
    match text {
        "max" => Ok(Rate::Max),
        number => number.parse().map(Rate::Paced).map_err(|_| format!("{number} is no rate")),
    }
}

/// The longest run; a server's life.
const LIFE_MAX: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Load(load) => measure(&load),
        Task::Serve { listen } => serve::until(listen, LIFE_MAX),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flood: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(load: &Load) -> std::io::Result<()> {
    let span = Duration::from_secs(load.seconds).min(LIFE_MAX);
    let flood = syns::Flood {
        interface: load.interface.clone(),
        mac: load.mac,
        server: load.server,
        spoof: load.spoof,
        rate: load.syns,
    };
    let flooder = std::thread::spawn(move || flood.run(span));
    let honest = honest::drive(load.server, load.honest, span)?;
    let sent = flooder.join().unwrap_or_else(|_| Err(std::io::Error::other("it panicked")))?;
    let times = honest.times.summary();
    let milli = |span: shakedown::time::Span| span.as_secs_f64() * 1e3;
    let report = json!({
        "syns_sent": sent.sent,
        "syns_per_second": sent.sent as f64 / sent.took.as_secs_f64(),
        "honest_tried": honest.tried,
        "honest_served": honest.served,
        "honest_refused": honest.refused,
        "honest_timed_out": honest.timed_out,
        "p50_ms": milli(times.p50),
        "p99_ms": milli(times.p99),
        "max_ms": milli(times.max),
    });
    println!("{report}");
    Ok(())
}

//! What one stream gets out of a link, by loss and round-trip time: a table that is kept under
//! `golden/`, beside what theory gives. A change of the data path that costs throughput anywhere
//! shows here; `SHAKEDOWN_BLESS=1 cargo test --test throughput` writes the table anew.

use shakedown::app::client::{Client, Close, Load, Workload};
use shakedown::app::server::{Server, Service};
use shakedown::device::impair::Options;
use shakedown::sim::{Setup, Sim};
use shakedown::tcp::Congestion;
use shakedown::time::{Instant, Span};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// The bottleneck, in bits of Ethernet frame a second, and the frames that wait before it.
const RATE_BPS: u64 = 100_000_000;
const QUEUE_FRAMES: u32 = 500;

/// Bytes of the stream: some thousands of segments, so that 0.1 % is some losses.
const STREAM_BYTES: u64 = 8_000_000;

/// Payload of a full segment with timestamps.
const SEGMENT_BYTES: f64 = 1448.0;

const LOSSES: [f64; 5] = [0.0, 0.0001, 0.001, 0.01, 0.05];
const ROUND_TRIPS_MS: [u64; 4] = [1, 10, 50, 200];

const END: Instant = Instant::from_nanos(24 * 3600 * 1_000_000_000);

#[test]
fn a_stream_gets_what_it_got_before_at_each_loss_and_round_trip_time() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/throughput.txt");
    let table = table();
    if std::env::var_os("SHAKEDOWN_BLESS").is_some() {
        fs::write(&golden, &table).unwrap();
    }
    let kept = fs::read_to_string(&golden).unwrap_or_default();
    assert_eq!(table, kept, "SHAKEDOWN_BLESS=1 writes it anew; say why in the commit");
}

fn table() -> String {
    let mut out = String::from(HEAD);
    for congestion in [Congestion::NewReno, Congestion::Cubic] {
        for loss in LOSSES {
            for round_trip_ms in ROUND_TRIPS_MS {
                row(&mut out, congestion, loss, round_trip_ms);
            }
        }
    }
    out
}

const HEAD: &str = "\
# One stream of 8 MB, 100 Mbit/s, 500 frames of queue, loss of data alone.
# theory: NewReno MSS/RTT * sqrt(3/(2 p)) (Mathis 1997; the window counts bytes, so delayed ACKs do
# not slow it); CUBIC the larger of that and MSS/RTT * 1.054 (RTT/p)^(3/4) (RFC 9438 s5.1); at most
# the 95.6 Mbit/s of text that the link carries.
# Far from it: 0% and 0.01%, because the stream is over before a steady state begins: slow start
# takes eight round trips to fill the longest path, and then overruns the queue once. 0.1%, because
# the few losses of so short a stream come late, after the window has grown past its steady state.
# congestion   loss    rtt_ms   seconds   mbit_s   theory   ratio   resent
";

fn row(out: &mut String, congestion: Congestion, loss: f64, round_trip_ms: u64) {
    let (seconds, resent) = transfer(congestion, loss, round_trip_ms);
    let got = STREAM_BYTES as f64 * 8.0 / seconds / 1e6;
    let theory = theory(congestion, loss, round_trip_ms as f64 / 1e3);
    let name = format!("{congestion:?}").to_lowercase();
    writeln!(
        out,
        "{name:12} {:>6} {round_trip_ms:>8} {seconds:>10.3} {got:>8.2} {theory:>8.2} {:>7.2} {resent:>8}",
        format!("{}%", loss * 100.0),
        got / theory,
    )
    .expect("write to a string");
}

/// Steady-state throughput in Mbit/s of text.
fn theory(congestion: Congestion, loss: f64, rtt_s: f64) -> f64 {
    let link = RATE_BPS as f64 * SEGMENT_BYTES / (SEGMENT_BYTES + 66.0);
    let segments_per_rtt = match (loss > 0.0, congestion) {
        (false, _) => f64::INFINITY,
        (true, Congestion::Cubic) => reno_window(loss).max(1.054 * (rtt_s / loss).powf(0.75)),
        (true, Congestion::NewReno | Congestion::Fixed) => reno_window(loss),
    };
    (segments_per_rtt * SEGMENT_BYTES * 8.0 / rtt_s).min(link) / 1e6
}

fn reno_window(loss: f64) -> f64 {
    (3.0 / (2.0 * loss)).sqrt()
}

/// Virtual seconds until the receiver has the whole stream, and the segments that were sent again.
fn transfer(congestion: Congestion, loss: f64, round_trip_ms: u64) -> (f64, u64) {
    let mut setup = Setup::new(1, 1);
    for config in [&mut setup.a, &mut setup.b] {
        config.connections_max = 2;
        config.tcp.window = 8 << 20;
        config.tcp.congestion = congestion;
        config.tcp.data_retries = 60;
    }
    // All of the delay on the way back, so that the queue there is of the bottleneck alone.
    let (rate_bps, queue_frames) = (Some(RATE_BPS), QUEUE_FRAMES);
    let there = Options { loss, rate_bps, queue_frames, ..Options::default() };
    let delay = Span::from_millis(round_trip_ms);
    let back = Options { delay, queue_frames: 8000, ..Options::default() };
    (setup.a_to_b, setup.b_to_a) = (Some(there), Some(back));
    setup.pool_frames = 16_384;
    setup.ring_frames = 1024;
    let workload = Workload::Rr { request_bytes: STREAM_BYTES, response_bytes: 0, count: 1 };
    let load =
        Load { rate_per_second: None, connections: 1, held: 0, count: Some(1), close: Close::Fin };
    let server = Server::new(vec![Service::Discard], 2);
    let mut sim = Sim::new(setup, Client::new(workload, load, 1), server);
    let whole = |sim: &Sim<Client, Server>| sim.b.engine.counters.rx_payload_bytes == STREAM_BYTES;
    assert!(sim.run(END, whole), "{congestion:?} {loss} {round_trip_ms}");
    (sim.now().since(Instant::ZERO).as_secs_f64(), sim.a.engine.counters.retrans_segs)
}

//! The binary from outside: what a script sees. Exit codes, texts on standard error, JSON, files.
//! Nothing here needs root.

mod common;

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A file of the test's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        Scratch(folder.join(format!("cli-{}-{name}", std::process::id())))
    }

    fn with(name: &str, text: &str) -> Scratch {
        let scratch = Scratch::new(name);
        std::fs::write(&scratch.0, text).unwrap();
        scratch
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn shakedown(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shakedown")).args(arguments).output().unwrap()
}

/// Runs it, and holds it to an exit code and to what it says on standard error.
fn expect(arguments: &[&str], code: i32, said: &str) {
    let output = shakedown(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(said), "{arguments:?}: {stderr}");
}

/// Runs a bench with JSON on standard output.
fn bench(arguments: &[&str]) -> Value {
    let output = shakedown(&[&["bench", "--json", "-"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    expect(&["server", "--lisen", "80"], 2, "--lisen");
    expect(&["server"], 2, "-i eth1");
    expect(&["server", "-i", "lo", "--addr", "10.0.0.2/24"], 2, "--listen 80");
    expect(&["client", "-i", "lo", "--addr", "10.0.0.2/24"], 2, "--target");
    expect(&["client", "-d", "10"], 2, "write 10s");
    expect(&["client", "--addr", "2001:db8::1"], 2, "write 2001:db8::1/64");
    expect(&["client", "--addr", "fe80::1%eth0/64"], 2, "leave out %eth0");
    expect(&["client", "--addr", "10.0.0.2/24@4095"], 2, "not a VLAN from 1 to 4094");
    expect(&["client", "--target", "fd00::2:80"], 2, "[fd00::2]:80");
    let from = ["client", "-i", "lo", "--addr", "10.0.0.2/24"];
    expect(&[&from[..], &["--target", "[fd00::2]:80"]].concat(), 2, "fd00::2 is IPv6, and no");
    let two = ["--addr", "fd00::2/64", "--target", "[fd00::3]:80", "--mtu", "1000"];
    expect(&[&from[..], &two].concat(), 2, "at least 1280");
    expect(&["client", "--sport", "2000-1000"], 2, "port range `2000-1000` is empty");
    expect(&["bench", "--max-connections", "501m"], 2, "`501m` is too large: at most 500m");
    expect(&["bench", "--threads", "3"], 2, "--threads 1 or an even number");
    expect(&["bench", "--threads", "4", "--floor"], 2, "--threads 1 or 2");
    expect(&["bench", "--compare", "kernel"], 2, "--link veth");
    let beside = ["bench", "--link", "veth", "--compare", "kernel,io-uring"];
    expect(&[&beside[..], &["--workload", "stream"]].concat(), 2, "io-uring knows no streams");
    expect(&[&beside[..], &["--close", "rst"]].concat(), 2, "without --close rst");
    expect(&["bench", "--floor", "-n", "10"], 2, "without --count");
    expect(&["frobnicate"], 2, "frobnicate");
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["server", "--help"], &["--version"]] {
        let output = shakedown(arguments);
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_bad_file_is_exit_code_104_with_line_and_column() {
    let value = Scratch::with("value.toml", "interface = 'lo'\nmtu = 90000\n");
    expect(&["server", "--config", value.path()], 104, "value.toml:2:7: mtu:");
    let syntax = Scratch::with("syntax.toml", "interface = 'lo'\naddr = [\n");
    expect(&["server", "--config", syntax.path()], 104, "syntax.toml:");
    let unknown = Scratch::with("unknown.toml", "\n\ninterfase = 'lo'\n");
    expect(&["server", "--config", unknown.path()], 104, "unknown.toml:3:13: `interfase`");
    let lacking = Scratch::with("lacking.toml", "interface = 'lo'\n");
    expect(&["server", "--config", lacking.path()], 104, "--addr");
    expect(&["server", "--config", "nowhere.toml"], 104, "nowhere.toml: can't be read");
}

#[test]
fn an_interface_that_is_not_there_is_exit_code_3_and_the_others_are_named() {
    let server = ["server", "-i", "nothere0", "--addr", "10.0.0.2/24", "--listen", "80"];
    expect(&server, 3, "no interface \"nothere0\"; there are: ");
    expect(&["doctor", "-i", "nothere0"], 3, "to mend first");
    let core = ["bench", "--cpus", "1000", "-n", "1"];
    let output = shakedown(&core);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("core 1000"), "{stderr}");
}

#[test]
fn doctor_says_what_it_looked_at() {
    let output = shakedown(&["doctor", "-i", "lo"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for word in ["Linux ", "AF_XDP", "core", "lo: driver"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let bad = text.contains("BAD");
    assert_eq!(output.status.code(), Some(if bad { 3 } else { 0 }), "{text}");
}

/// Every connection is counted once at each station of its life, on both sides.
fn holds_together(report: &Value, connections: u64) {
    assert_eq!(number(report, "/schema_version"), 1);
    assert_eq!(report.pointer("/verdict/state").unwrap(), "ok");
    for side in ["client", "server"] {
        let of = |name: &str| number(report, &format!("/{side}/{name}"));
        assert_eq!(of("connections_opened_total"), connections, "{side}");
        assert_eq!(of("connections_established_total"), connections, "{side}");
        assert_eq!(of("connections_closed_total") + of("connections_failed_total"), connections);
        assert_eq!(of("connections_left_open") + of("connections_left_in_time_wait"), 0);
        assert_eq!(report.pointer(&format!("/{side}/frames_missing")).unwrap(), 0);
        assert_eq!(report.pointer(&format!("/{side}/device/mode")).unwrap(), "memory");
    }
    assert_eq!(
        number(report, "/client/tx_packets_total"),
        number(report, "/server/rx_packets_total")
    );
    assert_eq!(
        number(report, "/server/tx_packets_total"),
        number(report, "/client/rx_packets_total")
    );
    assert_eq!(number(report, "/client/handshake_seconds/count"), connections);
    assert_eq!(number(report, "/client/counters/ActiveOpens"), connections);
    assert_eq!(number(report, "/server/counters/PassiveOpens"), connections);
}

#[test]
fn a_bench_in_memory_opens_and_closes_what_it_was_asked_for() {
    holds_together(&bench(&["-n", "5000"]), 5000);
    holds_together(&bench(&["-n", "1000", "-c", "1"]), 1000);
    holds_together(&bench(&["-n", "3001", "--close", "rst"]), 3001);
}

#[test]
fn a_bench_of_streams_carries_every_byte_and_tells_the_throughput() {
    for (direction, up, down) in [("up", 1, 0), ("down", 0, 1), ("both", 1, 1)] {
        let stream = ["--workload", "stream", "--bytes", "3MiB", "-c", "4"];
        let report = bench(&[&stream[..], &["--direction", direction]].concat());
        holds_together(&report, 4);
        let bytes = 4 * 3 * 1024 * 1024;
        // With each stream go an order of 32 bytes up, and a receipt of 16 down.
        let of = |name: &str| number(&report, name);
        assert_eq!(of("/client/tx_payload_bytes_total"), up * bytes + 4 * 32);
        assert_eq!(of("/client/rx_payload_bytes_total"), down * bytes + 4 * 16);
        assert_eq!(of("/client/transactions_total"), 4);
        assert_eq!(of("/client/verify_errors_total") + of("/server/verify_errors_total"), 0);
        let name = if up > 0 { "tx" } else { "rx" };
        let rate = report.pointer(&format!("/client/{name}_goodput_bits_per_second")).unwrap();
        assert!(rate.as_f64().unwrap() > 1e6, "{rate}");
    }
}

#[test]
fn a_bench_on_two_threads_agrees_with_itself() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        common::say("a_bench_on_two_threads: SKIPPED, one core");
        return;
    }
    holds_together(&bench(&["-n", "5000", "--threads", "2"]), 5000);
}

/// Goal: a side's workers are more than cores, and frames are spread over them by a hash. Every
/// reply comes to the worker that asked; what strays is ARP alone: each request's answer, and each
/// announcement, which is the only thing that nobody has a use for, to the three others.
#[test]
fn a_bench_on_more_threads_than_cores_agrees_with_itself_and_nothing_strays() {
    for workload in ["handshake", "http"] {
        let report = bench(&["-n", "4000", "--threads", "8", "--workload", workload]);
        holds_together(&report, 4000);
        for side in ["client", "server"] {
            let of = |name: &str| number(&report, &format!("/{side}/{name}"));
            let arps = of("counters/arp_requests_total") + of("counters/rx_not_ours_total");
            assert!(arps < 100 && of("workers") == 4 && of("frames_missing") == 0);
            assert_eq!(of("counters/strays_in_total"), arps * 3, "{report:#}");
            assert_eq!(of("counters/strays_dropped_total"), 0);
        }
    }
}

#[test]
fn a_bench_beside_its_floor_tells_the_ratio() {
    let json = Scratch::new("floor.json");
    let floor = ["bench", "--floor", "--link", "memory", "-d", "1s", "-q", "--json", json.path()];
    for workload in ["handshake", "http"] {
        let output = shakedown(&[&floor[..], &["--workload", workload]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("the stateless floor on the same link: "), "{text}");
        let report: Value = serde_json::from_slice(&std::fs::read(&json.0).unwrap()).unwrap();
        let connections = number(&report, "/client/connections_opened_total");
        holds_together(&report, connections);
        let seconds = report.pointer("/client/duration_seconds").unwrap().as_f64().unwrap();
        assert!((1.0..2.0).contains(&seconds), "{seconds} s in nine slices");
        let of = |path: &str| report.pointer(path).and_then(Value::as_f64).expect(path);
        assert_eq!(of("/floor/slices"), 9.0);
        let ratio = of("/floor/ratio");
        assert!(text.contains(&format!("we reach {ratio:.2} of it")), "{text}");
        assert!(ratio > 0.0 && ratio < 1.5, "{ratio}");
        for whose in ["engine", "floor"] {
            let connections = of(&format!("/floor/{whose}/connections_per_second"));
            let packets = of(&format!("/floor/{whose}/packets_per_second"));
            let nanos = of(&format!("/floor/{whose}/packet_nanoseconds"));
            assert!((packets / connections - 6.0).abs() < 0.5, "{packets}, {connections}");
            assert!((packets * nanos / 1e9 - 1.0).abs() < 0.01, "one core: {packets}, {nanos}");
        }
    }
}

#[test]
fn at_a_rate_the_floor_tells_how_long_a_handshake_must_take() {
    let json = Scratch::new("floor-rate.json");
    let args = ["bench", "--floor", "-r", "5k", "-d", "1s", "-q", "--json", json.path()];
    let output = shakedown(&args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("from due to SYN-ACK p50 "), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json.0).unwrap()).unwrap();
    let of = |path: &str| report.pointer(path).and_then(Value::as_f64).expect(path);
    for whose in ["engine", "floor"] {
        let rate = of(&format!("/floor/{whose}/connections_per_second"));
        assert!((4500.0..5500.0).contains(&rate), "{rate} of 5000");
        let quantile = |name| of(&format!("/floor/{whose}/handshake_seconds/{name}"));
        assert!(0.0 < quantile("p50") && quantile("p50") <= quantile("p99"), "{report:#}");
    }
    assert!(of("/floor/handshake_ratio/p50") > 0.0 && of("/floor/handshake_ratio/p99") > 0.0);
}

#[test]
fn requests_are_answered_and_checked() {
    let report = bench(&["-n", "300", "--workload", "http", "--requests", "3"]);
    holds_together(&report, 300);
    assert_eq!(number(&report, "/client/transactions_total"), 900);
    let report = bench(&["-n", "200", "--workload", "rr", "--request-size", "5k"]);
    holds_together(&report, 200);
    assert_eq!(number(&report, "/client/transactions_total"), 200);
    assert_eq!(number(&report, "/client/response_errors_by_reason/bytes"), 0);
}

#[test]
fn connections_survive_a_bad_link_and_the_seed_repeats_it() {
    let arguments = ["-n", "200", "--impair-loss", "5%", "--impair-dup", "2%", "--seed", "7"];
    // What follows a lost SYN waits for 3 s (RFC 6298 s5.7), and may be lost as well.
    let patience = ["--rto-initial", "20ms", "--rto-min", "10ms", "--drain", "60s"];
    let report = bench(&[&arguments[..], &patience].concat());
    assert_eq!(number(&report, "/settings/seed"), 7);
    assert_eq!(number(&report, "/client/connections_established_total"), 200);
    assert!(number(&report, "/client/counters/RetransSegs") > 0);
}

#[test]
fn a_rate_is_kept() {
    let report = bench(&["-r", "2k", "-d", "1s"]);
    let opened = number(&report, "/client/connections_opened_total") as f64;
    let seconds = report.pointer("/client/duration_seconds").unwrap().as_f64().unwrap();
    assert!((opened / seconds - 2000.0).abs() < 100.0, "{opened} in {seconds} s");
    assert_eq!(report.pointer("/client/rate_asked_per_second").unwrap(), 2000.0);
}

#[test]
fn the_recording_is_a_pcap_of_every_frame() {
    let pcap = Scratch::new("run.pcap");
    let report = bench(&["-n", "10", "--pcap", pcap.path()]);
    let bytes = std::fs::read(&pcap.0).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 1), "nanoseconds, Ethernet");
    let (mut at, mut frames, mut syns) = (24, 0, 0);
    while at < bytes.len() {
        let len = word(at + 8) as usize;
        let frame = &bytes[at + 16..at + 16 + len];
        // IPv4, TCP, and SYN alone among the flags.
        if frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] & 0x12 == 0x02 {
            syns += 1;
        }
        (at, frames) = (at + 16 + len, frames + 1);
    }
    let seen =
        number(&report, "/client/rx_packets_total") + number(&report, "/client/tx_packets_total");
    assert_eq!((frames, syns), (seen, 10));
}

#[test]
fn json_goes_to_a_file_next_to_the_summary() {
    let json = Scratch::new("run.json");
    let output = shakedown(&["bench", "-n", "10", "-q", "--json", json.path()]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("ok: all 10 connections"));
    let report: Value = serde_json::from_slice(&std::fs::read(&json.0).unwrap()).unwrap();
    holds_together(&report, 10);
    let nowhere = ["bench", "-n", "1", "--json", "/nonexistent/run.json"];
    expect(&nowhere, 1, "--json /nonexistent/run.json");
}

#[test]
fn a_signal_before_the_end_is_exit_code_105_with_a_report() {
    let json = Scratch::new("signal.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["bench", "-d", "60s", "-q", "--json", json.path()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(105));
    let report: Value = serde_json::from_slice(&std::fs::read(&json.0).unwrap()).unwrap();
    let connections = number(&report, "/client/connections_opened_total");
    assert!(connections > 0);
    holds_together(&report, connections);
}

//! What may happen to a machine during a run: to the interface, the program on it, the disk, the
//! process. A fault ends in a clear word and the right exit code, leaves the interface as it was,
//! and what was measured till then is reported. As root; without, each test says that it is
//! skipped.

mod common;

use common::running::{OURS, Running, curl, kernel_server, lab, lab_with_queues, number};
use common::{End, Lab, run};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A little more than the watching thread takes between two looks.
const LOOK: Duration = Duration::from_millis(1300);

const SERVE: [&str; 4] = ["--listen", "80", "--response-size", "1k"];

fn page() -> String {
    format!("http://{OURS}/")
}

/// True if there is an XDP program on the near end.
fn has_program(lab: &Lab) -> bool {
    lab.ip(End::Near, &["-d", "link", "show", "near0"]).contains("xdp")
}

fn verdict(report: &Value) -> &str {
    report.pointer("/verdict/text").and_then(Value::as_str).unwrap_or_else(|| panic!("{report:#}"))
}

#[test]
fn an_interface_that_goes_down_and_comes_back_is_waited_for() {
    let Some((lab, _turn)) = lab("down") else { return };
    let server = Running::server(&lab, &SERVE);
    curl(&lab, &page());
    lab.ip(End::Near, &["link", "set", "near0", "down"]);
    sleep(LOOK);
    lab.ip(End::Near, &["link", "set", "near0", "up"]);
    sleep(LOOK);
    curl(&lab, &page());
    for _ in 0..10 {
        lab.ip(End::Near, &["link", "set", "near0", "down"]);
        sleep(Duration::from_millis(50));
        lab.ip(End::Near, &["link", "set", "near0", "up"]);
        sleep(Duration::from_millis(50));
    }
    sleep(LOOK);
    curl(&lab, &page());
    server.signal("-INT");
    let (code, report, words) = server.end_with_words();
    assert_eq!(code, Some(0));
    assert!(number(&report, "/interface/outages_total") >= 1, "{report:#}");
    assert!(words.contains("near0 is down") && words.contains("near0 is up again"), "{words}");
    assert_eq!(number(&report, "/server/frames_missing"), 0);
    assert!(!has_program(&lab));
}

/// The report of a client of a kernel's server whose link is down at one end for a while: all of
/// its connections are established all the same.
fn client_across_an_outage(lab: &Lab, end: End) -> Value {
    kernel_server(lab, 80);
    let addr = ["client", "--no-verify-tcp-checksum", "--addr", "10.99.0.100/24"];
    let load = ["--target", "10.99.0.2:80", "-n", "6000", "-r", "3k"];
    let client = Running::start(lab, End::Near, &[addr.as_slice(), &load].concat());
    sleep(Duration::from_millis(600));
    lab.ip(end, &["link", "set", end.interface(), "down"]);
    sleep(LOOK);
    lab.ip(end, &["link", "set", end.interface(), "up"]);
    let (code, report) = client.end();
    assert_eq!(number(&report, "/client/connections_established_total"), 6000, "{report:#}");
    assert_eq!(code, Some(0));
    assert_eq!(number(&report, "/client/frames_missing"), 0);
    report
}

#[test]
fn connections_outlast_a_peer_that_is_away() {
    let Some((lab, _turn)) = lab("away") else { return };
    let report = client_across_an_outage(&lab, End::Far);
    assert!(number(&report, "/client/counters/TCPSynRetrans") > 0, "it was away");
}

#[test]
fn an_interface_that_is_deleted_ends_the_run_with_a_report() {
    for mode in ["auto", "skb", "packet"] {
        let Some((lab, _turn)) = lab(&format!("deleted-{mode}")) else { return };
        let server = Running::server(&lab, &[&SERVE[..], &["--mode", mode]].concat());
        curl(&lab, &page());
        lab.ip(End::Near, &["link", "del", "near0"]);
        let started = Instant::now();
        let (code, report, words) = server.end_with_words();
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        assert_eq!(code, Some(1), "{mode}");
        assert!(words.contains("near0 is gone"), "{words}");
        assert!(verdict(&report).contains("near0 is gone"));
        assert_eq!(number(&report, "/server/connections_established_total"), 1, "{mode}");
    }
}

#[test]
fn an_interface_that_is_changed_is_told_and_served_on() {
    let Some((lab, _turn)) = lab_with_queues("changed", 2) else { return };
    let server = Running::server(&lab, &SERVE);
    curl(&lab, &page());
    lab.ip(End::Near, &["link", "set", "near0", "mtu", "1400"]);
    sleep(LOOK);
    lab.ip(End::Near, &["link", "set", "near0", "mtu", "1500"]);
    sleep(LOOK);
    curl(&lab, &page());
    // The kernel may refuse to take a queue away that a program could redirect to.
    let fewer = lab.command(End::Near, "ethtool").args(["-L", "near0", "rx", "1"]).output();
    let fewer = fewer.unwrap().status.success();
    sleep(LOOK);
    curl(&lab, &page());
    server.signal("-INT");
    let (code, report, words) = server.end_with_words();
    assert_eq!(code, Some(0));
    assert!(words.contains("the MTU of near0 was 1500 and is 1400"), "{words}");
    assert_eq!(words.contains("number of receive queues of near0 was 2 and is 1"), fewer);
    assert_eq!(number(&report, "/interface/changes_total"), 2 + u64::from(fewer));
    assert!(!has_program(&lab));
}

#[test]
fn a_program_that_somebody_takes_off_ends_the_run() {
    let Some((lab, _turn)) = lab("taken") else { return };
    let server = Running::server(&lab, &SERVE);
    // Whoever goes by the old way is told that it is not theirs.
    let mut off = lab.command(End::Near, "ip");
    let refused = off.args(["link", "set", "near0", "xdp", "off"]).output().unwrap();
    assert!(!refused.status.success() && has_program(&lab));
    sleep(LOOK);
    curl(&lab, &page());
    // Whoever means it can.
    let index: u32 =
        lab.inside(End::Near, || shakedown::sys::net::Interface::find("near0").unwrap().index);
    assert_eq!(shakedown::sys::bpf::detach_links(index).unwrap(), 1);
    let (code, report, words) = server.end_with_words();
    assert_eq!(code, Some(1));
    assert!(words.contains("taken our XDP program off near0"), "{words}");
    assert!(verdict(&report).contains("XDP program"));
    assert!(!has_program(&lab));
}

#[test]
fn a_process_that_is_stopped_and_goes_on_serves_on() {
    let Some((lab, _turn)) = lab("stopped") else { return };
    let server = Running::server(&lab, &SERVE);
    curl(&lab, &page());
    server.signal("-STOP");
    let late = std::thread::scope(|scope| {
        let client = scope.spawn(|| curl(&lab, &page()));
        sleep(Duration::from_secs(3));
        server.signal("-CONT");
        client.join()
    });
    assert!(late.is_ok());
    curl(&lab, &page());
    let report = server.stop();
    assert_eq!(number(&report, "/server/connections_established_total"), 3);
}

/// Goal: a fill ring that runs dry loses frames, each counted, and no more than that.
#[test]
fn frames_that_find_no_room_are_counted_and_it_serves_on() {
    const DATAGRAMS: u64 = 20_000;
    let Some((lab, _turn)) = lab("dry") else { return };
    let server = Running::server(&lab, &SERVE);
    curl(&lab, &page());
    let socket = lab.inside(End::Far, || UdpSocket::bind("10.99.0.2:0").unwrap());
    server.signal("-STOP");
    for n in 0..DATAGRAMS {
        // As many as the pair's queues take, and then some.
        let _ = socket.send_to(&n.to_be_bytes(), (OURS, 9));
    }
    server.signal("-CONT");
    curl(&lab, &page());
    let report = server.stop();
    let lost = |name: &str| number(&report, &format!("/server/device/counters/{name}"));
    let lost = lost("rx_dropped") + lost("rx_ring_full");
    let received = number(&report, "/server/counters/rx_packets_total");
    assert!(lost > 0, "{report:#}");
    assert!(received > 500 && received + lost <= DATAGRAMS + 100, "{received} and {lost} lost");
    assert_eq!(number(&report, "/server/connections_established_total"), 2);
}

/// Goal: a transmit ring that stays full holds what is to be sent back, and loses nothing.
#[test]
fn what_finds_the_transmit_ring_full_is_sent_later() {
    let Some((lab, _turn)) = lab("full") else { return };
    // The kernel takes nothing off the ring while its own end is down.
    let report = client_across_an_outage(&lab, End::Near);
    assert!(number(&report, "/client/device/counters/tx_kicks_again_total") > 0, "{report:#}");
}

/// Goal: whatever signal ends it, the interface is clean and the next run starts at once.
#[test]
fn every_signal_leaves_the_interface_clean() {
    let Some((lab, _turn)) = lab("signals") else { return };
    for (signal, code) in
        [("-INT", Some(105)), ("-TERM", Some(105)), ("-HUP", None), ("-KILL", None)]
    {
        if signal == "-HUP" && hangups_are_ignored() {
            eprintln!("SKIPPED: SIGHUP is ignored here, as under nohup, and so by every child");
            continue;
        }
        let server = Running::server(&lab, &[&SERVE[..], &["-d", "1m"]].concat());
        curl(&lab, &page());
        assert!(has_program(&lab));
        server.signal(signal);
        let ended = match code {
            Some(_) => server.end().0,
            None => server.wait(),
        };
        assert_eq!(ended, code, "{signal}");
        assert!(!has_program(&lab), "{signal}");
    }
}

fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 != 0
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let Some((lab, _turn)) = lab("twice") else { return };
    let server = Running::server(&lab, &["--listen", "7=echo", "--drain", "1m"]);
    // Nobody closes it: the first signal waits for the end of this one.
    let held = lab.inside(End::Far, || common::running::connect(OURS, 7));
    sleep(Duration::from_millis(200));
    server.signal("-STOP");
    server.signal("-INT");
    server.signal("-CONT");
    sleep(Duration::from_millis(300));
    server.signal("-INT");
    let started = Instant::now();
    let code = server.wait();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(code == Some(105) || code == Some(0), "{code:?}");
    assert!(!has_program(&lab));
    drop(held);
}

#[test]
fn a_second_run_on_an_interface_is_told_of_the_first() {
    let Some((lab, _turn)) = lab("second") else { return };
    let first = Running::server(&lab, &SERVE);
    let second = lab
        .command(End::Near, env!("CARGO_BIN_EXE_shakedown"))
        .args(["server", "-i", "near0", "--addr", "10.99.0.101/24", "--listen", "81", "-d", "1s"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(3));
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(words.contains("near0") && words.contains("program"), "{words}");
    curl(&lab, &page());
    first.stop();
}

#[test]
fn a_full_disk_is_told_and_the_summary_printed() {
    let output = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["bench", "--link", "memory", "-n", "100", "--json", "/dev/full"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (said, words) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(String::from_utf8_lossy(&said).contains("handshakes/s"));
    assert!(words.contains("--json /dev/full: No space left on device"), "{words}");

    let output = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["bench", "--link", "memory", "-n", "1000", "--pcap", "/dev/full"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("the recording is incomplete: No space left on device"), "{words}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("handshakes/s"));
}

#[test]
fn a_reader_that_goes_away_stops_nothing() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["bench", "--link", "memory", "-d", "2500ms", "-r", "1k"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    // Nothing of a bench's own is left in the machine's list of namespaces either.
    run("ip", &["netns", "list"]);
}

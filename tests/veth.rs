//! The binary on a veth pair, against the kernel's own TCP at the other end, and against itself.
//! As root; without, each test says that it is skipped.

mod common;

use common::running::{
    OURS, OURS6, Running, Turn, connect, curl, has, kernel_server, lab, lab_with_queues, number,
    turn, wrk,
};
use common::{End, Lab, run, say};
use serde_json::Value;
use shakedown::sys::net::Offloads;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A lab whose interfaces have two queues, for a worker each. `None` also with a single core.
fn lab_for_two(name: &str) -> Option<(Lab, Turn)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        say(&format!("{name}: SKIPPED, needs two cores"));
        return None;
    }
    lab_with_queues(name, 2)
}

#[test]
fn curl_and_wrk_are_served() {
    let Some((lab, _turn)) = lab("curl") else { return };
    let server = Running::server(&lab, &["--listen", "80=http", "--response-size", "1k"]);
    if has("curl", "curl_and_wrk_are_served") {
        curl(&lab, &format!("http://{OURS}/"));
    }
    if has("wrk", "curl_and_wrk_are_served") {
        wrk(&lab, &format!("http://{OURS}/"));
    }
    server.stop();
}

/// What comes back from an echo service, which is sent to while it is read from.
fn echoed(address: &str, sent: &[u8]) -> Vec<u8> {
    let mut echo = connect(address, 7);
    let mut writer = echo.try_clone().unwrap();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        echo.read_to_end(&mut back).unwrap();
    });
    back
}

#[test]
fn every_service_keeps_its_word_to_a_kernel_client() {
    let Some((lab, _turn)) = lab("services") else { return };
    let listen = "80=http,1=accept,7=echo,9=discard,19=chargen,20=halfclose";
    let server = Running::server(&lab, &["--listen", listen]);
    lab.inside(End::Far, || {
        let mut all = Vec::new();
        connect(OURS, 1).read_to_end(&mut all).unwrap();
        assert_eq!(all, b"", "accept closes at once");

        let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        all = echoed(OURS, &sent);
        assert!(all == sent, "echo: {} of {} bytes", all.len(), sent.len());

        let mut discard = connect(OURS, 9);
        discard.write_all(&sent).unwrap();
        discard.shutdown(Shutdown::Write).unwrap();
        all.clear();
        discard.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"");

        let mut chargen = connect(OURS, 19);
        let mut lines = [0; 74 * 100];
        chargen.read_exact(&mut lines).unwrap();
        assert!(lines.chunks(74).all(|line| line.ends_with(b"\r\n")));
        drop(chargen);

        let mut halfclose = connect(OURS, 20);
        halfclose.write_all(b"good night").unwrap();
        halfclose.shutdown(Shutdown::Write).unwrap();
        halfclose.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"BYE\n");

        let mut http = connect(OURS, 80);
        http.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        all.clear();
        http.read_to_end(&mut all).unwrap();
        assert!(all.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&all));
    });
    let report = server.stop();
    assert_eq!(number(&report, "/server/connections_established_total"), 6);
}

/// Goal: what we leave to the device the kernel sees to as it does to its own, over IPv6 too and
/// where a frame is of several fragments. A veth that can do no checksums has the kernel put them
/// in, where and over what we said; over one that can the other end believes text that nobody
/// summed, and would not if it had not been told.
#[test]
fn a_kernel_takes_text_whose_checksum_was_left_to_the_device() {
    let Some((lab, _turn)) = lab("sums") else { return };
    let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    for (mtu, checksums) in [("1500", true), ("1500", false), ("9000", true), ("9000", false)] {
        for end in [End::Near, End::Far] {
            lab.ip(end, &["link", "set", end.interface(), "mtu", mtu]);
        }
        let offloads = Offloads { checksums, segmentation: false };
        lab.inside(End::Near, || offloads.set(End::Near.interface())).unwrap();
        let asked = ["--listen", "7=echo", "--mtu", mtu, "--cpus", "0", "--tx-checksum", "device"];
        let server = Running::server(&lab, &asked);
        for address in [OURS, OURS6] {
            let back = lab.inside(End::Far, || echoed(address, &bytes));
            assert!(back == bytes, "{mtu} {address}: {} bytes", back.len());
        }
        let report = server.stop();
        assert_eq!(report.pointer("/server/device/tx_checksum"), Some(&"device".into()), "{mtu}");
        assert_eq!(number(&report, "/server/device/counters/tx_invalid_descs"), 0, "{mtu}");
    }
    let counted = lab.command(End::Far, "cat").arg("/proc/net/snmp").output().unwrap();
    let counted = String::from_utf8(counted.stdout).unwrap();
    let of_tcp = counted.lines().rfind(|line| line.starts_with("Tcp:")).unwrap();
    assert!(of_tcp.ends_with(" 0"), "InCsumErrors is last: {of_tcp}");
}

#[test]
fn ten_thousand_kernel_connections_all_complete() {
    const CONNECTIONS: usize = 10_000;
    let Some((lab, _turn)) = lab("inbound") else { return };
    let server = Running::server(&lab, &["--listen", "9=discard"]);
    lab.inside(End::Far, || {
        for _ in 0..CONNECTIONS {
            let mut stream = connect(OURS, 9);
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
        }
    });
    let report = server.stop();
    for name in ["opened", "established", "closed"] {
        let path = format!("/server/connections_{name}_total");
        assert_eq!(number(&report, &path), CONNECTIONS as u64, "{name}");
    }
}

#[test]
fn ten_thousand_connections_to_a_kernel_server_all_complete() {
    let Some((lab, _turn)) = lab("outbound") else { return };
    kernel_server(&lab, 9);
    let address = format!("{OURS}/24");
    let target = format!("{}:9", End::Far.addr());
    let arguments = ["client", "--no-verify-tcp-checksum", "--addr", &address, "--target", &target];
    let client =
        Running::start(&lab, End::Near, &[&arguments[..], &["-n", "10k", "-c", "64"]].concat());
    let (code, report) = client.end();
    assert_eq!(code, Some(0), "{report:#}");
    for name in ["opened", "established", "closed"] {
        let path = format!("/client/connections_{name}_total");
        assert_eq!(number(&report, &path), 10_000, "{name}");
    }
    assert_eq!(number(&report, "/client/connections_left_open"), 0);
}

/// Holds one side of a run with two workers to `count` whole connections without a reset.
fn assert_whole(report: &Value, side: &str, count: u64) {
    let of = |name: &str| number(report, &format!("/{side}/{name}"));
    for name in ["opened", "established", "closed"] {
        assert_eq!(of(&format!("connections_{name}_total")), count, "{name}: {report:#}");
    }
    assert_eq!(of("workers"), 2);
    for none in ["connections_failed_total", "frames_missing", "counters/OutRsts"] {
        assert_eq!(of(none), 0, "{none}: {report:#}");
    }
    assert_eq!(of("counters/strays_dropped_total"), 0);
}

/// Goal: the kernel spreads what it sends over our queues by its own hash. A connection whose
/// answers come to the other worker is completed all the same.
#[test]
fn two_workers_connect_to_a_kernel_server() {
    let Some((lab, _turn)) = lab_for_two("outbound2") else { return };
    kernel_server(&lab, 9);
    let address = format!("{OURS}/24");
    let target = format!("{}:9", End::Far.addr());
    let arguments = ["client", "--no-verify-tcp-checksum", "--addr", &address, "--target", &target];
    let load = ["--cpus", "0-1", "-n", "5k", "-c", "64"];
    let client = Running::start(&lab, End::Near, &[&arguments[..], &load].concat());
    let (code, report) = client.end();
    assert_eq!(code, Some(0), "{report:#}");
    assert_whole(&report, "client", 5000);
    assert!(number(&report, "/client/counters/strays_in_total") > 1000, "{report:#}");
    assert_eq!(report["rss"], "handed on");
}

/// Goal: what AF_XDP sends on a queue arrives on the peer's queue of that number, so that two
/// workers each, with a queue each, bring every reply home: ARP alone is handed on.
#[test]
fn two_workers_of_ours_meet_two_of_ours_queue_by_queue() {
    let Some((lab, _turn)) = lab_for_two("pairs") else { return };
    let server = Running::server(&lab, &["--listen", "9=discard", "--cpus", "0-1"]);
    let target = format!("{OURS}:9");
    let arguments = ["client", "--addr", "10.99.0.200/24", "--target", &target];
    let load = ["--cpus", "0-1", "-n", "2k", "-c", "64"];
    let client = Running::start(&lab, End::Far, &[&arguments[..], &load].concat());
    let (code, report) = client.end();
    assert_eq!(code, Some(0), "{report:#}");
    let served = server.stop();
    for (report, side) in [(&report, "client"), (&served, "server")] {
        assert_whole(report, side, 2000);
        assert_eq!(report["rss"], "same queue");
        let strays = number(report, &format!("/{side}/counters/strays_in_total"));
        assert!(strays < 20, "{strays}: {report:#}");
    }
}

#[test]
fn two_workers_serve_kernel_clients() {
    let Some((lab, _turn)) = lab_for_two("inbound2") else { return };
    let server = Running::server(&lab, &["--listen", "9=discard", "--cpus", "0-1"]);
    lab.inside(End::Far, || {
        for _ in 0..5000 {
            let mut stream = connect(OURS, 9);
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
        }
    });
    assert_whole(&server.stop(), "server", 5000);
}

#[test]
fn a_server_and_a_client_of_ours_meet_over_the_pair() {
    let Some((lab, _turn)) = lab("both") else { return };
    let server = Running::server(&lab, &["--listen", "80=http"]);
    let target = format!("{OURS}:80");
    let arguments = ["client", "--addr", "10.99.0.200/24", "--target", &target];
    let load = ["--workload", "http", "--requests", "3", "-n", "2k", "-c", "50"];
    let client = Running::start(&lab, End::Far, &[&arguments[..], &load].concat());
    let (code, report) = client.end();
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(number(&report, "/client/transactions_total"), 6000);
    let mode = report.pointer("/client/device/mode").unwrap().as_str().unwrap();
    assert!(["copy", "skb"].contains(&mode), "{mode}");
    let served = server.stop();
    assert_eq!(number(&served, "/server/connections_established_total"), 2000);
}

#[test]
fn the_kernel_goes_on_talking_during_a_run_and_after_a_kill() {
    let Some((lab, _turn)) = lab("kernel") else { return };
    kernel_server(&lab, 2222);
    let kernel_talks = || {
        lab.inside(End::Near, || {
            let mut stream = connect(End::Far.addr(), 2222);
            stream.write_all(b"still here?").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
        });
    };
    let server = Running::server(&lab, &["--listen", "80"]);
    assert!(lab.ip(End::Near, &["link", "show", "near0"]).contains("xdp"));
    kernel_talks();
    let second = ["server", "--addr", "10.99.0.101/24", "--listen", "80", "-i", "near0"];
    let second =
        lab.command(End::Near, env!("CARGO_BIN_EXE_shakedown")).args(second).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains("has an XDP program already"), "{said}");
    server.signal("-KILL");
    drop(server);
    assert!(!lab.ip(End::Near, &["link", "show", "near0"]).contains("xdp"));
    kernel_talks();
}

#[test]
fn an_address_of_the_kernel_is_shared_by_port() {
    let Some((lab, _turn)) = lab("shared") else { return };
    kernel_server(&lab, 9);
    let address = format!("{}/24", End::Near.addr());
    let arguments =
        ["server", "--no-verify-tcp-checksum", "--addr", &address, "--listen", "7=echo"];
    let server = Running::start(&lab, End::Near, &arguments).serving();
    let ours_and_theirs = || {
        let theirs = lab.inside(End::Near, || TcpListener::bind((End::Near.addr(), 22)).unwrap());
        lab.inside(End::Far, || {
            let mut echo = connect(End::Near.addr(), 7);
            echo.write_all(b"ours").unwrap();
            let mut back = [0; 4];
            echo.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"ours");
            drop(connect(End::Near.addr(), 22));
        });
        theirs.accept().unwrap();
    };
    ours_and_theirs();
    server.stop();
    let target = format!("{}:9", End::Far.addr());
    let arguments = ["client", "--no-verify-tcp-checksum", "--addr", &address];
    let load = ["--target", &target, "-n", "200", "-c", "8"];
    let client = Running::start(&lab, End::Near, &[&arguments[..], &load].concat());
    let (code, report) = client.end();
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(number(&report, "/client/connections_closed_total"), 200);
}

#[test]
fn a_held_connection_ends_with_the_run() {
    let Some((lab, _turn)) = lab("hold") else { return };
    kernel_server(&lab, 9);
    let address = format!("{OURS}/24");
    let target = format!("{}:9", End::Far.addr());
    let arguments = ["client", "--no-verify-tcp-checksum", "--addr", &address, "--target", &target];
    let load = ["--workload", "hold", "-c", "300"];
    let client = Running::start(&lab, End::Near, &[&arguments[..], &load].concat());
    std::thread::sleep(Duration::from_secs(2));
    client.signal("-TERM");
    let (code, report) = client.end();
    assert_eq!(code, Some(0), "a hold without an end has a signal as its end");
    assert_eq!(number(&report, "/client/connections_established_total"), 300);
    assert_eq!(number(&report, "/client/connections_closed_total"), 300);
}

#[test]
fn a_bench_over_its_own_pair_agrees_and_leaves_nothing() {
    let _turn = turn();
    if !common::is_root("a_bench_over_its_own_pair") {
        return;
    }
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("veth-bench-{}.json", std::process::id()));
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let rivals = match disabled.as_deref().map(str::trim) {
        Ok("0") => "kernel,io-uring",
        disabled => {
            eprintln!("SKIPPED: the rival by io_uring: kernel.io_uring_disabled is {disabled:?}");
            "kernel,kernel"
        }
    };
    let bench = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["bench", "--link", "veth", "-d", "2s", "--floor"])
        .args(["--compare", rivals, "--json"])
        .arg(&json)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let namespace = format!("sd-bench-{}-", bench.id());
    let output = bench.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    std::fs::remove_file(&json).unwrap();
    assert!(number(&report, "/client/connections_closed_total") > 0);
    let syscalls = report["syscalls_per_connection"].as_f64().unwrap();
    assert!(syscalls < 1.0, "{syscalls}");
    for (place, rival) in rivals.split(',').enumerate() {
        let compared = &report["comparison"][place];
        assert_eq!(compared["rival"], rival);
        assert!(compared["handshakes_per_second"].as_f64().unwrap() > 0.0, "{compared}");
    }
    let floor = &report["floor"];
    let ratio = floor["ratio"].as_f64().unwrap();
    assert!(ratio > 0.0 && floor["slices"] == 9, "{floor:#}");
    assert_eq!(number(floor, "/connections_lost_total"), 0);
    let names = String::from_utf8_lossy(&run("ip", &["netns", "list"]).stdout).into_owned();
    assert!(!names.contains(&namespace), "{names}");
}

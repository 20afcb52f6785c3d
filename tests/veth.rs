//! The binary on a veth pair, against the kernel's own TCP at the other end, and against itself.
//! As root; without, each test says that it is skipped.

mod common;

use common::{End, Lab, run, say};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// An address of ours on the lab's network that no kernel has.
const OURS: &str = "10.99.0.100";
const PATIENCE: Duration = Duration::from_secs(20);

/// Poll loops fill their cores: side by side the tests would only starve each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// `shakedown` running in one end's namespace, killed when dropped.
struct Running {
    child: Child,
    json: PathBuf,
}

impl Running {
    /// Starts it, with JSON to a file of its own.
    fn start(lab: &Lab, end: End, arguments: &[&str]) -> Running {
        let name = format!("{}-{end:?}.json", lab.namespace(end));
        let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let child = lab
            .command(end, env!("CARGO_BIN_EXE_shakedown"))
            .args(arguments)
            .args(["-i", end.interface(), "--json", json.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child, json }
    }

    /// A server on `OURS`, once it serves.
    fn server(lab: &Lab, arguments: &[&str]) -> Running {
        let address = format!("{OURS}/24");
        let common = ["server", "--no-verify-tcp-checksum", "--addr", &address];
        let running = Running::start(lab, End::Near, &[&common, arguments].concat());
        running.serving()
    }

    fn serving(mut self) -> Running {
        let mut lines = BufReader::new(self.child.stdout.as_mut().unwrap()).lines();
        let line = lines.next().expect("it ended before it served").unwrap();
        assert!(line.starts_with("serving on"), "{line}");
        self
    }

    fn signal(&self, signal: &str) {
        run("kill", &[signal, &self.child.id().to_string()]);
    }

    /// Waits for its end; its exit code and its report.
    fn end(mut self) -> (Option<i32>, Value) {
        // Whatever it still says is taken, or it would wait for a reader.
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        let text = std::fs::read(&self.json).unwrap_or_else(|_| panic!("no report: {rest}"));
        (code, serde_json::from_slice(&text).unwrap())
    }

    /// Stops a server by SIGINT and checks that it ended well, with nothing left in its tables.
    fn stop(self) -> Value {
        self.signal("-INT");
        let (code, report) = self.end();
        assert_eq!(code, Some(0));
        assert_eq!(number(&report, "/server/connections_left_open"), 0);
        assert_eq!(number(&report, "/server/frames_missing"), 0);
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.json);
    }
}

/// A lab, and the right to use the cores. `None` without root.
fn lab(name: &str) -> Option<(Lab, std::sync::MutexGuard<'static, ()>)> {
    lab_with_queues(name, 1)
}

fn lab_with_queues(name: &str, queues: u32) -> Option<(Lab, std::sync::MutexGuard<'static, ()>)> {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Some((Lab::with_queues(name, queues)?, turn))
}

/// A lab whose interfaces have two queues, for a worker each. `None` also with a single core.
fn lab_for_two(name: &str) -> Option<(Lab, std::sync::MutexGuard<'static, ()>)> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        say(&format!("{name}: SKIPPED, needs two cores"));
        return None;
    }
    lab_with_queues(name, 2)
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

/// True if the command is there; else says what is not tested.
fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        say(&format!("{test}: SKIPPED, {program} is not installed"));
    }
    found
}

fn connect(address: &str, port: u16) -> TcpStream {
    let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A kernel server at the far end that closes each connection after its client has, in a thread
/// that lasts as long as the test process.
fn kernel_server(lab: &Lab, port: u16) {
    let listener = lab.inside(End::Far, || TcpListener::bind((End::Far.addr(), port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let Ok(mut stream) = stream else { return };
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer) {}
            });
        }
    });
}

#[test]
fn curl_and_wrk_are_served() {
    let Some((lab, _turn)) = lab("curl") else { return };
    let server = Running::server(&lab, &["--listen", "80=http", "--response-size", "1k"]);
    if has("curl", "curl_and_wrk_are_served") {
        let output = lab
            .command(End::Far, "curl")
            .args(["-sS", "-m", "10", "-w", "%{http_code} %{size_download}", "-o", "/dev/null"])
            .arg(format!("http://{OURS}/"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200 1000", "{output:?}");
    }
    if has("wrk", "curl_and_wrk_are_served") {
        let output = lab
            .command(End::Far, "wrk")
            .args(["-t1", "-c64", "-d3s", &format!("http://{OURS}/")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("requests in") && !text.contains("Socket errors"), "{text}");
        assert!(!text.contains("Non-2xx"), "{text}");
    }
    server.stop();
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

        let mut echo = connect(OURS, 7);
        let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let mut writer = echo.try_clone().unwrap();
        let copy = sent.clone();
        let thread = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        echo.read_to_end(&mut all).unwrap();
        thread.join().unwrap();
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
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !common::is_root("a_bench_over_its_own_pair") {
        return;
    }
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("veth-bench-{}.json", std::process::id()));
    let bench = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["bench", "--link", "veth", "-d", "2s", "--compare", "kernel", "--json"])
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
    assert!(report["comparison"]["handshakes_per_second"].as_f64().unwrap() > 0.0);
    let names = String::from_utf8_lossy(&run("ip", &["netns", "list"]).stdout).into_owned();
    assert!(!names.contains(&namespace), "{names}");
}

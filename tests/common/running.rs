//! The binary at one end of a lab, and kernel sockets at the other.

use super::{End, Lab, run, say};
use serde_json::Value;
use shakedown::sys::epoll::listen;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An address of ours on the lab's network that no kernel has.
pub const OURS: &str = "10.99.0.100";
pub const OURS6: &str = "fd99::100";
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Poll loops fill their cores: side by side the tests would only starve each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to use the cores.
pub type Turn = MutexGuard<'static, ()>;

pub fn turn() -> Turn {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `shakedown` running in one end's namespace, killed when dropped.
pub struct Running {
    child: Child,
    json: PathBuf,
}

impl Running {
    /// Starts it, with JSON to a file of its own.
    pub fn start(lab: &Lab, end: End, arguments: &[&str]) -> Running {
        let name = format!("{}-{end:?}.json", lab.namespace(end));
        let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let child = lab
            .command(end, env!("CARGO_BIN_EXE_shakedown"))
            .args(arguments)
            .args(["-i", end.interface(), "--json", json.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child, json }
    }

    /// A server on `OURS` and `OURS6`, once it serves.
    pub fn server(lab: &Lab, arguments: &[&str]) -> Running {
        Running::server_on(lab, &format!("{OURS}/24,{OURS6}/64"), arguments)
    }

    /// A server on the addresses of `addr`, once it serves.
    pub fn server_on(lab: &Lab, addr: &str, arguments: &[&str]) -> Running {
        let common = ["server", "--no-verify-tcp-checksum", "--addr", addr];
        let running = Running::start(lab, End::Near, &[&common, arguments].concat());
        running.serving()
    }

    pub fn serving(mut self) -> Running {
        let mut lines = BufReader::new(self.child.stdout.as_mut().unwrap()).lines();
        let Some(line) = lines.next() else {
            let mut said = String::new();
            self.child.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
            panic!("it ended before it served: {said}");
        };
        let line = line.unwrap();
        assert!(line.starts_with("serving on"), "{line}");
        let way = lines.next().unwrap().unwrap();
        assert!(way.contains(" on veth; ") && way.contains(" core"), "{way}");
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        run("kill", &[signal, &self.child.id().to_string()]);
    }

    /// Waits for its end; its exit code and its report.
    pub fn end(self) -> (Option<i32>, Value) {
        let (code, report, _) = self.end_with_words();
        (code, report)
    }

    /// Waits for its end; its exit code, its report, and what it said to standard error.
    pub fn end_with_words(mut self) -> (Option<i32>, Value, String) {
        // Whatever it still says is taken, or it would wait for a reader.
        let mut rest = String::new();
        self.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
        let mut words = String::new();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut words).unwrap();
        eprint!("{words}");
        let code = self.child.wait().unwrap().code();
        let text = std::fs::read(&self.json).unwrap_or_else(|_| panic!("no report: {rest}"));
        (code, serde_json::from_slice(&text).unwrap(), words)
    }

    /// Waits for the end of a run that leaves no report; its exit code, if it has one.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Stops a server by SIGINT and checks that it ended well, with nothing left in its tables.
    pub fn stop(self) -> Value {
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
pub fn lab(name: &str) -> Option<(Lab, Turn)> {
    lab_with_queues(name, 1)
}

pub fn lab_with_queues(name: &str, queues: u32) -> Option<(Lab, Turn)> {
    let turn = turn();
    Some((Lab::with_queues(name, queues)?, turn))
}

pub fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

/// True if the command is there; else says what is not tested.
pub fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        say(&format!("{test}: SKIPPED, {program} is not installed"));
    }
    found
}

/// A kernel connection to an address without zone, or, of IPv6, with one: `fe80::1%3`.
pub fn connect(address: &str, port: u16) -> TcpStream {
    let brackets = if address.contains(':') { ["[", "]"] } else { ["", ""] };
    let address: SocketAddr =
        format!("{}{address}{}:{port}", brackets[0], brackets[1]).parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A kernel server at the far end that closes each connection after its client has, in a thread
/// that lasts as long as the test process.
pub fn kernel_server(lab: &Lab, port: u16) {
    kernel_server_on(lab, End::Far.addr(), port);
}

/// The same on any address of the far end's.
pub fn kernel_server_on(lab: &Lab, address: &str, port: u16) {
    let address: IpAddr = address.parse().unwrap();
    // With room for those that come at once, which the library's own has not.
    let listener = lab.inside(End::Far, || listen((address, port).into()).unwrap());
    listener.set_nonblocking(false).unwrap();
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

/// Fetches a page of 1000 bytes from the far end.
pub fn curl(lab: &Lab, url: &str) {
    let output = lab
        .command(End::Far, "curl")
        .args(["-gsS", "-m", "10", "-w", "%{http_code} %{size_download}", "-o", "/dev/null", url])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200 1000", "{url}: {output:?}");
}

/// Loads a server from the far end for three seconds: every response is one, and no socket fails.
pub fn wrk(lab: &Lab, url: &str) {
    let output = lab.command(End::Far, "wrk").args(["-t1", "-c64", "-d3s", url]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("requests in") && !text.contains("Socket errors"), "{text}");
    assert!(!text.contains("Non-2xx"), "{text}");
}

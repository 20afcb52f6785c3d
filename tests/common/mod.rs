//! A lab of two network namespaces joined by a veth pair, made for one test and gone with it.
//!
//! ```text
//!   namespace near                      namespace far
//!   near0  10.99.0.1/24  ────────────   far0  10.99.0.2/24
//!          fd99::1/64                         fd99::2/64
//! ```
//! Names bear the process id and the test's name, so tests run side by side and in any order.
#![allow(dead_code)] // each test binary uses a part of it

pub mod crowd;
pub mod hostile;
pub mod running;
pub mod station;
pub mod vlan;

use shakedown::sys::netns::Namespace;
use std::io::Write;
use std::process::{Command, Output};

/// One end of the veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Near,
    Far,
}

/// Two namespaces and the pair between them; dropping it, also in a panic, deletes both.
pub struct Lab {
    namespaces: [String; 2],
}

impl Lab {
    /// A lab whose interfaces have one queue. `None` without root, after saying so where the test
    /// run's output shows it.
    pub fn new(name: &str) -> Option<Lab> {
        Lab::with_queues(name, 1)
    }

    /// A lab whose interfaces have `queues` queues.
    pub fn with_queues(name: &str, queues: u32) -> Option<Lab> {
        if !is_root(name) {
            return None;
        }
        let namespaces =
            ["near", "far"].map(|end| format!("sd-{name}-{}-{end}", std::process::id()));
        let lab = Lab { namespaces };
        let [near, far] = &lab.namespaces;
        for namespace in [near, far] {
            run("ip", &["netns", "add", namespace]);
        }
        let queues = queues.to_string();
        let count = ["numrxqueues", &queues, "numtxqueues", &queues];
        let mut add = vec!["link", "add", "near0", "netns", near];
        add.extend(count);
        add.extend(["type", "veth", "peer", "name", "far0", "netns", far]);
        add.extend(count);
        run("ip", &add);
        for end in [End::Near, End::Far] {
            let (interface, addr) = (end.interface(), end.addr());
            lab.ip(end, &["addr", "add", &format!("{addr}/24"), "dev", interface]);
            lab.ip(
                end,
                &["addr", "add", &format!("{}/64", end.addr6()), "dev", interface, "nodad"],
            );
            lab.ip(end, &["link", "set", "lo", "up"]);
            lab.ip(end, &["link", "set", interface, "up"]);
            // A drop in the pair's inner ring would be silent; with a queue in front it waits
            // instead.
            lab.tc(end, &["qdisc", "add", "dev", interface, "root", "pfifo"]);
        }
        Some(lab)
    }

    /// Name of the namespace of one end, as `ip netns` knows it.
    pub fn namespace(&self, end: End) -> &str {
        &self.namespaces[end as usize]
    }

    /// `ip` in the namespace of one end; what it printed. Panics if it fails.
    pub fn ip(&self, end: End, args: &[&str]) -> String {
        let output = run("ip", &[&["-n", self.namespace(end)], args].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `tc` in the namespace of one end. Panics if it fails.
    pub fn tc(&self, end: End, args: &[&str]) {
        run("tc", &[&["-n", self.namespace(end)], args].concat());
    }

    /// A command to be run in the namespace of one end.
    pub fn command(&self, end: End, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace(end), program]);
        command
    }

    /// Runs `work` in the namespace of one end, in a thread of its own. Sockets and devices opened
    /// there keep working when they are handed back.
    pub fn inside<T: Send>(&self, end: End, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                Namespace::open(self.namespace(end)).unwrap().enter().unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

impl End {
    pub fn interface(self) -> &'static str {
        match self {
            End::Near => "near0",
            End::Far => "far0",
        }
    }

    /// The kernel's address of that end.
    pub fn addr(self) -> &'static str {
        match self {
            End::Near => "10.99.0.1",
            End::Far => "10.99.0.2",
        }
    }

    /// The kernel's IPv6 address of that end.
    pub fn addr6(self) -> &'static str {
        match self {
            End::Near => "fd99::1",
            End::Far => "fd99::2",
        }
    }

    pub fn other(self) -> End {
        match self {
            End::Near => End::Far,
            End::Far => End::Near,
        }
    }
}

/// True if this process is root; else says that the test is skipped, past libtest's capture.
pub fn is_root(test: &str) -> bool {
    let root = std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
    if !root {
        say(&format!("{test}: SKIPPED, needs root for network namespaces and XDP"));
    }
    root
}

/// Prints a line that libtest does not capture.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Runs a command to its end. Panics if it fails, with what it said.
pub fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|cause| panic!("run {program}: {cause}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

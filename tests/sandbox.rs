//! What a run may do once it stands: without privileges, and its workers without system calls but
//! those that move frames. As root; without, each test says that it is skipped.

mod common;

use common::running::{OURS, Running, curl, has, lab, number, wrk};
use common::{End, Lab, is_root};
use shakedown::sys::sandbox::{Filter, drop_capabilities};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

const SIGSYS: i32 = 31;

const SERVE: [&str; 4] = ["--listen", "80", "--response-size", "1k"];

/// Of each thread of a process: its name, and a field of its status.
fn of_threads(pid: u32, field: &str) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut found = Vec::new();
    for thread in threads {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_string()
        };
        found.push((value("Name:"), value(&format!("{field}:"))));
    }
    found
}

#[test]
fn a_run_that_stands_has_no_privilege_and_its_workers_a_filter() {
    let Some((lab, _turn)) = lab("privileges") else { return };
    let server = Running::server(&lab, &["--listen", "80", "--response-size", "1k"]);
    curl(&lab, &format!("http://{OURS}/"));
    for field in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        for (thread, set) in of_threads(server.pid(), field) {
            assert_eq!(u64::from_str_radix(&set, 16), Ok(0), "{field} of {thread}");
        }
    }
    for (thread, set) in of_threads(server.pid(), "NoNewPrivs") {
        assert_eq!(set, "1", "{thread}");
    }
    let filtered = of_threads(server.pid(), "Seccomp");
    let workers: Vec<_> = filtered.iter().filter(|(name, _)| name.starts_with("worker")).collect();
    assert!(!workers.is_empty());
    assert!(workers.iter().all(|(_, mode)| mode == "2"), "{workers:?}");
    server.stop();

    let at_large =
        Running::server(&lab, &["--listen", "80", "--response-size", "1k", "--no-sandbox"]);
    curl(&lab, &format!("http://{OURS}/"));
    assert!(of_threads(at_large.pid(), "Seccomp").iter().all(|(_, mode)| mode == "0"));
    assert!(of_threads(at_large.pid(), "CapEff").iter().all(|(_, set)| !set.ends_with("0000000")));
    at_large.stop();
}

/// System calls that the worker threads of a process make in two seconds of load, by name.
fn calls_under_load(lab: &Lab, server: &Running) -> BTreeMap<String, u64> {
    // Once it has served, its workers are there.
    curl(lab, &format!("http://{OURS}/"));
    let workers = of_threads(server.pid(), "Pid");
    let worker = workers.iter().find(|(name, _)| name.starts_with("worker")).expect("a worker");
    let trace = format!("{}/{}.strace", env!("CARGO_TARGET_TMPDIR"), worker.1);
    let mut strace = Command::new("timeout")
        .args(["-s", "INT", "4", "strace", "-p", &worker.1, "-o", &trace])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wrk(lab, &format!("http://{OURS}/"));
    strace.wait().unwrap();
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let name = line.split('(').next().unwrap_or(line).to_string();
        if !name.starts_with("---") && !name.starts_with("strace:") {
            *calls.entry(name).or_default() += 1;
        }
    }
    calls
}

#[test]
fn a_worker_under_load_makes_no_system_call_but_the_kick() {
    let name = "a_worker_under_load_makes_no_system_call_but_the_kick";
    let Some((lab, _turn)) = lab("strace") else { return };
    if !has("strace", name) || !has("wrk", name) {
        return;
    }
    let server = Running::server(&lab, &SERVE);
    let calls = calls_under_load(&lab, &server);
    assert!(calls.get("sendto").is_some_and(|&kicks| kicks > 100), "{calls:?}");
    assert_eq!(calls.keys().collect::<Vec<_>>(), ["sendto"], "{calls:?}");
    server.stop();

    let server = Running::server(&lab, &[&SERVE[..], &["--busy-poll"]].concat());
    let calls = calls_under_load(&lab, &server);
    let busy = calls.keys().all(|call| ["sendto", "recvfrom"].contains(&call.as_str()));
    assert!(busy && calls.contains_key("recvfrom"), "{calls:?}");
    server.stop();
}

/// Goal: the filter kills a process whose worker does what no worker does. The process is this
/// test, run once more.
#[test]
fn a_system_call_that_is_not_a_workers_ends_the_process() {
    const PLANT: &str = "SHAKEDOWN_TEST_PLANT";
    let name = "a_system_call_that_is_not_a_workers_ends_the_process";
    if let Ok(plant) = std::env::var(PLANT) {
        drop_capabilities(false).unwrap();
        Filter::new().unwrap().enter().unwrap();
        match plant.as_str() {
            "nothing" => {}
            "file" => drop(fs::File::open("/etc/passwd")),
            "socket" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
            "process" => drop(Command::new("/bin/true").status()),
            _ => unreachable!("{plant}"),
        }
        // Past the test harness, which does more than a worker.
        std::process::exit(7);
    }
    for plant in ["nothing", "file", "socket", "process"] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(PLANT, plant)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        match plant {
            "nothing" => assert_eq!(status.code(), Some(7), "{status}"),
            _ => assert_eq!(status.signal(), Some(SIGSYS), "{plant}: {status}"),
        }
    }
}

/// Goal: the capabilities that the README names are enough for somebody who is not root, and each
/// of them is needed.
#[test]
fn a_few_capabilities_are_enough_and_each_is_needed() {
    let name = "a_few_capabilities_are_enough_and_each_is_needed";
    if !is_root(name) || !has("setpriv", name) {
        return;
    }
    let Some((lab, _turn)) = lab("caps") else { return };
    const NEEDED: [&str; 5] = ["net_admin", "net_raw", "bpf", "perfmon", "ipc_lock"];
    // Where anybody may read it.
    let binary = format!("/tmp/shakedown-caps-{}", std::process::id());
    fs::copy(env!("CARGO_BIN_EXE_shakedown"), &binary).unwrap();
    let run = |without: &str| {
        let has: Vec<String> =
            NEEDED.iter().filter(|cap| **cap != without).map(|cap| format!(",+{cap}")).collect();
        let sets = format!("-all{}", has.concat());
        let limits = ["--memlock=65536:65536", "setpriv", "--reuid=65534", "--regid=65534"];
        lab.command(End::Near, "prlimit")
            .args(limits)
            .args(["--clear-groups", &format!("--inh-caps={sets}")])
            .args([format!("--bounding-set={sets}"), format!("--ambient-caps={sets}")])
            .args([&binary, "server", "-q", "-i", "near0", "--addr", "10.99.0.100/24"])
            .args(["--listen", "80", "-d", "100ms"])
            .output()
            .unwrap()
    };
    let enough = run("");
    let each: Vec<_> = NEEDED.iter().map(|cap| (cap, run(cap))).collect();
    fs::remove_file(&binary).unwrap();
    assert!(enough.status.success(), "{enough:?}");
    for (cap, output) in each {
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "without {cap}: {text}");
        assert!(text.contains(&cap.to_uppercase()), "without {cap} it says: {text}");
    }
}

/// Goal: what a run writes is opened before it loses the right to.
#[test]
fn reports_and_recordings_are_written_where_only_root_may() {
    let Some((lab, _turn)) = lab("reports") else { return };
    let directory = format!("{}/of-nobody-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(65534), Some(65534)).unwrap();
    let (json, pcap) = (format!("{directory}/run.json"), format!("{directory}/run.pcap"));
    let output = lab
        .command(End::Near, env!("CARGO_BIN_EXE_shakedown"))
        .args(["server", "-q", "-i", "near0", "--addr", "10.99.0.100/24", "--listen", "80"])
        .args(["-d", "100ms", "--json", &json, "--pcap", &pcap])
        .output()
        .unwrap();
    let (report, recording) = (fs::read(&json), fs::read(&pcap));
    fs::remove_dir_all(&directory).unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&report.unwrap()).unwrap();
    assert_eq!(number(&report, "/server/connections_left_open"), 0);
    assert!(recording.unwrap().len() >= 24, "a recording has a header at least");
}

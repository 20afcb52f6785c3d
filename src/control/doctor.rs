//! What this machine can do, and how to mend what it can't. Everything is asked, nothing is
//! changed.

use super::{Failure, homing, pin};
use crate::sys::net::{self, Interface};
use crate::sys::{bpf, netdev, socket};
use std::fmt;
use std::fs;

/// The first kernel with SO_PREFER_BUSY_POLL and bpf_link for XDP, both of which we use.
const KERNEL_MIN: (u32, u32) = (5, 11);

/// The first kernel whose veth tells XDP of a tag beside a frame.
const KERNEL_TELLS_TAGS: (u32, u32) = (6, 8);

/// Memory of one worker with one queue, in bytes: four rings of 2048 frames of 2 kB each.
const LOCKED_BYTES_MIN: u64 = 17 << 20;

/// Capabilities by number, as in linux/capability.h.
const CAPABILITIES: [(&str, u32); 4] =
    [("CAP_NET_ADMIN", 12), ("CAP_NET_RAW", 13), ("CAP_PERFMON", CAP_PERFMON), ("CAP_BPF", 39)];
const CAP_IPC_LOCK: u32 = 14;
const CAP_PERFMON: u32 = 38;
const CAP_SYS_ADMIN: u32 = 21;

/// How one thing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Good(String),
    /// It will work, but there is something to know.
    Note(String),
    /// It will not work until this is done.
    Bad {
        what: String,
        remedy: String,
    },
}

impl Finding {
    fn bad(what: impl fmt::Display, remedy: impl fmt::Display) -> Finding {
        Finding::Bad { what: what.to_string(), remedy: remedy.to_string() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Good(text) => write!(out, "ok    {text}"),
            Finding::Note(text) => write!(out, "note  {text}"),
            Finding::Bad { what, remedy } => write!(out, "BAD   {what}\n      -> {remedy}"),
        }
    }
}

/// Looks at the machine, and at `interface` if one is given, or else lists them all.
///
/// # Errors
/// Something is bad: AF_XDP will not run as things are.
pub fn run(interface: Option<&str>) -> Result<(), Failure> {
    let mut findings = vec![kernel(), af_xdp(), capabilities(), locked_memory(), cores()];
    match interface {
        Some(name) => findings.extend(one_interface(name)),
        None => findings.push(all_interfaces()),
    }
    for finding in &findings {
        println!("{finding}");
    }
    let bad = findings.iter().filter(|finding| matches!(finding, Finding::Bad { .. })).count();
    match bad {
        0 => Ok(()),
        1 => Err(Failure::Environment("1 thing to mend first".to_string())),
        bad => Err(Failure::Environment(format!("{bad} things to mend first"))),
    }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let (major, minor) = KERNEL_MIN;
    match version(release) {
        Some(found) if found >= KERNEL_MIN => Finding::Good(format!("Linux {release}")),
        Some(_) => Finding::bad(
            format_args!("Linux {release} is older than {major}.{minor}"),
            format_args!("upgrade it, or use `shakedown bench`, which needs nothing of it"),
        ),
        None => Finding::Note(format!("can't read the kernel's version from `{release}`")),
    }
}

/// Major and minor number of a release such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn af_xdp() -> Finding {
    match socket::probe() {
        Ok(()) => Finding::Good("AF_XDP sockets can be made".to_string()),
        Err(error) => Finding::bad(
            error,
            "run as root; if you are, the kernel lacks CONFIG_XDP_SOCKETS, or a container's seccomp forbids it",
        ),
    }
}

fn capabilities() -> Finding {
    let Some(held) = effective_capabilities() else {
        return Finding::Note("can't read /proc/self/status: capabilities unknown".to_string());
    };
    let has = |number: u32| held >> number & 1 == 1;
    let missing: Vec<_> = CAPABILITIES
        .iter()
        // Before the last two there was CAP_SYS_ADMIN, and it still stands for them.
        .filter(|(_, number)| !(has(*number) || *number >= CAP_PERFMON && has(CAP_SYS_ADMIN)))
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return Finding::Good("capabilities: NET_ADMIN, NET_RAW, PERFMON, BPF".to_string());
    }
    Finding::bad(
        format_args!("missing {}", missing.join(", ")),
        "run as root, or `setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock=ep` on the binary",
    )
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn locked_memory() -> Finding {
    if effective_capabilities().is_some_and(|held| held >> CAP_IPC_LOCK & 1 == 1) {
        return Finding::Good("locked memory: no limit (CAP_IPC_LOCK)".to_string());
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let soft = line.and_then(|line| line.split_whitespace().next()).unwrap_or("unknown");
    match soft.parse::<u64>() {
        Ok(bytes) if bytes < LOCKED_BYTES_MIN => Finding::bad(
            format_args!(
                "locked memory is limited to {bytes} bytes; one queue needs {LOCKED_BYTES_MIN}"
            ),
            "ulimit -l unlimited, or give CAP_IPC_LOCK",
        ),
        _ => Finding::Good(format!("locked memory: {soft}")),
    }
}

fn cores() -> Finding {
    let cores = pin::cores();
    match cores.len() {
        0 => Finding::Note(
            "can't ask which cores we may run on: threads will not be pinned".to_string(),
        ),
        1 => Finding::Note(
            "one core: a server and a client on this machine would take turns".to_string(),
        ),
        count => Finding::Good(format!("{count} cores: {cores:?}")),
    }
}

fn all_interfaces() -> Finding {
    match net::names() {
        Ok(names) => Finding::Note(format!(
            "interfaces: {} (look at one with `shakedown doctor -i NAME`)",
            names.join(", ")
        )),
        Err(error) => Finding::bad(error, "is /proc mounted?"),
    }
}

fn one_interface(name: &str) -> Vec<Finding> {
    let interface = match Interface::find(name) {
        Ok(interface) => interface,
        Err(error) => return vec![Finding::bad(error, "name one of those with -i")],
    };
    let Interface { name, index, mac, mtu, up, running, driver, queues, gro, rx_vlan, addrs } =
        &interface;
    let mac = crate::wire::ethernet::Mac(*mac);
    let mut findings = vec![Finding::Good(format!(
        "{name}: driver {}, MAC {mac}, MTU {mtu}, {queues} {}",
        if driver.is_empty() { "unknown" } else { driver },
        if *queues == 1 { "queue" } else { "queues" },
    ))];
    if !up {
        findings.push(Finding::bad(
            format_args!("{name} is down"),
            format_args!("ip link set {name} up"),
        ));
    } else if !running {
        findings.push(Finding::bad(
            format_args!("{name} is up but has no link"),
            "plug in the cable, or set the other end of the veth up",
        ));
    }
    findings.push(match bpf::attached_program(*index) {
        Ok(None) => Finding::Good(format!("{name}: no XDP program attached")),
        Ok(Some(id)) => Finding::bad(
            format_args!("{name} has an XDP program already (id {id})"),
            format_args!("stop the process that attached it, or `ip link set dev {name} xdp off`"),
        ),
        Err(error) => Finding::Note(error.to_string()),
    });
    if *mtu > 1500 {
        findings.push(Finding::Note(format!(
            "{name}: MTU {mtu}; we use 1500 of it unless --mtu asks for more, and longer frames from a peer are dropped"
        )));
    }
    if driver == "veth" && *gro == Some(false) {
        findings.push(Finding::Note(format!(
            "{name}: GRO is off; on a veth the transmit queue can then stay stopped after a run: ethtool -K {name} gro on"
        )));
    }
    findings.extend(one_rss(name, *queues));
    findings.extend(one_vlan(name, driver, *rx_vlan));
    findings.push(one_ipv6(name));
    findings.push(one_sums(name, *index));
    if driver == "veth" {
        findings.push(Finding::Note(
            "a kernel on the other end of a veth leaves TCP checksums undone: `ethtool -K PEER tx off` there, \
             or --no-verify-tcp-checksum here"
                .to_string(),
        ));
    }
    let shown: Vec<_> = addrs.iter().map(|(addr, len)| format!("{addr}/{len}")).collect();
    findings.push(match shown.is_empty() {
        true => Finding::Good(format!("{name}: no kernel address; any --addr will do")),
        false => Finding::Good(format!(
            "{name}: the kernel's own {}; with --addr of another address of that network nothing is shared",
            shown.join(", ")
        )),
    });
    findings
}

/// Whether source ports can be chosen so that replies come to the worker that asked.
fn one_rss(name: &str, queues: u32) -> Option<Finding> {
    if queues == 1 {
        return None;
    }
    let follow = || {
        let spreading = homing::read(name)?;
        homing::verdict(&spreading, queues).map(|()| spreading.table.len())
    };
    Some(match follow() {
        Ok(buckets) => Finding::Good(format!(
            "{name}: RSS can be read (Toeplitz, {buckets} entries): a client with several workers \
             takes source ports whose replies come to the worker that asked"
        )),
        Err(why) => Finding::Note(format!(
            "{name}: RSS can't be followed: {why}; replies that come to another worker are handed \
             on, which costs where a peer does not keep a connection on one queue"
        )),
    })
}

/// What becomes of 802.1Q tags on the way to us.
fn one_vlan(name: &str, driver: &str, rx_vlan: Option<bool>) -> Option<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match (driver, rx_vlan) {
        ("veth", _) if version(&release).is_some_and(|found| found >= KERNEL_TELLS_TAGS) => {
            Some(Finding::Good(format!(
                "{name}: VLAN tags that a kernel on the other end keeps beside its frames are seen in \
                 native mode; for --mode skb run `ethtool -K PEER txvlan off` there"
            )))
        }
        ("veth", _) => {
            let (major, minor) = KERNEL_TELLS_TAGS;
            Some(Finding::Note(format!(
                "{name}: a kernel on the other end keeps VLAN tags beside its frames, where Linux \
                 before {major}.{minor} shows none: for VLANs run `ethtool -K PEER txvlan off` there"
            )))
        }
        (_, Some(true)) => Some(Finding::Good(format!(
            "{name}: takes VLAN tags out of frames (rxvlan); left in while we run with a VLAN"
        ))),
        (_, Some(false) | None) => None,
    }
}

/// Who puts in the checksums of what we send, unless it is asked for otherwise.
fn one_sums(name: &str, index: u32) -> Finding {
    Finding::Good(match netdev::sums(index) {
        Ok(true) => {
            format!("{name}: the NIC puts TCP checksums into frames that are not copied")
        }
        Ok(false) => format!("{name}: TCP checksums are put in by us (--tx-checksum)"),
        Err(error) => {
            format!("{name}: TCP checksums are put in by us, as the kernel can't be asked: {error}")
        }
    })
}

/// Whether the kernel speaks IPv6 on the interface, which we do without it.
fn one_ipv6(name: &str) -> Finding {
    let file = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    match fs::read_to_string(file).as_deref().map(str::trim) {
        Ok("0") => Finding::Good(format!("{name}: IPv6 is on")),
        Ok(_) => Finding::Note(format!(
            "{name}: the kernel's IPv6 is off; --addr of ours works, one of the kernel's can't be \
             shared: `sysctl net.ipv6.conf.{name}.disable_ipv6=0`"
        )),
        Err(_) => Finding::Note(format!("{name}: this kernel has no IPv6; --addr of ours works")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_to_its_minor_number() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("5.11"), Some((5, 11)));
        assert_eq!(version("six"), None);
    }

    #[test]
    fn the_loopback_is_examined_without_a_surprise() {
        let findings = one_interface("lo");
        assert!(matches!(&findings[0], Finding::Good(text) if text.starts_with("lo: driver")));
    }

    #[test]
    fn what_is_missing_comes_with_a_remedy() {
        let findings = one_interface("nothere0");
        assert!(matches!(&findings[..], [Finding::Bad { what, .. }] if what.contains("nothere0")));
        assert!(findings[0].to_string().contains("\n      -> "));
    }
}

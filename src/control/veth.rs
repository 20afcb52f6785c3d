//! A bench over a veth pair of its own, between two network namespaces that exist for it alone.
//!
//! ```text
//!   namespace A                                   namespace B
//!   sda  queue 0  <- core 0 owns both ends ->  sdb  queue 0
//!        queue 1  <- core 1 owns both ends ->       queue 1
//! ```
//! What is sent on queue i arrives on the peer's queue i, so a connection never leaves its core.
//! The namespaces lose their names as soon as they are held open: when the process ends, in
//! whatever way, nothing is left of them.

use super::Failure;
use super::assemble::Share;
use super::bench::{Bench, Port, alternate, client_found};
use super::bulk;
use super::crew::{Found, Member, Post};
use super::floor::{self, Under};
use super::plan::BenchPlan;
use super::runner::Orders;
use super::settings::PeerName;
use crate::device::steering::{Reach, Steering};
use crate::device::xdp::{self, Deferral, Mode, Program, Xdp};
use crate::engine::Subnet;
use crate::frame::Pool;
use crate::sys::netns::Namespace;
use crate::wire::ethernet::Mac;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;

/// The kernel's own addresses on the pair, with their prefix: the kernel's sockets need them. From
/// the blocks that are kept for benches (RFC 2544, RFC 5180), as ours are.
const KERNEL_IPV4: ([Ipv4Addr; 2], u8) =
    ([Ipv4Addr::new(198, 19, 0, 1), Ipv4Addr::new(198, 19, 0, 2)], 24);
const KERNEL_IPV6: ([Ipv6Addr; 2], u8) =
    ([Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 2)], 64);

/// The kernel's address at the server's end, of the family of `like`.
pub(super) fn kernel_server(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => KERNEL_IPV4.0[1].into(),
        IpAddr::V6(_) => KERNEL_IPV6.0[1].into(),
    }
}

pub(super) const INTERFACES: [&str; 2] = ["sda", "sdb"];

/// Two namespaces and the veth pair between them. Gone when this and all sockets in them are
/// dropped.
pub(super) struct Pair {
    namespaces: [Namespace; 2],
}

/// Namespaces that still have names. Dropping it takes the names away.
struct Named([String; 2]);

impl Drop for Named {
    fn drop(&mut self) {
        for name in &self.0 {
            // If it was never made, there is nothing to take away.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

impl Pair {
    /// Makes the pair, with `queues` queues a side, for datagrams of `mtu` bytes, up and addressed.
    ///
    /// # Errors
    /// What could not be made, and why: mostly not being root.
    pub fn make(queues: usize, mtu: u16) -> Result<Pair, Failure> {
        let process = std::process::id();
        let named = Named(["a", "b"].map(|end| format!("sd-bench-{process}-{end}")));
        let [a, b] = [&named.0[0], &named.0[1]];
        let [sda, sdb] = INTERFACES;
        for name in [a, b] {
            run("ip", &format!("netns add {name}"))?;
        }
        let count = format!("numrxqueues {queues} numtxqueues {queues}");
        run(
            "ip",
            &format!(
                "link add {sda} netns {a} {count} type veth peer name {sdb} netns {b} {count}"
            ),
        )?;
        for (end, (name, interface)) in named.0.iter().zip(INTERFACES).enumerate() {
            let (ipv4, ipv6) = (KERNEL_IPV4.0[end], KERNEL_IPV6.0[end]);
            run("ip", &format!("-n {name} addr add {ipv4}/{} dev {interface}", KERNEL_IPV4.1))?;
            // A kernel without IPv6 refuses; what needs the address says so then.
            let ipv6 = format!("{ipv6}/{} dev {interface} nodad", KERNEL_IPV6.1);
            let _ = run("ip", &format!("-n {name} addr add {ipv6}"));
            run("ip", &format!("-n {name} link set lo up"))?;
            run("ip", &format!("-n {name} link set {interface} mtu {mtu} up"))?;
            // The pair's inner ring holds 256 frames and drops in silence; a queue in front of it
            // waits instead.
            run("tc", &format!("-n {name} qdisc replace dev {interface} root pfifo"))?;
        }
        let open = |name: &String| Namespace::open(name).map_err(environment);
        Ok(Pair { namespaces: [open(a)?, open(b)?] })
    }

    /// Runs `work` in a thread of its own inside one end's namespace: 0 for the client's, 1 for the
    /// server's.
    ///
    /// # Errors
    /// Not permitted, or what `work` answers.
    pub fn inside<T: Send>(
        &self,
        end: usize,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.namespaces[end].enter()?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// Gives the kernel an address of the bench at one end.
    ///
    /// # Errors
    /// `ip` can't be run, or refuses.
    pub fn address(&self, end: usize, subnet: &Subnet) -> Result<(), Failure> {
        let (interface, address, prefix_len) = (INTERFACES[end], subnet.first, subnet.prefix_len);
        // Nobody else is on the wire to have the address.
        let at_once = if address.is_ipv6() { " nodad" } else { "" };
        let command = format!("addr replace {address}/{prefix_len} dev {interface}{at_once}");
        self.inside(end, || Ok(run("ip", &command))).map_err(environment)?
    }

    /// The namespaces themselves, for threads that stay in them.
    pub fn namespaces(&self) -> &[Namespace; 2] {
        &self.namespaces
    }
}

/// One end of the pair with our program on it.
struct End {
    program: Arc<Program>,
    /// Where both ends poll. A kernel does not.
    deferral: Option<Deferral>,
}

/// The ends of the pair that are ours, held for the length of the run, and the threads that own
/// their queues.
pub(super) struct Stage {
    client: End,
    /// `None` where the kernel serves.
    server: Option<End>,
}

impl Stage {
    /// Attaches the program to both ends, and quiets their interrupts: the workers poll.
    ///
    /// # Errors
    /// What this machine can't do.
    pub fn set(pair: &Pair, plan: &BenchPlan) -> Result<Stage, Failure> {
        let reach = |subnet: &Subnet| {
            let Subnet { first, last, prefix_len: _, vlan } = *subnet;
            Reach { first, last, vlan }
        };
        let client = plan.stack.subnets.iter().map(reach).collect();
        let server = vec![reach(&plan.server_subnet())];
        let set = |end: usize, ours: Vec<Reach>| {
            let steering = Steering { ours, ..Steering::default() };
            let interface = INTERFACES[end];
            pair.inside(end, || {
                let program = Program::attach(interface, &steering, Mode::Auto)?;
                let deferral = match plan.peer {
                    PeerName::Ours => Some(Deferral::start(interface)?),
                    PeerName::Kernel => None,
                };
                Ok(End { program, deferral })
            })
            .map_err(environment)
        };
        let server = match plan.peer {
            PeerName::Ours => Some(set(1, server)?),
            PeerName::Kernel => None,
        };
        Ok(Stage { client: set(0, client)?, server })
    }

    /// A thread for each core, with both ends of a queue.
    ///
    /// # Errors
    /// A queue can't be opened.
    pub fn members(
        &self,
        pair: &Pair,
        bench: &Bench,
        cores: &[u32],
    ) -> Result<Vec<Member>, Failure> {
        let Some(end) = &self.server else { return self.beside_kernel(pair, bench, cores) };
        let mut members = Vec::new();
        for (index, &core) in cores.iter().enumerate() {
            let share = Share { index: index as u16, count: cores.len() as u16 };
            let server_orders = Arc::new(Orders::default());
            let server = port(end, pair, 1, index as u32, bench.mtu())?;
            let server = bench.server(server, share, &server_orders).map_err(Failure::Run)?;
            let client = port(&self.client, pair, 0, index as u32, bench.mtu())?;
            let client = bench.client(client, share).map_err(Failure::Run)?;
            let job =
                move |post: &Post| Ok(alternate(client, server, &server_orders, post.confined()?));
            members.push(Member { core, job: Box::new(job) });
        }
        Ok(members)
    }

    /// A thread for each core with both ends of the floor, on the queue that the bench has there.
    ///
    /// # Errors
    /// A queue can't be opened.
    pub fn floor(&self, pair: &Pair, under: &Under, cores: &[u32]) -> Result<Vec<Member>, Failure> {
        let Some(end) = &self.server else { return Ok(Vec::new()) };
        let mut members = Vec::new();
        for (index, &core) in cores.iter().enumerate() {
            let share = Share { index: index as u16, count: cores.len() as u16 };
            let server = port(end, pair, 1, index as u32, under.mtu())?;
            let client = port(&self.client, pair, 0, index as u32, under.mtu())?;
            let (client, server) = under.ends(client, server, share);
            let job = move |post: &Post| Ok(floor::alternate(client, server, post.confined()?));
            members.push(Member { core, job: Box::new(job) });
        }
        Ok(members)
    }

    /// Our client on the first of `cores`, a server on the kernel's sockets on the last.
    fn beside_kernel(
        &self,
        pair: &Pair,
        bench: &Bench,
        cores: &[u32],
    ) -> Result<Vec<Member>, Failure> {
        let (Some(&ours), Some(&its)) = (cores.first(), cores.last()) else {
            return Ok(Vec::new());
        };
        let plan = Arc::clone(&bench.plan);
        let local = SocketAddr::new(plan.server_subnet().first, plan.service.listener.port);
        let listener = pair.inside(1, || TcpListener::bind(local)).map_err(environment)?;
        let mut client = bench
            .client(port(&self.client, pair, 0, 0, bench.mtu())?, Share::WHOLE)
            .map_err(Failure::Run)?;
        // Each is gone when its thread has no more to do for the other, in whatever way it ended.
        let (driving, serving) = (Arc::new(()), Arc::new(()));
        let (driven, served) = (Arc::downgrade(&driving), Arc::downgrade(&serving));
        let drive = move |post: &Post| {
            let clock = post.confined()?;
            while client.turn(clock.now()) {}
            drop(driving);
            while served.strong_count() > 0 {
                client.turn(clock.now());
            }
            Ok(Found { client: Some(client_found(client, clock.now())), ..Found::default() })
        };
        let serve = move |post: &Post| {
            let _serving = serving;
            let carried =
                bulk::serve(&plan, listener, post.at_large(), || driven.strong_count() == 0);
            let carried = carried.map_err(|error| error.to_string())?;
            Ok(Found { kernel: Some(carried), ..Found::default() })
        };
        Ok(vec![
            Member { core: ours, job: Box::new(drive) },
            Member { core: its, job: Box::new(serve) },
        ])
    }
}

/// One queue of one end.
fn port(end: &End, pair: &Pair, number: usize, queue: u32, mtu: u16) -> Result<Port<Xdp>, Failure> {
    let busy_poll = end.deferral.is_some();
    let options = xdp::Options { busy_poll, ..xdp::Options::default() };
    let open = || {
        let mut pool = Pool::for_mtu(xdp::frames_for(1, options.ring_frames), mtu)?;
        let device = Xdp::open(&end.program, &[queue], &options, &mut pool)?;
        Ok(Port { device, pool, mac: Mac(end.program.interface().mac) })
    };
    pair.inside(number, open).map_err(environment)
}

/// Runs a command whose arguments hold no spaces.
fn run(program: &str, arguments: &str) -> Result<(), Failure> {
    let attempt = || format!("`{program} {arguments}`");
    match Command::new(program).args(arguments.split(' ')).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
            Err(environment(format_args!(
                "{} failed: {said} (--link veth needs root; --link memory does not)",
                attempt()
            )))
        }
        Err(error) => Err(environment(format_args!(
            "{} can't be run: {error} (install iproute2, or use --link memory)",
            attempt()
        ))),
    }
}

fn environment(error: impl Display) -> Failure {
    Failure::Environment(error.to_string())
}

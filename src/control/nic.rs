//! A server or a client on an interface: its queues dealt out to cores, a worker each.

use super::assemble::{self, Share, config};
use super::crew::{Found, Job, Member};
use super::guard::Guard;
use super::homing::Homing;
use super::launch::{Run, listed};
use super::plan::{Drive, Service, Site, Stack, links};
use super::runner::{Finding, Milestones, Runner, Term};
use super::settings::{Mode, Output, TxChecksum};
use super::value::Ports;
use super::wrapped::{Wrapped, Wrappers};
use super::{Failure, pin, summary};
use crate::app::App;
use crate::device::packet::Packet;
use crate::device::steering::{Reach, Steering};
use crate::device::xdp::{self, Deferral, Program, Xdp};
use crate::device::{self, Device};
use crate::engine::{Config, Engine, Subnet};
use crate::frame::Pool;
use crate::stats::publish::Board;
use crate::sys::net::Interface;
use crate::time::Span;
use crate::wire::ethernet::Mac;
use crate::worker::{self, Place, Worker};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The largest datagram we send and take unless asked for more: what every link carries.
const MTU_DEFAULT: u16 = 1500;

/// All but the privileged ports, on an address that is ours alone.
const SPORT_OURS: Ports = Ports { first: 1024, last: 65_535 };

/// On an address of the kernel's: above the ports that it gives to its own connections
/// (net.ipv4.ip_local_port_range ends at 60999).
const SPORT_SHARED: Ports = Ports { first: 61_000, last: 65_535 };

/// Frames of a worker's pool on AF_PACKET, which keeps only a burst of them.
const PACKET_POOL_FRAMES: u32 = 4096;

/// An interface that is ready for its workers.
pub(super) struct Nic {
    interface: Interface,
    door: Door,
    /// Queues of each worker, and the core it belongs on.
    crews: Vec<(u32, Vec<u32>)>,
    homing: Homing,
    /// Kept for the length of the run: restored when dropped.
    deferral: Option<Deferral>,
    mtu: u16,
    mac: Mac,
    shared: bool,
}

/// The workers of an interface, ready to run.
pub(super) struct Manned {
    pub members: Vec<Member>,
    /// Bytes of memory that they have together, fixed from here on.
    pub memory: usize,
    /// How frames come and go, and who does what for that: for people.
    pub way: String,
}

/// How frames come in and go out.
enum Door {
    /// Our program is on the interface; each worker opens its queues.
    Xdp(Arc<Program>, xdp::Options),
    /// The only worker opens the interface.
    Packet(Steering),
}

/// On whose side of a connection a worker stands, where that matters for what is taken from the
/// kernel.
pub(super) enum Part<'a> {
    Server(&'a [Service]),
    Client(&'a Drive),
}

impl Nic {
    /// Looks at the site's interface and attaches our program to it. Frames still go to the kernel.
    ///
    /// # Errors
    /// What this machine, or this user, can't do.
    pub fn open(site: &Site, stack: &Stack, part: &Part<'_>) -> Result<Nic, Failure> {
        let environment = |error: io::Error| Failure::Environment(error.to_string());
        let interface = Interface::find(&site.interface).map_err(environment)?;
        let mtu = mtu(&interface, stack)?;
        let queues = site.queues.clone().unwrap_or_else(|| (0..interface.queues).collect());
        let crews = deal(&queues, stack.cpus.as_deref(), part)?;
        let (steering, shared) = steering(&interface, stack, part);
        if site.mode == Mode::Packet && crews.len() > 1 {
            return Err(Failure::Usage(
                "--mode packet has one worker: --cpus with one core".into(),
            ));
        }
        if mtu > MTU_DEFAULT && crews.len() > 1 {
            // Frames that stray between workers travel by value, and are short.
            return Err(Failure::Usage(format!(
                "--mtu {mtu}: jumbo frames have one worker: --cpus with one core"
            )));
        }
        let homing = Homing::of(&interface.name, &crews);
        let door = door(site, steering).map_err(environment)?;
        let deferral = match site.busy_poll {
            true => Some(Deferral::start(&site.interface).map_err(environment)?),
            false => None,
        };
        Ok(Nic { door, crews, homing, deferral, mtu, mac: Mac(interface.mac), interface, shared })
    }

    pub fn workers(&self) -> usize {
        self.crews.len()
    }

    /// True if the interface has settings of ours that it is to lose at the end.
    pub fn gives_back(&self) -> bool {
        let tags = matches!(&self.door, Door::Xdp(program, _) if program.gives_back());
        tags || self.deferral.is_some()
    }

    /// Watches over the interface.
    pub fn guard(&self) -> Guard {
        let program = match &self.door {
            Door::Xdp(program, _) => Some(Arc::clone(program)),
            Door::Packet(_) => None,
        };
        Guard::new(self.interface.clone(), program)
    }

    /// How replies come to the worker that asked.
    pub fn homing(&self) -> &Homing {
        &self.homing
    }

    /// Source ports, unless they were asked for.
    pub fn sport_default(&self) -> Ports {
        if self.shared { SPORT_SHARED } else { SPORT_OURS }
    }

    /// A thread for each worker, of which `build` makes what is not the same for every command.
    ///
    /// # Errors
    /// A queue can't be opened, or the recording's file can't be created.
    pub fn members<A>(&self, crew: &Crew<'_>, build: &Build<'_, A>) -> Result<Manned, Failure>
    where
        A: App + Send + 'static,
        A::State: Send,
        A::Idle: Send,
    {
        let environment = |error: io::Error| Failure::Environment(error.to_string());
        let (mut members, mut memory, mut opened) = (Vec::new(), 0, device::Report::default());
        let count = self.workers() as u16;
        let afoot = Arc::new(());
        for (index, place) in worker::ring(count).into_iter().enumerate() {
            let (core, queues) = &self.crews[index];
            let share = Share { index: index as u16, count };
            let seat = Seat { share, place, afoot: Arc::clone(&afoot) };
            let (job, bytes, report) = match &self.door {
                Door::Xdp(program, options) => {
                    let frames = xdp::frames_for(queues.len(), options.ring_frames);
                    let mut pool = Pool::for_mtu(frames, self.mtu).map_err(environment)?;
                    let device =
                        Xdp::open(program, queues, options, &mut pool).map_err(environment)?;
                    self.job(crew, build, seat, device, pool)?
                }
                Door::Packet(steering) => {
                    let pool = Pool::for_mtu(PACKET_POOL_FRAMES, self.mtu).map_err(environment)?;
                    let device =
                        Packet::open(&self.interface.name, steering).map_err(environment)?;
                    self.job(crew, build, seat, device, pool)?
                }
            };
            members.push(Member { core: *core, job });
            memory += bytes;
            opened = report;
        }
        Ok(Manned { members, memory, way: self.way(&opened) })
    }

    /// How frames come and go on a device that was opened here, and what was chosen for that.
    fn way(&self, opened: &device::Report) -> String {
        let named = |noun: &str, numbers: Vec<u32>| {
            let plural = if numbers.len() == 1 { "" } else { "s" };
            format!("{noun}{plural} {}", listed(numbers))
        };
        let cores = named("core", self.crews.iter().map(|(core, _)| *core).collect());
        let via = summary::via(opened);
        let Door::Xdp(_, options) = &self.door else {
            return format!("{via}; {cores}; a system call for each burst");
        };
        let mut queues: Vec<u32> = self.crews.iter().flat_map(|(_, of)| of).copied().collect();
        queues.sort_unstable();
        let interrupts = match options.busy_poll {
            true => "ours, by busy polling",
            false => "the kernel's (--busy-poll: ours)",
        };
        format!(
            "{via}; {} on {cores}; rings of {} frames; checksums of what carries data by {}; the \
             interface's interrupt work is {interrupts}",
            named("queue", queues),
            options.ring_frames,
            if opened.sums { "the device" } else { "us" },
        )
    }

    /// What the thread of one worker does, the memory that it has, and its device.
    fn job<D, A>(
        &self,
        crew: &Crew<'_>,
        build: &Build<'_, A>,
        seat: Seat,
        device: D,
        pool: Pool,
    ) -> Result<(Job, usize, device::Report), Failure>
    where
        D: Device + Send + 'static,
        A: App + Send + 'static,
        A::State: Send,
        A::Idle: Send,
    {
        let &Crew { stack, duration, output, run, board } = crew;
        let Seat { share, place, afoot } = seat;
        let index = usize::from(share.index);
        let pcap = output.pcap.as_ref().map(|path| numbered(path, index));
        let wrappers = Wrappers {
            impair: stack.impair.as_ref(),
            pcap: pcap.as_deref(),
            seed: assemble::seed(stack, share),
        };
        let device = Wrapped::new(device, &pool, &wrappers, &run.clock)
            .map_err(|error| Failure::Run(error.to_string()))?;
        let mut config = config(stack, stack.subnets.clone(), self.mac, self.mtu);
        let opened = device.report();
        config.device_sums = opened.sums;
        let app = (build.app)(share, &mut config);
        let engine = Engine::new(config, app, run.clock.now());
        let memory = engine.memory_bytes() + pool.umem().region().1 as usize;
        let mut worker = Worker::new(device, engine, pool);
        worker.join(place);
        let term = Term { duration, drain: stack.drain, until_empty: false };
        let (orders, board) = (Arc::clone(&run.orders), Arc::clone(board));
        let mut runner = Runner::new(worker, (build.milestones)(), term, orders, board, index);
        let found = build.found;
        let job: Job = Box::new(move |post| {
            let clock = post.confined()?;
            while runner.turn(clock.now()) {}
            let over_at = clock.now();
            // Frames of the others' connections may go on arriving on our queues.
            let others = Arc::downgrade(&afoot);
            drop(afoot);
            while others.strong_count() > 0 {
                runner.turn(clock.now());
            }
            Ok(found(runner.finish(over_at)))
        });
        Ok((job, memory, opened))
    }
}

/// A worker's part among those of a run.
struct Seat {
    share: Share,
    place: Place,
    /// Held until its own part is over.
    afoot: Arc<()>,
}

/// What all workers of a run share.
#[derive(Clone, Copy)]
pub(super) struct Crew<'a> {
    pub stack: &'a Stack,
    pub duration: Option<Span>,
    pub output: &'a Output,
    pub run: &'a Run,
    pub board: &'a Arc<Board>,
}

/// What differs between a server's workers and a client's.
pub(super) struct Build<'a, A> {
    pub app: &'a dyn Fn(Share, &mut Config) -> A,
    pub milestones: fn() -> Milestones<A>,
    pub found: fn((Finding, A)) -> Found,
}

/// The largest datagram of the run, in bytes.
fn mtu(interface: &Interface, stack: &Stack) -> Result<u16, Failure> {
    let Interface { name, mtu: most, .. } = interface;
    let mtu = match stack.mtu {
        None => (*most).min(u32::from(MTU_DEFAULT)) as u16,
        Some(asked) if u32::from(asked) <= *most => asked,
        Some(asked) => {
            return Err(Failure::Usage(format!(
                "--mtu {asked}: {name} carries at most {most}: `ip link set {name} mtu {asked}`"
            )));
        }
    };
    links::mtu_suits(mtu, &stack.subnets)
        .map_err(|error| Failure::Usage(format!("MTU {mtu} of {name}: {error}")))?;
    Ok(mtu)
}

/// Attaches our program, or leaves the interface as it is for AF_PACKET.
fn door(site: &Site, steering: Steering) -> io::Result<Door> {
    let mode = match site.mode {
        Mode::Auto => xdp::Mode::Auto,
        Mode::Zerocopy => xdp::Mode::ZeroCopy,
        Mode::Copy => xdp::Mode::Copy,
        Mode::Skb => xdp::Mode::Skb,
        Mode::Packet => return Ok(Door::Packet(steering)),
    };
    let program = Program::attach(&site.interface, &steering, mode)?;
    if let Some(why) = program.fallback() {
        eprintln!("shakedown: no native XDP on {}, using skb mode: {why}", site.interface);
    }
    if program.tags_hidden() {
        eprintln!(
            "shakedown: a kernel on the other end of {} keeps VLAN tags where we can't see them \
             (native XDP of Linux 6.8 can): `ethtool -K PEER txvlan off` there",
            site.interface
        );
    }
    let sums = match site.tx_checksum {
        TxChecksum::Auto => xdp::Sums::Auto,
        TxChecksum::Device => xdp::Sums::Device,
        TxChecksum::Software => xdp::Sums::Ours,
    };
    let options = xdp::Options { busy_poll: site.busy_poll, sums, ..xdp::Options::default() };
    Ok(Door::Xdp(program, options))
}

/// Deals queues out to cores. Without a choice of cores there is one worker, for all queues: a
/// server on the first core and a client on the last, so that the two on one machine do not share
/// one.
fn deal(
    queues: &[u32],
    cpus: Option<&[u32]>,
    part: &Part<'_>,
) -> Result<Vec<(u32, Vec<u32>)>, Failure> {
    let cores = pin::cores();
    let chosen = match (cpus, part) {
        (Some(cpus), _) => cpus.to_vec(),
        (None, Part::Server(_)) => cores.first().copied().into_iter().collect(),
        (None, Part::Client(_)) => cores.last().copied().into_iter().collect(),
    };
    if let Some(absent) = chosen.iter().find(|core| !cores.contains(core)) {
        return Err(Failure::Environment(format!(
            "--cpus: core {absent} is not among those we may run on: {cores:?}"
        )));
    }
    if chosen.len() > queues.len() {
        return Err(Failure::Usage(format!(
            "--cpus names {} cores and there are {} queues: a core needs a queue of its own",
            chosen.len(),
            queues.len()
        )));
    }
    let count = chosen.len();
    let of = |index: usize| queues.iter().copied().skip(index).step_by(count).collect();
    Ok(chosen.into_iter().enumerate().map(|(index, core)| (core, of(index))).collect())
}

/// What to take from the kernel, and whether any address is shared with it.
fn steering(interface: &Interface, stack: &Stack, part: &Part<'_>) -> (Steering, bool) {
    let kernel_owns = |address: IpAddr| interface.addrs.iter().any(|(its, _)| *its == address);
    let (mut ours, mut shared) = (Vec::new(), Vec::new());
    for subnet in &stack.subnets {
        let Subnet { first, last, prefix_len: _, vlan } = *subnet;
        let alone = first == last && vlan.is_none() && kernel_owns(first);
        if alone { &mut shared } else { &mut ours }.push(Reach { first, last, vlan });
    }
    let ports = match part {
        Part::Server(services) => {
            services.iter().map(|service| (service.listener.port, service.listener.port)).collect()
        }
        Part::Client(drive) => {
            let Ports { first, last } = drive.sport.unwrap_or(SPORT_SHARED);
            vec![(first, last)]
        }
    };
    let any_shared = !shared.is_empty();
    (Steering { ours, shared, ports }, any_shared)
}

/// `run.pcap` for the first worker, `run.1.pcap` for the second.
pub(super) fn numbered(path: &std::path::Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_path_buf();
    }
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_extension(format!("{index}.{extension}"))
}

#[cfg(test)]
mod tests {
    use super::super::crew::Ending;
    use super::super::veth::Pair;
    use super::*;
    use crate::app::Conn;
    use crate::app::results::Served;
    use crate::tcp::End;
    use crate::time::Instant;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn queues_are_dealt_out_evenly_and_each_core_has_one() {
        let core = pin::cores()[0];
        let part = Part::Server(&[]);
        assert_eq!(deal(&[0, 1, 2], None, &part), Ok(vec![(core, vec![0, 1, 2])]));
        assert!(matches!(deal(&[0], Some(&[core, core]), &part), Err(Failure::Usage(_))));
        let absent = deal(&[0], Some(&[1000]), &part);
        assert!(matches!(absent, Err(Failure::Environment(text)) if text.contains("core 1000")));
    }

    #[test]
    fn each_worker_records_into_a_file_of_its_own() {
        assert_eq!(numbered(Path::new("a/run.pcap"), 0), Path::new("a/run.pcap"));
        assert_eq!(numbered(Path::new("a/run.pcap"), 2), Path::new("a/run.2.pcap"));
    }

    #[test]
    fn an_address_of_the_kernel_is_shared_by_port() {
        let mut interface = Interface::find("lo").unwrap();
        interface.addrs = vec![(IpAddr::from([10, 0, 0, 1]), 24)];
        let subnet = |text| super::super::address::subnet(text).unwrap();
        let mut stack = super::super::plan::tests::stack();
        stack.subnets = vec![subnet("10.0.0.1/24"), subnet("10.0.0.5-10.0.0.9/24")];
        let services = [super::super::plan::tests::service(80)];
        let (steering, shared) = steering(&interface, &stack, &Part::Server(&services));
        assert!(shared);
        assert_eq!(steering.shared.len(), 1);
        let [first, last] = [5, 9].map(|last| IpAddr::from([10, 0, 0, last]));
        assert_eq!(steering.ours, [Reach { first, last, vlan: None }]);
        assert_eq!(steering.ports, [(80, 80)]);
    }

    /// Does nothing but panic.
    struct Planted {
        panics: bool,
    }

    impl Planted {
        fn falls(&self) -> bool {
            assert!(!self.panics, "planted");
            false
        }
    }

    impl App for Planted {
        type State = ();
        type Idle = ();

        fn established(&mut self, _conn: &mut Conn<'_, ()>) {}
        fn received(&mut self, _conn: &mut Conn<'_, ()>, _data: &[u8]) {}
        fn peer_closed(&mut self, _conn: &mut Conn<'_, ()>) {}
        fn acknowledged(&mut self, _conn: &mut Conn<'_, ()>, _acked: u64) {}
        fn ended(&mut self, _now: Instant, _state: &mut (), _end: End) {}
        fn payload(&self, _state: &(), _offset: u64, _out: &mut [u8]) {}
    }

    /// Goal: of two workers on an interface one panics. The run ends with its number and the fault,
    /// what the other found holds, and the interface is as it was.
    #[test]
    fn a_worker_that_panics_leaves_the_others_results_and_a_clean_interface() {
        let pair = match Pair::make(2, 1500) {
            Ok(pair) if pin::cores().len() > 1 => pair,
            _ => return eprintln!("a_worker_that_panics: SKIPPED, needs root and two cores"),
        };
        let sides = pair.inside(0, || {
            let text = |failure: Failure| io::Error::other(format!("{failure:?}"));
            let mut stack = super::super::plan::tests::stack();
            stack.cpus = Some(pin::cores()[..2].to_vec());
            stack.subnets = vec![super::super::address::subnet("198.19.0.77/24").unwrap()];
            let (mode, queues, tx_checksum) = (Mode::Auto, None, TxChecksum::Auto);
            let site =
                Site { interface: "sda".into(), queues, mode, busy_poll: false, tx_checksum };
            let services = [super::super::plan::tests::service(80)];
            let nic = Nic::open(&site, &stack, &Part::Server(&services)).map_err(text)?;
            let run = Run::start(true).map_err(text)?;
            let board = Arc::new(Board::new(nic.workers()));
            let build = Build {
                app: &|share, _| Planted { panics: share.index == 1 },
                milestones: || Milestones { ready: |_| true, done: Planted::falls },
                found: |(finding, _)| Found {
                    server: Some((finding, Served::default())),
                    ..Found::default()
                },
            };
            let output = Output { json: None, pcap: None, quiet: true, verbose: false };
            let (duration, output) = (Some(Span::from_secs(10)), &output);
            let crew = Crew { stack: &stack, duration, output, run: &run, board: &board };
            let Manned { members, way, .. } = nic.members(&crew, &build).map_err(text)?;
            assert!(way.starts_with("AF_XDP copy on veth; queues 0-1 on cores "), "{way}");
            assert!(way.ends_with("is the kernel's (--busy-poll: ours)"), "{way}");
            run.crew(members, &board, output, None, Some(&mut nic.guard())).map_err(text)
        });
        let sides = sides.unwrap();
        let Ending::Fault(why) = &sides.ending else { panic!("{:?}", sides.ending) };
        assert!(why.starts_with("worker 1 panicked"), "{why}");
        assert!(sides.server.is_some());
        let show = || Command::new("ip").args(["-d", "link", "show", "sda"]).output();
        let link = pair.inside(0, show).unwrap().stdout;
        let link = String::from_utf8_lossy(&link);
        assert!(link.contains("sda") && !link.contains("xdp"), "{link}");
    }
}

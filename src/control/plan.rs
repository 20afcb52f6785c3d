//! What was asked for, whole and consistent: settings become a plan once, and nothing after asks
//! whether it makes sense.
//!
//! Errors are one sentence each, naming the flag to add or to change.

mod constants;
pub mod links;
mod site;

pub use self::site::Site;

use super::address;
use super::floor;
use super::rival_ring;
use super::settings::{
    Aim, CloseName, DirectionName, Impair, LinkName, Load, Network, Output, PeerName, Rig, Rival,
    Run, Serve, Tcp, WorkloadName,
};
use super::value::{AppName, Indices, Ports};
use crate::engine::{Listener, Subnet};
use crate::flow::tuples::{Range, Target};
use crate::tcp::{self, Keepalive};
use crate::time::Span;
use crate::wire::segment::Verify;
use std::net::IpAddr;

/// Connections at a time and core unless said otherwise: a quarter of a million, some tens of
/// megabytes.
const CONNECTIONS_MAX_DEFAULT: u32 = 256_000;

/// Connections open at a time in a closed loop: enough to keep two cores busy, and in their caches.
const CONNECTIONS_DEFAULT: u32 = 200;

/// Body of an HTTP response in bytes unless said otherwise: with its head, still one segment.
const RESPONSE_SIZE_DEFAULT: u64 = 100;

/// As every host's: IANA's recommendation (RFC 1122 s3.2.1.7 asks for a configurable one).
const TTL_DEFAULT: u8 = 64;

/// TIME-WAIT of a bench is twice this. Its two ends share one memory or one veth, where no segment
/// lives longer, and at a million connections a second 60 s of TIME-WAIT would be 60 million
/// entries.
const BENCH_MSL: Span = Span::from_millis(5);

/// What every engine of the run shares.
#[derive(Clone, Debug)]
pub struct Stack {
    pub subnets: Vec<Subnet>,
    /// At most one for each family and VLAN.
    pub gateways: Vec<IpAddr>,
    /// In bytes; the interface's if `None`.
    pub mtu: Option<u16>,
    /// And the hop limit of IPv6.
    pub ttl: u8,
    /// In bytes; the MTU less 40 if `None`.
    pub mss: Option<u16>,
    pub tcp: tcp::Config,
    pub keepalive: Option<Keepalive>,
    pub verify: Verify,
    /// Per core.
    pub connections_max: u32,
    pub cpus: Option<Vec<u32>>,
    pub drain: Span,
    pub seed: u64,
    pub sandbox: bool,
    pub impair: Option<Impair>,
}

/// One listening port and what serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    pub listener: Listener,
    pub app: AppName,
    /// Bytes of an HTTP response's body.
    pub response_size: u64,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq)]
pub struct Drive {
    pub targets: Vec<Target>,
    /// Source ports; all but the privileged if `None`.
    pub sport: Option<Ports>,
    pub host: String,
    pub path: String,
    pub workload: WorkloadName,
    pub rate: Option<f64>,
    pub connections: u32,
    /// Opened first, and held.
    pub held: u32,
    pub count: Option<u64>,
    pub duration: Option<Span>,
    pub close: CloseName,
    pub requests: u32,
    pub request_size: u64,
    /// What a response must hold; any size will do if `None`.
    pub response_size: Option<u64>,
    pub direction: DirectionName,
    /// Of a stream, each way; to the end of the run if `None`.
    pub bytes: Option<u64>,
}

/// `shakedown server`.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    pub site: Site,
    pub stack: Stack,
    pub services: Vec<Service>,
    /// Until a signal if `None`.
    pub duration: Option<Span>,
    pub output: Output,
}

/// `shakedown client`.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub site: Site,
    pub stack: Stack,
    pub drive: Drive,
    pub output: Output,
}

/// `shakedown bench`.
#[derive(Clone, Debug)]
pub struct BenchPlan {
    pub link: LinkName,
    pub threads: Option<u32>,
    pub peer: PeerName,
    pub compare: Vec<Rival>,
    /// Measure the stateless floor under it as well.
    pub floor: bool,
    pub stack: Stack,
    pub drive: Drive,
    pub service: Service,
    pub output: Output,
}

impl ServerPlan {
    /// # Errors
    /// What is missing or contradicts itself.
    pub fn new(
        network: Network,
        run: Run,
        serve: Serve,
        tcp: Tcp,
        impair: Impair,
        output: Output,
    ) -> Result<ServerPlan, String> {
        let Serve { listen, app, response_size, duration } = serve;
        let (site, stack) = site_and_stack(network, run, tcp, impair, &output)?;
        let services = services(&listen, app, response_size, stack.keepalive)?;
        Ok(ServerPlan { site, stack, services, duration, output })
    }
}

impl ClientPlan {
    /// # Errors
    /// What is missing or contradicts itself.
    pub fn new(
        network: Network,
        run: Run,
        aim: Aim,
        load: Load,
        tcp: Tcp,
        impair: Impair,
        output: Output,
    ) -> Result<ClientPlan, String> {
        let (site, stack) = site_and_stack(network, run, tcp, impair, &output)?;
        if aim.target.is_empty() {
            return Err("say where to connect: --target 10.0.0.2:80".to_string());
        }
        for target in &aim.target {
            links::reachable(target, &stack.subnets, &stack.gateways)?;
        }
        let drive = drive(aim, load, stack.connections_max)?;
        Ok(ClientPlan { site, stack, drive, output })
    }
}

impl BenchPlan {
    /// # Errors
    /// What contradicts itself.
    pub fn new(
        rig: Rig,
        run: Run,
        load: Load,
        tcp: Tcp,
        impair: Impair,
        output: Output,
    ) -> Result<BenchPlan, String> {
        let Rig { link, threads, peer, compare, floor, family } = rig;
        let (link, peer) = (link.unwrap_or_default(), peer.unwrap_or_default());
        match (link, threads, compare.is_empty()) {
            (LinkName::Memory, Some(odd @ 3..), _) if odd % 2 == 1 => {
                return Err("--link memory has two ends: --threads 1 or an even number".into());
            }
            (LinkName::Memory, Some(3..), _) if floor => {
                return Err("--floor in memory has two ends: --threads 1 or 2".to_string());
            }
            (LinkName::Memory, _, false) => {
                return Err("--compare needs --link veth: the kernel has no other".to_string());
            }
            (LinkName::Memory, ..) if peer == PeerName::Kernel => {
                return Err("--peer kernel needs --link veth: the kernel has no other".to_string());
            }
            (LinkName::Veth, Some(2..), _) if peer == PeerName::Kernel => {
                return Err("--peer kernel takes one thread of ours: --threads 1".to_string());
            }
            _ => {}
        }
        let most = run.max_connections.unwrap_or(CONNECTIONS_MAX_DEFAULT);
        let (client, server) = links::bench(family.unwrap_or_default(), most);
        let network = Network { addr: vec![client], ..Network::default() };
        let port = 80;
        let aim = Aim {
            target: vec![Target {
                addresses: Range::only(server),
                first_port: port,
                last_port: port,
            }],
            ..Aim::default()
        };
        let keepalive = run.keepalive;
        let stack = stack(network, run, tcp, impair, BENCH_MSL)?;
        let mut drive = drive(aim, load, stack.connections_max)?;
        rival_ring::suits(&compare, &drive)?;
        if floor {
            floor::suits(&drive, &stack, peer, &output)?;
        }
        let app = match (drive.workload, drive.response_size) {
            (WorkloadName::Handshake | WorkloadName::Hold, _) => AppName::Discard,
            (WorkloadName::Http, _) => AppName::Http,
            (WorkloadName::Stream, _) => AppName::Stream,
            (WorkloadName::Rr, Some(0)) => AppName::Discard,
            (WorkloadName::Rr, None) => AppName::Echo,
            (WorkloadName::Rr, Some(size)) if size == drive.request_size => AppName::Echo,
            (WorkloadName::Rr, Some(_)) => {
                return Err("rr in a bench: --response-size is that of the request, or 0".into());
            }
        };
        let response_size = drive.response_size.unwrap_or(match drive.workload {
            WorkloadName::Rr => drive.request_size,
            WorkloadName::Handshake
            | WorkloadName::Http
            | WorkloadName::Hold
            | WorkloadName::Stream => RESPONSE_SIZE_DEFAULT,
        });
        drive.response_size = Some(response_size);
        let listener = Listener { port, keepalive };
        let service = Service { listener, app, response_size };
        Ok(BenchPlan { link, threads, peer, compare, floor, stack, drive, service, output })
    }

    /// The server's address in a bench, alone on the client's subnet.
    pub fn server_subnet(&self) -> Subnet {
        Subnet::only(self.drive.targets[0].addresses.first, self.stack.subnets[0].prefix_len)
    }
}

fn site_and_stack(
    network: Network,
    run: Run,
    tcp: Tcp,
    impair: Impair,
    output: &Output,
) -> Result<(Site, Stack), String> {
    let site = Site::new(&network)?;
    let stack = stack(network, run, tcp, impair, tcp::Config::default().msl)?;
    site.suits(stack.impair.is_some(), output)?;
    Ok((site, stack))
}

fn stack(
    network: Network,
    run: Run,
    tcp: Tcp,
    impair: Impair,
    msl_default: Span,
) -> Result<Stack, String> {
    let Network {
        interface: _,
        addr,
        gateway,
        vlan,
        mtu,
        ttl,
        queues: _,
        mode: _,
        busy_poll: _,
        tx_checksum: _,
        no_verify_tcp_checksum,
    } = network;
    let Run { cpus, max_connections, drain, seed, keepalive, no_sandbox } = run;
    let connections_max = max_connections.unwrap_or(CONNECTIONS_MAX_DEFAULT);
    if connections_max == 0 {
        return Err("--max-connections 0 leaves nothing to do: at least 1".to_string());
    }
    let mss = tcp.tcp_mss;
    let subnets = links::subnets(addr, vlan, mtu)?;
    Ok(Stack {
        gateways: links::gateways(gateway, &subnets)?,
        subnets,
        mtu,
        ttl: ttl.unwrap_or(TTL_DEFAULT),
        mss,
        tcp: constants::config(tcp, msl_default)?,
        keepalive,
        verify: if no_verify_tcp_checksum { Verify::NotTcp } else { Verify::All },
        connections_max,
        cpus: cpus.map(|Indices(cpus)| cpus),
        drain: drain.unwrap_or(Span::from_secs(5)),
        seed: seed.unwrap_or_else(system_seed),
        sandbox: !no_sandbox,
        impair: asked(impair),
    })
}

fn services(
    listen: &[super::value::Listen],
    app_default: Option<AppName>,
    response_size_default: Option<u64>,
    keepalive_default: Option<Keepalive>,
) -> Result<Vec<Service>, String> {
    if listen.is_empty() {
        return Err("say which port to serve: --listen 80".to_string());
    }
    let mut services = Vec::new();
    let mut taken = vec![false; 65_536];
    for each in listen {
        for port in each.ports.iter() {
            if std::mem::replace(&mut taken[usize::from(port)], true) {
                return Err(format!("port {port} is listened on twice: give it one application"));
            }
            services.push(Service {
                listener: Listener { port, keepalive: each.keepalive.or(keepalive_default) },
                app: each.app.or(app_default).unwrap_or(AppName::Http),
                response_size: each
                    .response_size
                    .or(response_size_default)
                    .unwrap_or(RESPONSE_SIZE_DEFAULT),
            });
        }
    }
    Ok(services)
}

fn drive(aim: Aim, load: Load, connections_max: u32) -> Result<Drive, String> {
    let Aim { target: targets, sport, host, path } = aim;
    let Load {
        workload,
        rate,
        connections,
        held,
        duration,
        count,
        close,
        requests,
        request_size,
        response_size,
        direction,
        bytes,
    } = load;
    let held = held.unwrap_or(0);
    let workload = workload.unwrap_or_default();
    let connections = at_a_time(connections, rate, workload, held, connections_max)?;
    let (count, duration) = run_length(workload, bytes, connections, count, duration)?;
    let path = path.unwrap_or_else(|| "/".to_string());
    if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        return Err(format!("--path `{path}` must start with / and hold no space"));
    }
    let first = targets[0];
    let host = host.unwrap_or_else(|| {
        let http_port = 80;
        address::authority(first.addresses.first, first.first_port, http_port)
    });
    if host.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        return Err(format!("--host `{host}` must hold no space"));
    }
    let requests = requests.unwrap_or(1);
    if requests == 0 {
        return Err("--requests 0: for connections without any, take --workload handshake".into());
    }
    let request_size = request_size.unwrap_or(100);
    if workload == WorkloadName::Rr && request_size == 0 {
        return Err("--request-size 0: the server would never answer, at least 1".to_string());
    }
    Ok(Drive {
        targets,
        sport,
        host,
        path,
        workload,
        rate,
        connections,
        held,
        count,
        duration,
        close: close.unwrap_or_default(),
        requests,
        request_size,
        response_size,
        direction: direction.unwrap_or_default(),
        bytes,
    })
}

/// How many connections there are to be at a time, above those that are `held`.
fn at_a_time(
    asked: Option<u32>,
    rate: Option<f64>,
    workload: WorkloadName,
    held: u32,
    most: u32,
) -> Result<u32, String> {
    let connections = match (asked, rate) {
        (Some(connections), _) => connections,
        (None, Some(_)) => most.saturating_sub(held).max(1),
        (None, None) if workload == WorkloadName::Stream => 1,
        (None, None) => CONNECTIONS_DEFAULT.min(most),
    };
    if connections == 0 || connections > most {
        return Err(format!("-c {connections} must be from 1 to --max-connections, {most}"));
    }
    if connections.saturating_add(held) > most {
        let both = format!("--held {held} and -c {connections}");
        return Err(format!("{both} are more than --max-connections, {most}"));
    }
    Ok(connections)
}

/// How many connections there are to be, and for how long.
fn run_length(
    workload: WorkloadName,
    bytes: Option<u64>,
    connections: u32,
    count: Option<u64>,
    duration: Option<Span>,
) -> Result<(Option<u64>, Option<Span>), String> {
    if bytes == Some(0) {
        return Err("--bytes 0: a stream without a byte is --workload handshake".to_string());
    }
    let once = match (workload, bytes, duration) {
        (WorkloadName::Stream, Some(_), None) => Some(u64::from(connections)),
        _ => None,
    };
    let count = count.or(once);
    let ends = match workload {
        WorkloadName::Hold => true,
        // A count of streams without an end has none.
        WorkloadName::Stream => bytes.is_some() && count.is_some(),
        WorkloadName::Handshake | WorkloadName::Http | WorkloadName::Rr => count.is_some(),
    };
    Ok((count, duration.or((!ends).then(|| Span::from_secs(10)))))
}

/// The impairment, if any of it was asked for.
fn asked(impair: Impair) -> Option<Impair> {
    let Impair {
        impair_direction: _,
        impair_loss,
        impair_dup,
        impair_reorder,
        impair_corrupt,
        impair_delay,
        impair_jitter,
        impair_rate,
    } = impair;
    let any = impair_loss.is_some()
        || impair_dup.is_some()
        || impair_reorder.is_some()
        || impair_corrupt.is_some()
        || impair_delay.is_some()
        || impair_jitter.is_some()
        || impair_rate.is_some();
    any.then_some(impair)
}

/// 64 bits from the system's random source, by way of the standard library.
fn system_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            interface: Some("veth0".to_string()),
            addr: vec![address::subnet("10.0.0.1/24").unwrap()],
            ..Network::default()
        }
    }

    pub fn stack() -> Stack {
        let (run, tcp, impair) = (Run::default(), Tcp::default(), Impair::default());
        super::stack(network(), run, tcp, impair, BENCH_MSL).unwrap()
    }

    pub fn service(port: u16) -> Service {
        let listener = Listener { port, keepalive: None };
        Service { listener, app: AppName::Http, response_size: 100 }
    }

    fn client(aim: Aim, load: Load) -> Result<ClientPlan, String> {
        let (run, output) = (Run::default(), Output::default());
        ClientPlan::new(network(), run, aim, load, Tcp::default(), Impair::default(), output)
    }

    fn server(network: Network, listen: &[&str]) -> Result<ServerPlan, String> {
        let listen = listen.iter().map(|word| word.parse().unwrap()).collect();
        let serve = Serve { listen, ..Serve::default() };
        let run = Run { keepalive: Some(Keepalive::default()), ..Run::default() };
        ServerPlan::new(network, run, serve, Tcp::default(), Impair::default(), Output::default())
    }

    fn aim(target: &str) -> Aim {
        Aim { target: vec![address::target(target).unwrap()], ..Aim::default() }
    }

    #[test]
    fn what_is_missing_is_asked_for_by_its_flag() {
        assert!(server(Network::default(), &["80"]).unwrap_err().contains("-i eth1"));
        let no_addr = Network { addr: Vec::new(), ..network() };
        assert!(server(no_addr, &["80"]).unwrap_err().contains("--addr"));
        assert!(server(network(), &[]).unwrap_err().contains("--listen"));
        assert!(client(Aim::default(), Load::default()).unwrap_err().contains("--target"));
    }

    #[test]
    fn each_port_has_one_application_and_its_own_keepalive() {
        let plan = server(network(), &["80", "7000-7001=echo:keepalive=1s"]).unwrap();
        let apps: Vec<_> = plan.services.iter().map(|s| (s.listener.port, s.app)).collect();
        assert_eq!(apps, [(80, AppName::Http), (7000, AppName::Echo), (7001, AppName::Echo)]);
        assert_eq!(plan.services[0].listener.keepalive, Some(Keepalive::default()));
        assert_eq!(plan.services[1].listener.keepalive.unwrap().idle, Span::from_secs(1));
        let twice = server(network(), &["80-90", "85=echo"]).unwrap_err();
        assert!(twice.contains("port 85 is listened on twice"));
    }

    #[test]
    fn a_run_without_an_end_is_only_a_hold_or_a_count() {
        let with = |load: Load| client(aim("10.0.0.2:80"), load).unwrap().drive.duration;
        assert_eq!(with(Load::default()), Some(Span::from_secs(10)));
        assert_eq!(with(Load { count: Some(5), ..Load::default() }), None);
        let hold = Load { workload: Some(WorkloadName::Hold), ..Load::default() };
        assert_eq!(with(hold), None);
    }

    #[test]
    fn a_target_off_the_subnet_needs_a_gateway() {
        let error = client(aim("10.0.1.2:80"), Load::default()).unwrap_err();
        assert!(error.contains("--gateway"), "{error}");
        assert!(client(aim("10.0.0.2:80"), Load::default()).is_ok());
    }

    #[test]
    fn more_connections_than_fit_are_refused() {
        let load = Load { connections: Some(300_000), ..Load::default() };
        assert!(client(aim("10.0.0.2:80"), load).unwrap_err().contains("--max-connections"));
    }

    #[test]
    fn the_bench_serves_what_its_workload_asks_for() {
        let load = Load { workload: Some(WorkloadName::Rr), ..Load::default() };
        let rig = Rig::default();
        let (run, tcp) = (Run::default(), Tcp::default());
        let plan =
            BenchPlan::new(rig, run, load, tcp, Impair::default(), Output::default()).unwrap();
        assert_eq!(plan.service.app, AppName::Echo);
        assert_eq!(plan.stack.tcp.msl, BENCH_MSL);
    }

    #[test]
    fn a_stream_ends_with_its_bytes_or_with_the_run() {
        let plan = |bytes, count, duration, connections| {
            let workload = Some(WorkloadName::Stream);
            let load = Load { workload, bytes, count, duration, connections, ..Load::default() };
            let drive = client(aim("10.0.0.2:80"), load).unwrap().drive;
            (drive.count, drive.duration, drive.connections)
        };
        let seconds = |n| Some(Span::from_secs(n));
        assert_eq!(plan(None, None, None, None), (None, seconds(10), 1));
        assert_eq!(plan(Some(9), None, None, Some(3)), (Some(3), None, 3));
        assert_eq!(plan(Some(9), Some(8), None, Some(3)), (Some(8), None, 3));
        assert_eq!(plan(Some(9), None, seconds(2), None), (None, seconds(2), 1));
        assert_eq!(plan(None, Some(5), None, Some(5)), (Some(5), seconds(10), 5));
        let load = Load { bytes: Some(0), ..Load::default() };
        assert!(client(aim("10.0.0.2:80"), load).unwrap_err().contains("--bytes 0"));
    }
}

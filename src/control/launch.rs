//! One function a command: from its plan to its report.

use super::bench::Bench;
use super::bulk::Carried;
use super::clock::Clock;
use super::crew::{self, Ending, Found, Member, Watch};
use super::distance::Outcome;
use super::guard::Guard;
use super::homing::Homing;
use super::nic::{Build, Crew, Manned, Nic, Part};
use super::output::Report;
use super::plan::{BenchPlan, ClientPlan, ServerPlan, Stack};
use super::report::Side;
use super::rival;
use super::runner::{Milestones, Orders};
use super::sandbox::Sandbox;
use super::settings::{LinkName, Output, PeerName, WorkloadName};
use super::signals::Signals;
use super::veth::{Pair, Stage};
use super::{Failure, assemble, bulk, floor, memory, output, pin, summary};
use crate::app::client::Client;
use crate::app::results::{Results, Served};
use crate::app::server::Server;
use crate::engine::Config;
use crate::stats::publish::Board;
use crate::time::Span;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::sync::Arc;

/// How long a rival is measured when the bench itself ends by a count.
const RIVAL_DURATION: Span = Span::from_secs(5);

/// What the parts of one run share.
pub(super) struct Run {
    pub clock: Clock,
    pub signals: Signals,
    pub orders: Arc<Orders>,
    pub sandbox: Sandbox,
}

impl Run {
    pub fn start(sandbox: bool) -> Result<Run, Failure> {
        let signals = Signals::watch().map_err(|error| Failure::Run(error.to_string()))?;
        let (clock, orders) = (Clock::start(), Arc::new(Orders::default()));
        Ok(Run { clock, signals, orders, sandbox: Sandbox::new(sandbox)? })
    }

    /// What the workers of a bench with `rows` clients are made with.
    fn bench(&self, plan: &BenchPlan, rows: usize) -> Bench {
        Bench {
            plan: Arc::new(plan.clone()),
            clock: self.clock,
            orders: Arc::clone(&self.orders),
            board: Arc::new(Board::new(rows)),
            rss: None,
        }
    }

    /// Runs the members, showing `board` unless the output is to be quiet, and merges what they
    /// found.
    pub fn crew(
        &self,
        members: Vec<Member>,
        board: &Board,
        output: &Output,
        rate: Option<f64>,
        guard: Option<&mut Guard>,
    ) -> Result<Sides, Failure> {
        let board = output::shows_live(output).then_some(board);
        let (found, ending) = self.watched(members, board, guard)?;
        Ok(Sides::merge(found, rate, ending))
    }

    /// Runs a bench, with the floor under it if that is asked for.
    fn measured(
        &self,
        bench: &Bench,
        engine: impl Fn(&Bench) -> Result<Vec<Member>, Failure>,
        under: impl Fn(&floor::Under) -> Result<Vec<Member>, Failure>,
    ) -> Result<Sides, Failure> {
        let plan = &bench.plan;
        if plan.floor {
            return floor::interleave(self, bench, engine, under);
        }
        self.crew(engine(bench)?, &bench.board, &plan.output, plan.drive.rate, None)
    }

    /// What each of the members found, and how they came to their end.
    pub fn watched(
        &self,
        members: Vec<Member>,
        board: Option<&Board>,
        guard: Option<&mut Guard>,
    ) -> Result<(Vec<Found>, Ending), Failure> {
        let Run { clock, signals, orders, sandbox } = self;
        let watch = Watch { clock, signals, orders, sandbox, board };
        crew::run(members, &watch, guard).map_err(Failure::Run)
    }
}

/// Both ends of a run, as far as they were ours.
pub(super) struct Sides {
    pub client: Option<Side>,
    pub server: Option<Side>,
    pub kernel: Option<Carried>,
    /// The floor that was measured between the slices of the run.
    pub floor: Option<Outcome>,
    pub ending: Ending,
}

impl Sides {
    pub fn merge(found: Vec<Found>, rate: Option<f64>, ending: Ending) -> Sides {
        let (mut clients, mut results) = (Vec::new(), Results::default());
        let (mut servers, mut served) = (Vec::new(), Served::default());
        let mut kernel_served = None;
        for Found { client, server, kernel, floor: _ } in found {
            kernel_served = kernel_served.or(kernel);
            if let Some((finding, of_one)) = client {
                results.merge(&of_one);
                clients.push(finding);
            }
            if let Some((finding, of_one)) = server {
                served.merge(&of_one);
                servers.push(finding);
            }
        }
        for error in clients.iter().chain(&servers).filter_map(|f| f.pcap_error.as_ref()) {
            eprintln!("shakedown: the recording is incomplete: {error}");
        }
        Sides {
            client: Side::client(&clients, rate, &results),
            server: Side::server(&servers, &served),
            kernel: kernel_served,
            floor: None,
            ending,
        }
    }

    /// A verdict, unless something went wrong that was more than a poor result.
    fn judged(&self, verdict: Result<String, String>) -> Result<String, String> {
        match &self.ending {
            Ending::Own | Ending::Signal => verdict,
            Ending::Fault(fault) => Err(fault.clone()),
        }
    }

    /// Why there is no side to report on.
    fn nothing(&self) -> Failure {
        let none = Err("a run without workers: a bug".to_string());
        Failure::Run(self.judged(none).unwrap_or_else(|why| why))
    }
}

/// `shakedown server`.
///
/// # Errors
/// What the interface or this machine can't do; a signal before the end of its `--duration`.
/// Without one, a signal is its end.
pub fn server(plan: &ServerPlan) -> Result<(), Failure> {
    let report = Report::open(&plan.output)?;
    let nic = Nic::open(&plan.site, &plan.stack, &Part::Server(&plan.services))?;
    let run = Run::start(plan.stack.sandbox)?;
    let board = Arc::new(Board::new(nic.workers()));
    let app = |_, config: &mut Config| {
        let (listeners, app) = assemble::server(&plan.services, config.connections_max);
        config.listeners = listeners;
        app
    };
    let found = |(finding, app): (_, Server)| Found {
        server: Some((finding, *app.served())),
        ..Found::default()
    };
    let build = Build { app: &app, milestones: Milestones::server, found };
    let (stack, duration, output) = (&plan.stack, plan.duration, &plan.output);
    let crew = Crew { stack, duration, output, run: &run, board: &board };
    let Manned { members, memory, way } = nic.members(&crew, &build)?;
    let ports = plan.services.iter().map(|service| u32::from(service.listener.port));
    run.sandbox.drop_privileges(nic.gives_back())?;
    let line = format!(
        "serving on {}, ports {}; at most {} MiB of memory\n{way}",
        plan.site.interface,
        listed(ports),
        memory.div_ceil(1 << 20)
    );
    say(&plan.output, &line);
    let mut guard = nic.guard();
    let sides = run.crew(members, &board, &plan.output, None, Some(&mut guard))?;
    let side = sides.server.as_ref().ok_or_else(|| sides.nothing())?;
    let verdict = sides.judged(Ok(summary::server_verdict(side)));
    finish((&plan.stack, memory), report, ("server", side), (nic.homing(), &guard), &verdict)?;
    output::end(verdict, sides.ending == Ending::Signal && plan.duration.is_some())
}

/// `shakedown client`.
///
/// # Errors
/// What the interface or this machine can't do; nobody answered; a signal before the end of its
/// `--duration` or `--count`. Without either, a signal is its end.
pub fn client(plan: &ClientPlan) -> Result<(), Failure> {
    let (drive, stack) = (&plan.drive, &plan.stack);
    let report = Report::open(&plan.output)?;
    let nic = Nic::open(&plan.site, stack, &Part::Client(drive))?;
    let run = Run::start(plan.stack.sandbox)?;
    let board = Arc::new(Board::new(nic.workers()));
    let sport = drive.sport.unwrap_or(nic.sport_default());
    let app = |share, config: &mut Config| {
        let rss = nic.homing().rss();
        config.ranges = Some(assemble::ranges(&stack.subnets, drive, sport, share, rss));
        assemble::client(drive, stack, share)
    };
    let found = |(finding, app): (_, Client)| Found {
        client: Some((finding, app.results().clone())),
        ..Found::default()
    };
    let build = Build { app: &app, milestones: Milestones::client, found };
    let (duration, output) = (drive.duration, &plan.output);
    let crew = Crew { stack, duration, output, run: &run, board: &board };
    let Manned { members, memory, way } = nic.members(&crew, &build)?;
    run.sandbox.drop_privileges(nic.gives_back())?;
    say(&plan.output, &way);
    let mut guard = nic.guard();
    let sides = run.crew(members, &board, &plan.output, drive.rate, Some(&mut guard))?;
    let side = sides.client.as_ref().ok_or_else(|| sides.nothing())?;
    let verdict = sides.judged(summary::client_verdict(side));
    finish((stack, memory), report, ("client", side), (nic.homing(), &guard), &verdict)?;
    let has_end = drive.duration.is_some() || drive.count.is_some();
    output::end(verdict, sides.ending == Ending::Signal && has_end)
}

/// Reports a run of one side.
fn finish(
    (stack, memory): (&Stack, usize),
    report: Report<'_>,
    (name, side): (&'static str, &Side),
    (homing, guard): (&Homing, &Guard),
    verdict: &Result<String, String>,
) -> Result<(), Failure> {
    let mut sections = Map::new();
    sections.insert("settings".into(), settings(stack, memory));
    sections.insert("rss".into(), homing.name(side).into());
    sections.insert("interface".into(), guard.json());
    sections.insert(name.into(), side.json());
    let mut notes = vec![summary::time_wait(stack.tcp.msl)];
    notes.extend(homing.note(side));
    let text = output::Text { verdict, sides: &[(name, side)], notes: &notes };
    report.write(name, &text, sections)
}

/// What is needed to repeat the run, and to make room for it.
fn settings(stack: &Stack, memory: usize) -> Value {
    json!({
        "seed": stack.seed,
        "time_wait_seconds": stack.tcp.msl.times(2).as_secs_f64(),
        "connections_max_per_core": stack.connections_max,
        "memory_bytes_max": memory,
    })
}

/// A line for people, if there are any.
pub(super) fn say(output: &Output, line: &str) {
    if output::shows_live(output) {
        // A closed pipe must not stop a run.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// `80, 443, 8000-8009`.
pub(super) fn listed(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let text = |(first, last)| match first == last {
        true => format!("{first}"),
        false => format!("{first}-{last}"),
    };
    parts.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

/// `shakedown bench`.
///
/// # Errors
/// The ends disagree, a signal came first, or what the link can't do here.
pub fn bench(plan: &BenchPlan) -> Result<(), Failure> {
    let cores = plan.stack.cpus.clone().unwrap_or_else(pin::cores);
    let threads = match (plan.threads, plan.link) {
        (Some(threads), _) => threads as usize,
        (None, LinkName::Memory) => 1,
        // A core without a connection has nothing to do.
        (None, LinkName::Veth) => cores.len().min(plan.drive.connections as usize),
    };
    // Beyond two, threads on a link in memory make way for each other.
    let enough = cores.len() >= threads || (plan.link == LinkName::Memory && threads > 2);
    if cores.is_empty() || !enough {
        return Err(Failure::Environment(format!(
            "{threads} threads need as many cores, and there are {}: --threads, or --cpus",
            cores.len()
        )));
    }
    let report = Report::open(&plan.output)?;
    let run = Run::start(plan.stack.sandbox)?;
    match plan.link {
        LinkName::Memory => bench_memory(plan, report, &run, threads, &cores),
        LinkName::Veth if plan.peer == PeerName::Kernel => bench_veth(plan, report, &run, &cores),
        LinkName::Veth => bench_veth(plan, report, &run, &cores[..threads]),
    }
}

fn bench_memory(
    plan: &BenchPlan,
    report: Report<'_>,
    run: &Run,
    threads: usize,
    cores: &[u32],
) -> Result<(), Failure> {
    let bench = run.bench(plan, threads.div_ceil(2));
    let members = |bench: &Bench| match (threads, cores) {
        (1, &[core, ..]) => Ok(memory::one_thread(bench.clone(), core)),
        (2, &[first, second, ..]) => {
            memory::two_threads(bench, [first, second]).map_err(Failure::Run)
        }
        (threads, cores) => memory::many_threads(bench, threads, cores).map_err(Failure::Run),
    };
    // The plan has no floor under more than two threads.
    let floor_cores = &cores[..threads.min(cores.len())];
    let under = |under: &floor::Under| memory::floor(under, floor_cores).map_err(Failure::Run);
    let sides = run.measured(&bench, members, under)?;
    finish_bench(plan, report, &sides, Comparison::default())
}

fn bench_veth(
    plan: &BenchPlan,
    report: Report<'_>,
    run: &Run,
    cores: &[u32],
) -> Result<(), Failure> {
    let queues = if plan.peer == PeerName::Kernel { 1 } else { cores.len() };
    let bench = run.bench(plan, queues);
    let pair = Pair::make(queues, bench.mtu())?;
    if plan.peer == PeerName::Kernel {
        bulk::prepare(&pair, plan)?;
    }
    let stage = Stage::set(&pair, plan)?;
    say(
        &plan.output,
        &match plan.peer {
            PeerName::Ours => {
                format!(
                    "client and server over AF_XDP on a veth pair, cores {cores:?}, which do the \
                     interfaces' interrupt work by busy polling"
                )
            }
            PeerName::Kernel => {
                format!("client over AF_XDP, server on kernel sockets, cores {cores:?}")
            }
        },
    );
    let members = |bench: &Bench| stage.members(&pair, bench, cores);
    let under = |under: &floor::Under| stage.floor(&pair, under, cores);
    let sides = run.measured(&bench, members, under)?;
    drop(stage);
    let mut comparison = Comparison::default();
    if !plan.compare.is_empty() && sides.ending == Ending::Own {
        say(&plan.output, "the kernel's own sockets on the same veth");
        comparison = compare(plan, run, &pair, &sides, cores)?;
    }
    finish_bench(plan, report, &sides, comparison)
}

/// How a rival did.
#[derive(Default)]
struct Comparison {
    json: Value,
    notes: Vec<String>,
}

fn compare(
    plan: &BenchPlan,
    run: &Run,
    pair: &Pair,
    sides: &Sides,
    cores: &[u32],
) -> Result<Comparison, Failure> {
    let client = sides.client.as_ref().ok_or_else(|| sides.nothing())?;
    let duration = plan.drive.duration.unwrap_or(RIVAL_DURATION);
    if plan.drive.workload != WorkloadName::Stream {
        let ours = client.handshakes_per_second();
        let (mut found, mut notes) = (Vec::new(), Vec::new());
        for &rival in &plan.compare {
            let outcome =
                rival::measure(rival, pair, plan, cores, duration, &run.clock, &run.signals);
            let outcome = outcome.map_err(|error| Failure::Run(error.to_string()))?;
            found.push(outcome.json(ours));
            notes.push(outcome.note(ours));
        }
        let json = if let [_] = *found { found.remove(0) } else { found.into() };
        return Ok(Comparison { json, notes });
    }
    let outcomes = bulk::measure(pair, plan, cores, &run.clock, &run.signals)?;
    Ok(Comparison {
        json: outcomes.iter().map(|outcome| outcome.json(client)).collect(),
        notes: outcomes.iter().map(|outcome| outcome.note(client)).collect(),
    })
}

/// Reports a bench and judges it.
fn finish_bench(
    plan: &BenchPlan,
    report: Report<'_>,
    sides: &Sides,
    comparison: Comparison,
) -> Result<(), Failure> {
    let client = sides.client.as_ref().ok_or_else(|| sides.nothing())?;
    let impaired = plan.stack.impair.is_some();
    let mut shown = vec![("client", client)];
    shown.extend(sides.server.as_ref().map(|server| ("server", server)));
    let verdict = match (&sides.server, &sides.kernel) {
        (Some(server), _) => summary::reconcile(client, server, impaired),
        (None, Some(kernel)) => kernel.reconcile(client),
        (None, None) => return Err(sides.nothing()),
    };
    let verdict = sides.judged(verdict);
    let mut sections = Map::new();
    sections.insert(
        "settings".into(),
        json!({
            "seed": plan.stack.seed,
            "time_wait_seconds": plan.stack.tcp.msl.times(2).as_secs_f64(),
        }),
    );
    let mut notes = vec![summary::time_wait(plan.stack.tcp.msl)];
    let (mut syscalls, mut all_counted) = (0, true);
    for (name, side) in &shown {
        sections.insert((*name).into(), side.json());
        match side.device_counter("syscalls_total") {
            Some(made) => syscalls += made,
            None => all_counted = false,
        }
    }
    if let Some(kernel) = &sides.kernel {
        sections.insert("kernel".into(), kernel.json());
    }
    if all_counted {
        let each = syscalls as f64 / client.opened().max(1) as f64;
        sections.insert("syscalls_per_connection".into(), json!(each));
        notes.push(format!("{each:.3} syscalls a connection, all our ends together"));
    }
    if !comparison.json.is_null() {
        sections.insert("comparison".into(), comparison.json);
    }
    if let Some(floor) = &sides.floor {
        sections.insert("floor".into(), floor.json());
        notes.push(floor.note());
    }
    notes.extend(comparison.notes);
    let text = output::Text { verdict: &verdict, sides: &shown, notes: &notes };
    report.write("bench", &text, sections)?;
    output::end(verdict, sides.ending == Ending::Signal)
}

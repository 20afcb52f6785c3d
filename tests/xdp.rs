//! The AF_XDP device on a real veth pair: frames both ways, who gets what, and what is left when it goes.

mod common;

use common::{End, Lab};
use shakedown::device::Device;
use shakedown::device::steering::Steering;
use shakedown::device::xdp::{self, Mode, Options, Program, Xdp};
use shakedown::frame::{Burst, Pool};
use shakedown::time::Instant;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 100);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 200);
const RING_FRAMES: u32 = 512;

/// One end: a device with its frames, turned by hand.
struct Station {
    dev: Xdp,
    pool: Pool,
    rx: Burst,
    tx: Burst,
    frames: usize,
}

impl Station {
    fn open(
        lab: &Lab,
        end: End,
        addr: Ipv4Addr,
        queues: &[u32],
        busy_poll: bool,
    ) -> io::Result<Station> {
        lab.inside(end, || {
            let program = Program::attach(end.interface(), &only(addr), Mode::Auto)?;
            Station::on(&std::sync::Arc::clone(&program), queues, busy_poll)
        })
    }

    fn on(
        program: &std::sync::Arc<Program>,
        queues: &[u32],
        busy_poll: bool,
    ) -> io::Result<Station> {
        let frames = xdp::frames_for(queues.len(), RING_FRAMES);
        let mut pool = Pool::new(frames)?;
        let options = Options { ring_frames: RING_FRAMES, busy_poll };
        let dev = Xdp::open(program, queues, &options, &mut pool)?;
        Ok(Station { dev, pool, rx: Burst::new(), tx: Burst::new(), frames: frames as usize })
    }

    fn receive(&mut self) {
        self.dev.rx(Instant::ZERO, &mut self.pool, &mut self.rx);
        self.check();
    }

    fn send(&mut self) {
        self.dev.tx(Instant::ZERO, &mut self.pool, &mut self.tx);
        self.check();
    }

    /// Law 1: every frame is in the pool, in a burst, or with the device.
    fn check(&self) {
        let total = self.pool.len() + self.rx.len() + self.tx.len() + self.dev.lent();
        assert_eq!(total, self.frames);
    }

    fn counter(&self, name: &str) -> u64 {
        let report = self.dev.report();
        report.counters.iter().find(|(known, _)| *known == name).expect(name).1
    }
}

fn only(addr: Ipv4Addr) -> Steering {
    Steering { ours: vec![(addr, addr)], ..Steering::default() }
}

/// An IPv4 frame to `dst` of an experimental protocol, with a number in it. Only the steering program looks at it.
fn write_numbered(bytes: &mut [u8], dst: Ipv4Addr, number: u64) {
    bytes.fill(0);
    bytes[..6].fill(0xff);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[23] = 253;
    bytes[30..34].copy_from_slice(&dst.octets());
    bytes[34..42].copy_from_slice(&number.to_be_bytes());
}

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[34..42].try_into().unwrap())
}

/// `near` sends numbered frames, `far` checks the order and returns each frame, until `count` came back.
fn ping_pong(near: &mut Station, far: &mut Station, count: u64) {
    const WINDOW: u64 = 128;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let (mut sent, mut turned, mut returned) = (0, 0, 0);
    while returned < count {
        assert!(std::time::Instant::now() < deadline, "{sent} {turned} {returned}");
        while sent < count && sent - returned < WINDOW && near.tx.room() > 0 {
            let mut frame = near.pool.take().unwrap();
            frame.reset(60 + (sent % 1400) as usize);
            write_numbered(frame.bytes_mut(), FAR, sent);
            near.tx.push(frame);
            sent += 1;
        }
        near.send();
        far.receive();
        for mut frame in far.rx.drain(far.rx.len().min(far.tx.room())) {
            assert_eq!(number_of(frame.bytes()), turned);
            assert_eq!(frame.bytes().len(), 60 + (turned % 1400) as usize);
            write_numbered(frame.bytes_mut(), NEAR, turned);
            far.tx.push(frame);
            turned += 1;
        }
        far.send();
        near.receive();
        for frame in near.rx.drain(near.rx.len()) {
            assert_eq!(number_of(frame.bytes()), returned);
            near.pool.put(frame);
            returned += 1;
        }
    }
}

#[test]
fn every_frame_arrives_in_order_both_ways_and_none_is_lost_from_the_ledger() {
    let Some(lab) = Lab::new("order") else { return };
    let mut near = Station::open(&lab, End::Near, NEAR, &[0], false).unwrap();
    let mut far = Station::open(&lab, End::Far, FAR, &[0], false).unwrap();
    ping_pong(&mut near, &mut far, 100_000);
    assert_eq!((near.dev.report().mode, near.dev.report().driver.as_str()), ("copy", "veth"));
    for station in [&near, &far] {
        for counter in ["rx_dropped", "rx_ring_full", "spoiled_descs_total", "tx_invalid_descs"] {
            assert_eq!(station.counter(counter), 0, "{counter}");
        }
        let kicks = station.counter("tx_kicks_total");
        assert!(kicks > 0 && kicks < 100_000, "{kicks} kicks for 100,000 frames");
        assert_eq!(station.counter("syscalls_total"), kicks);
    }
}

#[test]
fn two_queues_of_one_worker_are_both_served() {
    let Some(lab) = Lab::with_queues("queues", 2) else { return };
    let mut near = Station::open(&lab, End::Near, NEAR, &[0, 1], false).unwrap();
    let program = lab.inside(End::Far, || Program::attach("far0", &only(FAR), Mode::Copy)).unwrap();
    // Two workers over there, so that frames come on both queues here.
    let mut far = [0, 1]
        .map(|queue| lab.inside(End::Far, || Station::on(&program, &[queue], false)).unwrap());
    let mut seen = [0u64; 2];
    for round in 0..1000 {
        for (index, station) in far.iter_mut().enumerate() {
            let mut frame = station.pool.take().unwrap();
            frame.reset(60);
            write_numbered(frame.bytes_mut(), NEAR, round * 2 + index as u64);
            station.tx.push(frame);
            station.send();
            station.receive();
        }
        near.receive();
        for frame in near.rx.drain(near.rx.len()) {
            seen[number_of(frame.bytes()) as usize % 2] += 1;
            near.pool.put(frame);
        }
        near.send();
    }
    assert_eq!(seen, [1000, 1000]);
}

#[test]
fn both_ends_learn_to_poll_from_each_others_hello_whichever_comes_first() {
    let Some(lab) = Lab::with_queues("hello", 2) else { return };
    let _quiet = [End::Near, End::Far]
        .map(|end| lab.inside(end, || xdp::Deferral::start(end.interface())).unwrap());
    // Queue 1, so that a hello must keep to its queue; no address, so that it needs none.
    lab.ip(End::Near, &["addr", "flush", "dev", "near0"]);
    let mut near = Station::open(&lab, End::Near, NEAR, &[1], true).unwrap();
    for _ in 0..20_000 {
        near.send();
        near.receive();
    }
    assert!(!near.dev.busy_polls(), "nobody is there yet");
    let mut far = Station::open(&lab, End::Far, FAR, &[1], true).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !(near.dev.busy_polls() && far.dev.busy_polls()) {
        assert!(std::time::Instant::now() < deadline, "no hello was heard");
        for station in [&mut near, &mut far] {
            station.send();
            station.receive();
        }
    }
    ping_pong(&mut near, &mut far, 100_000);
    assert!(near.counter("busy_polls_total") > 0 && far.counter("busy_polls_total") > 0);
}

#[test]
fn deferral_is_undone_when_it_is_dropped() {
    let Some(lab) = Lab::new("defer") else { return };
    let rounds = || {
        let file = "/sys/class/net/near0/napi_defer_hard_irqs";
        let output = lab.command(End::Near, "cat").arg(file).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(rounds(), "0\n");
    let deferral = lab.inside(End::Near, || xdp::Deferral::start("near0")).unwrap();
    assert_eq!(rounds(), "100\n");
    drop(deferral);
    assert_eq!(rounds(), "0\n");
    let error = lab.inside(End::Near, || xdp::Deferral::start("nothere0")).err().unwrap();
    assert!(error.to_string().contains("nothere0"), "{error}");
}

#[test]
fn the_kernels_own_connections_go_on_meanwhile() {
    use std::io::{Read, Write};
    let Some(lab) = Lab::new("ssh") else { return };
    let mut near = Station::open(&lab, End::Near, NEAR, &[0], false).unwrap();
    let mut far = Station::open(&lab, End::Far, FAR, &[0], false).unwrap();
    let listener =
        lab.inside(End::Far, || std::net::TcpListener::bind((End::Far.addr(), 22))).unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 1000];
        for _ in 0..500 {
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    });
    let mut stream =
        lab.inside(End::Near, || std::net::TcpStream::connect((End::Far.addr(), 22))).unwrap();
    let kernel = std::thread::spawn(move || {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for round in 0..500 {
            let mut bytes = [0; 1000];
            stream.write_all(&[round as u8; 1000]).unwrap();
            stream.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, [round as u8; 1000]);
        }
    });
    ping_pong(&mut near, &mut far, 50_000);
    kernel.join().unwrap();
    echo.join().unwrap();
    assert_eq!((near.rx.len(), far.rx.len()), (0, 0), "nothing of the kernel's came to us");
}

#[test]
fn socket_buffer_mode_is_taken_when_asked_for_and_said() {
    let Some(lab) = Lab::new("skb") else { return };
    let station = |end: End, addr| {
        lab.inside(end, || {
            let program = Program::attach(end.interface(), &only(addr), Mode::Skb)?;
            Station::on(&program, &[0], false)
        })
    };
    let mut near = station(End::Near, NEAR).unwrap();
    let mut far = station(End::Far, FAR).unwrap();
    ping_pong(&mut near, &mut far, 10_000);
    assert_eq!((near.dev.report().mode, far.dev.report().mode), ("skb", "skb"));
}

/// The text of an error of attaching to, or of opening queues of, near0.
fn refusal(lab: &Lab, interface: &str, steering: &Steering, mode: Mode, queues: &[u32]) -> String {
    let result = lab.inside(End::Near, || {
        Program::attach(interface, steering, mode)
            .and_then(|program| Station::on(&program, queues, false))
    });
    result.err().expect("it should be refused").to_string()
}

#[test]
fn what_can_not_be_opened_is_refused_with_what_to_do() {
    let Some(lab) = Lab::new("refuse") else { return };
    let steering = only(NEAR);
    let expect = |text: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| text.contains(part)), "{text:?} lacks one of {parts:?}");
    };
    expect(refusal(&lab, "eth9", &steering, Mode::Auto, &[0]), &["no interface \"eth9\"", "near0"]);
    expect(
        refusal(&lab, "near0", &steering, Mode::Auto, &[0, 1]),
        &["queue 1 of near0 does not exist: it has 1 (0-0)", "ethtool -L near0"],
    );
    expect(
        refusal(&lab, "near0", &steering, Mode::ZeroCopy, &[0]),
        &["bind queue 0", "near0", "--mode auto"],
    );
    let all = (Ipv4Addr::new(10, 99, 0, 0), Ipv4Addr::new(10, 99, 0, 255));
    expect(
        refusal(
            &lab,
            "near0",
            &Steering { ours: vec![all], ..Steering::default() },
            Mode::Auto,
            &[0],
        ),
        &["10.99.0.1 is the kernel's own address on near0", "ip addr del 10.99.0.1/24 dev near0"],
    );
    lab.ip(End::Near, &["link", "set", "near0", "down"]);
    expect(refusal(&lab, "near0", &steering, Mode::Auto, &[0]), &["ip link set near0 up"]);
    lab.ip(End::Near, &["link", "set", "near0", "up"]);

    let program =
        lab.inside(End::Near, || Program::attach("near0", &steering, Mode::Auto)).unwrap();
    expect(
        refusal(&lab, "near0", &steering, Mode::Auto, &[0]),
        &["near0 has an XDP program already (id ", "ip link set dev near0 xdp off"],
    );
    let first = lab.inside(End::Near, || Station::on(&program, &[0], false)).unwrap();
    let again = lab.inside(End::Near, || Station::on(&program, &[0], false)).err().unwrap();
    assert_eq!(again.kind(), io::ErrorKind::ResourceBusy);
    expect(again.to_string(), &["queue 0 of near0", "another AF_XDP socket has it"]);
    drop(first);
    lab.inside(End::Near, || Station::on(&program, &[0], false)).unwrap();
}

fn is_attached(lab: &Lab, end: End) -> bool {
    lab.ip(end, &["link", "show", "dev", end.interface()]).contains("xdp")
}

/// Waits until no program is attached. Not quite at once: a test beside this one may have forked, and its child holds a
/// copy of every descriptor until it runs another program.
fn assert_detaches(lab: &Lab, end: End) {
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    while is_attached(lab, end) {
        assert!(std::time::Instant::now() < deadline, "still attached");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_program_is_detached_with_the_last_that_uses_it() {
    let Some(lab) = Lab::new("detach") else { return };
    let program =
        lab.inside(End::Near, || Program::attach("near0", &only(NEAR), Mode::Auto)).unwrap();
    let station = lab.inside(End::Near, || Station::on(&program, &[0], false)).unwrap();
    drop(program);
    assert!(is_attached(&lab, End::Near));
    drop(station);
    assert_detaches(&lab, End::Near);
}

/// Not a test: the process that the next one kills. It opens near0 of the namespace named in its environment.
#[test]
#[ignore = "run by a_killed_process_leaves_a_clean_interface in a process of its own"]
fn hold_until_killed() {
    let Ok(namespace) = std::env::var("SHAKEDOWN_TEST_HOLD") else { return };
    shakedown::sys::netns::Namespace::open(&namespace).unwrap().enter().unwrap();
    let program = Program::attach("near0", &only(NEAR), Mode::Auto).unwrap();
    let _station = Station::on(&program, &[0], false).unwrap();
    common::say("holding");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_a_clean_interface() {
    use std::io::BufRead;
    let Some(lab) = Lab::new("kill") else { return };
    let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "hold_until_killed"])
        .env("SHAKEDOWN_TEST_HOLD", lab.namespace(End::Near))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = io::BufReader::new(holder.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    assert_eq!((said.as_str(), is_attached(&lab, End::Near)), ("holding", true));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_detaches(&lab, End::Near);
    // At once, while the kernel may still be tearing the dead socket down.
    let mut near = Station::open(&lab, End::Near, NEAR, &[0], false).unwrap();
    let mut far = Station::open(&lab, End::Far, FAR, &[0], false).unwrap();
    ping_pong(&mut near, &mut far, 1000);
}

//! The AF_XDP device on a real veth pair: frames both ways, who gets what, and what is left when it
//! goes.

mod common;

use common::station::{FAR, NEAR, number_of, only, ping_pong, write_numbered};
use common::vlan::{FAR_ADDR, VLAN};
use common::{End, Lab, say};
use shakedown::device::Device;
use shakedown::device::steering::{Reach, Steering};
use shakedown::device::xdp::{self, Mode, Options, Program, Sums, Xdp};
use shakedown::frame::Pool;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

const RING_FRAMES: u32 = 512;

type Station = common::station::Station<Xdp>;

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
        let options = Options { ring_frames: RING_FRAMES, busy_poll, ..Options::default() };
        Station::with(program, queues, &options)
    }

    fn with(
        program: &std::sync::Arc<Program>,
        queues: &[u32],
        options: &Options,
    ) -> io::Result<Station> {
        let frames = xdp::frames_for(queues.len(), options.ring_frames);
        let mtu = program.interface().mtu as u16;
        let mut pool = Pool::for_mtu(frames, mtu)?;
        let dev = Xdp::open(program, queues, options, &mut pool)?;
        Ok(Station::new(dev, pool, frames))
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
fn jumbo_frames_cross_in_fragments_and_arrive_whole_and_in_order() {
    let Some(lab) = Lab::new("jumbo") else { return };
    for end in [End::Near, End::Far] {
        lab.ip(end, &["link", "set", end.interface(), "mtu", "9000"]);
    }
    let mut near = Station::open(&lab, End::Near, NEAR, &[0], false).unwrap();
    let mut far = Station::open(&lab, End::Far, FAR, &[0], false).unwrap();
    assert_eq!((near.dev.report().mode, far.dev.report().mode), ("copy", "copy"));
    // Around what one fragment holds, and the longest.
    let lens = [60, 1514, 3840, 3841, 4032, 4033, 4096, 8064, 8065, 9014];
    let (mut sent, mut seen) = (0, 0);
    while seen < 5000 {
        while sent < 5000 && sent < seen + 32 && near.tx.room() > 0 {
            let Some(mut frame) = near.pool.take() else { break };
            frame.reset(lens[sent % lens.len()]);
            frame.bytes_mut().fill(sent as u8);
            write_numbered(&mut frame.bytes_mut()[..60], FAR, sent as u64);
            near.tx.push(frame);
            sent += 1;
        }
        near.send();
        near.receive();
        far.receive();
        for frame in far.rx.drain(far.rx.len()) {
            assert_eq!(frame.bytes().len(), lens[seen % lens.len()], "frame {seen}");
            assert_eq!(number_of(frame.bytes()), seen as u64);
            assert!(frame.bytes()[60..].iter().all(|&byte| byte == seen as u8));
            seen += 1;
            far.pool.put(frame);
        }
        far.send();
    }
    for station in [&near, &far] {
        for counter in ["rx_dropped", "rx_ring_full", "rx_too_long_total", "tx_invalid_descs"] {
            assert_eq!(station.counter(counter), 0, "{counter}");
        }
    }
}

/// Goal: a frame whose checksum is left to the device crosses as it was written, since a veth is no
/// wire, and one whose checksum is whole beside it is left alone.
#[test]
fn a_checksum_left_to_the_device_is_asked_for_and_the_frame_is_not_changed() {
    let Some(lab) = Lab::new("sums") else { return };
    let open = |end: End, addr, sums| {
        lab.inside(end, || {
            let program = Program::attach(end.interface(), &only(addr), Mode::Auto).unwrap();
            let options = Options { sums, ..Options::default() };
            Station::with(&program, &[0], &options)
        })
    };
    let mut near = open(End::Near, NEAR, Sums::Device).unwrap();
    let mut far = open(End::Far, FAR, Sums::Auto).unwrap();
    assert_eq!((near.dev.report().sums, far.dev.report().sums), (true, false));
    for number in 0..1000 {
        let mut frame = near.pool.take().unwrap();
        frame.reset(100);
        frame.bytes_mut().fill(number as u8);
        write_numbered(&mut frame.bytes_mut()[..60], FAR, number);
        if number % 2 == 0 {
            frame.leave_unsummed(34);
        }
        let sent = frame.bytes().to_vec();
        near.tx.push(frame);
        let mut seen: Vec<u8> = Vec::new();
        while seen.is_empty() {
            near.send();
            near.receive();
            far.receive();
            for frame in far.rx.drain(far.rx.len()) {
                seen.extend(frame.bytes());
                far.pool.put(frame);
            }
            far.send();
        }
        assert_eq!(seen, sent, "frame {number}");
    }
    assert_eq!(near.counter("tx_invalid_descs"), 0);
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

/// Goal: the far kernel leaves the tag beside the frame, where a program sees none. It is put back,
/// so the frame is told from an untagged one to the same address.
#[test]
fn a_tag_that_the_peer_left_beside_the_frame_is_put_back() {
    let Some(lab) = Lab::new("beside") else { return };
    lab.far_on_vlan();
    let on = |vlan| Steering {
        ours: vec![Reach { vlan, ..Reach::only(Ipv4Addr::new(10, 98, 0, 9).into()) }],
        ..Steering::default()
    };
    let heard = |steering: &Steering| {
        let mut near = lab.inside(End::Near, || {
            let program = Program::attach("near0", steering, Mode::Copy).unwrap();
            (Station::on(&program, &[0], false).unwrap(), program.tags_hidden())
        });
        let asker = lab.inside(End::Far, || UdpSocket::bind((FAR_ADDR, 0))).unwrap();
        lab.ip(End::Far, &["neigh", "flush", "all"]);
        asker.send_to(b"who has it", ("10.98.0.9", 9)).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_millis(500);
        while near.0.rx.is_empty() && std::time::Instant::now() < deadline {
            near.0.receive();
        }
        let frame = near.0.rx.drain(near.0.rx.len().min(1)).next().map(|frame| {
            let bytes = frame.bytes().to_vec();
            near.0.pool.put(frame);
            bytes
        });
        (frame, near.1)
    };
    let (frame, hidden) = heard(&on(Some(VLAN)));
    if hidden {
        say("a_tag_that_the_peer_left_beside: SKIPPED, this kernel can't tell of a veth's tags");
        return;
    }
    let frame = frame.expect("nothing came on our VLAN");
    assert_eq!(frame[12..18], [0x81, 0, 0, VLAN as u8, 0x08, 0x06], "{frame:?}");
    assert_eq!((&frame[..6], frame.len()), (&[0xff; 6][..], 46));
    assert_eq!(heard(&on(Some(VLAN + 1))).0, None, "another VLAN");
    // The far end's tag is left out of the frame by hand.
    lab.command(End::Far, "ethtool").args(["-K", "far0", "txvlan", "off"]).status().unwrap();
    let in_frame = heard(&on(Some(VLAN))).0.expect("nothing came with the tag in the frame");
    assert_eq!(in_frame[12..18], frame[12..18]);
}

#[test]
fn on_a_shared_address_our_ports_come_to_us_and_the_kernel_keeps_the_rest() {
    use std::net::{TcpListener, TcpStream};
    let Some(lab) = Lab::new("share") else { return };
    let kernels: Ipv4Addr = End::Near.addr().parse().unwrap();
    let steering = Steering {
        shared: vec![Reach::only(kernels.into())],
        ports: vec![(7000, 7009)],
        ..Steering::default()
    };
    let program =
        lab.inside(End::Near, || Program::attach("near0", &steering, Mode::Auto)).unwrap();
    let mut near = lab.inside(End::Near, || Station::on(&program, &[0], false)).unwrap();
    let _listener = lab.inside(End::Near, || TcpListener::bind((kernels, 22))).unwrap();
    lab.inside(End::Far, || TcpStream::connect((kernels, 22))).unwrap();
    let closed = lab.inside(End::Far, || TcpStream::connect((kernels, 7010))).unwrap_err();
    assert_eq!(closed.kind(), io::ErrorKind::ConnectionRefused, "the kernel answers");
    near.receive();
    assert!(near.rx.is_empty());
    let ours = std::net::SocketAddr::from((kernels, 7005));
    let patience = Duration::from_millis(50);
    let silent = lab.inside(End::Far, || TcpStream::connect_timeout(&ours, patience)).unwrap_err();
    assert_eq!(silent.kind(), io::ErrorKind::TimedOut, "nobody answers");
    near.receive();
    let syn = near.rx.drain(1).next().unwrap();
    assert_eq!(syn.bytes()[36..38], 7005u16.to_be_bytes());
    near.pool.put(syn);

    // Who has 10.99.0.2? The kernel gets the reply, and we hear it.
    let mut request = near.pool.take().unwrap();
    request.reset(42);
    let mac = &program.interface().mac;
    let question = [&[0xff; 6], &mac[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], mac, &kernels.octets()];
    let question = [&question.concat()[..], &[0; 6], &[10, 99, 0, 2]].concat();
    request.bytes_mut().copy_from_slice(&question);
    near.tx.push(request);
    near.send();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let mut heard = false;
    while !heard {
        assert!(std::time::Instant::now() < deadline, "no reply was heard");
        near.receive();
        for frame in near.rx.drain(near.rx.len()) {
            // The other kernel's own requests are heard too.
            let (operation, sender) = (&frame.bytes()[20..22], &frame.bytes()[28..32]);
            heard |= operation == [0, 2] && sender == [10, 99, 0, 2];
            near.pool.put(frame);
        }
    }
    near.check();
    assert!(near.counter("arp_looks_total") > 0);
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
    let ends = [0, 255].map(|last| Ipv4Addr::new(10, 99, 0, last).into());
    let all = Reach { first: ends[0], last: ends[1], vlan: None };
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

/// Waits until no program is attached. Not quite at once: a test beside this one may have forked,
/// and its child holds a copy of every descriptor until it runs another program.
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

/// Not a test: the process that the next one kills. It opens near0 of the namespace named in its
/// environment.
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

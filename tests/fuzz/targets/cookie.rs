//! SYN cookies: any SYN is answered by a cookie that its own ACK redeems, in time, for no more than
//! the SYN asked for; and no other ACK is taken for one unless the numbers, by chance, agree.

use shakedown::flow::FlowKey;
use shakedown::rng::Secret;
use shakedown::tcp::{Config, Env, Paths, Seq, State, Syncookies, Tcb, Transmit};
use shakedown::time::{Instant, Span};
use shakedown::wire::options::Options;
use shakedown::wire::segment::Segment;
use shakedown::wire::tcp::Flags;

const KEY: FlowKey = FlowKey::v4(([10, 0, 0, 2], 80), ([10, 0, 0, 1], 4000));

/// How long a cookie is good at the least, in microseconds: one epoch, 2^24 ticks.
const GOOD: u64 = 67_108_864;

pub fn run(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<24>() else { return };
    let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| head[at + i]));
    let start = Instant::ZERO + Span::from_micros(u64::from(word(0)) << 8);
    let mut cookies = Syncookies::new(Secret::from_seed(1), Secret::from_seed(2));
    let config = Config::default();
    let options = Options {
        mss: (head[4] & 1 != 0).then_some(u16::from_be_bytes([head[5], head[6]])),
        window_scale: (head[4] & 2 != 0).then_some(head[7]),
        timestamps: (head[4] & 4 != 0).then_some((word(8), word(12))),
        sack_permitted: head[4] & 8 != 0,
        ..Options::NONE
    };
    let syn = Segment {
        flags: Flags::SYN | Flags(head[16] & 0b1100_0000),
        seq: word(17),
        window: u16::from_be_bytes([head[21], head[22]]),
        options,
        ..blank()
    };
    let answer = answer(&mut cookies, &syn, &config, start);
    let echo = answer.options.timestamps.map(|(ours, _)| (word(8), ours));
    let ack = Segment {
        flags: Flags::ACK,
        seq: syn.seq.wrapping_add(1),
        ack: answer.seq.wrapping_add(1),
        options: Options { timestamps: echo, ..Options::NONE },
        ..blank()
    };
    let later = start + Span::from_micros(GOOD * u64::from(head[23]) / 256);
    let (told, iss) = cookies.redeem(&ack, later).expect("our own cookie, in time");
    assert_eq!((iss.0, told.seq), (answer.seq, syn.seq));
    assert!(told.options.mss <= Some(options.mss.unwrap_or(536).max(48)), "{told:?}");
    assert!(options.sack_permitted || !told.options.sack_permitted);
    assert!(options.window_scale.is_some() || told.options.window_scale.is_none());
    stands(&told, iss, &ack, &config, later);
    for step in rest.chunks_exact(20) {
        guess(&mut cookies, step, &ack, &config, later);
    }
}

/// An ACK that was never provoked, or nearly the one that was: what it redeems can be worked with.
fn guess(cookies: &mut Syncookies, step: &[u8], ack: &Segment, config: &Config, now: Instant) {
    let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| step[at + i]));
    let echo = (step[0] & 1 != 0).then(|| (word(12), word(16)));
    let guessed = Segment {
        flags: Flags(step[1]) | Flags::ACK,
        seq: ack.seq.wrapping_add(word(4)),
        ack: ack.ack.wrapping_add(word(8)),
        window: u16::from_be_bytes([step[2], step[3]]),
        options: Options { timestamps: echo, ..Options::NONE },
        ..*ack
    };
    if let Some((told, iss)) = cookies.redeem(&guessed, now) {
        stands(&told, iss, &guessed, config, now);
    }
}

/// The connection that is made of what a cookie told, and of the ACK that brought it.
fn stands(told: &Segment, iss: Seq, ack: &Segment, config: &Config, now: Instant) {
    let mut paths = Paths::new(1, config);
    let mut env = Env { config, now, room: u32::MAX, nagle: false, paths: &mut paths };
    let mut tcb = Tcb::CLOSED;
    tcb.begin(KEY);
    tcb.resume_cookie(told, iss, &mut env);
    tcb.check(config);
    tcb.arrives(ack, &mut env);
    assert_ne!(tcb.state(), State::SynSent);
    tcb.check(config);
}

fn answer(cookies: &mut Syncookies, syn: &Segment, config: &Config, now: Instant) -> Segment {
    let mut paths = Paths::new(1, config);
    let mut env = Env { config, now, room: u32::MAX, nagle: false, paths: &mut paths };
    let (mut tcb, mut out) = (Tcb::CLOSED, Transmit::blank());
    tcb.begin(KEY);
    cookies.answer(&mut tcb, syn, &mut env, &mut out);
    out.segment
}

fn blank() -> Segment {
    Segment {
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 0, 2].into(),
        src_port: 4000,
        dst_port: 80,
        ..Segment::BLANK
    }
}

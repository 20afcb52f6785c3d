//! From a script's text to what is to be done, line by line.

use super::Outcome;
use super::notation::{ECN_NAMES, ICMP_NAMES, Pattern, Wanted};
use crate::stats::Counters;
use crate::tcp::{self, End, Keepalive, Mss, State};
use crate::time::Span;
use crate::wire::Family;
use crate::wire::options::Options;
use crate::wire::tcp::Flags;
use std::str::FromStr;

/// A script, understood.
#[derive(Clone, Debug)]
pub struct Script {
    pub setup: Setup,
    pub lines: Vec<Line>,
}

/// What the `--name=value` lines say.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The one family that it is for.
    pub family: Option<Family>,
    pub tcp: tcp::Config,
    pub keepalive: Option<Keepalive>,
    pub seed: u64,
    /// The wire number that is 0 in the script: of the engine's first SYN, if it matters.
    pub iss: Option<u32>,
    /// The same of the peer.
    pub irs: u32,
    /// The peer answers ARP.
    pub arp: bool,
    /// The application closes as soon as it is told of the peer's FIN.
    pub close_on_fin: bool,
    /// The port that is listened on.
    pub listen: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub number: usize,
    /// Time since the line before: earliest and latest.
    pub after: (Span, Span),
    pub act: Act,
}

/// What a line does or demands.
#[derive(Clone, Debug)]
pub enum Act {
    /// Known from the start: [`Setup::listen`].
    Listen,
    Connect(u16),
    Send(u64),
    /// Sends, and marks all up to its end urgent.
    SendUrgent(u64),
    /// The application chooses the code point from here on.
    Dscp(u8),
    Close,
    Abort,
    /// The application takes this many bytes from here on.
    Room(u32),
    Stop,
    Inject(Pattern),
    /// An ICMP error of this type and code about the segment at this number of ours; the MTU is the
    /// next hop's, if it is about that.
    Icmp {
        kind: u8,
        code: u8,
        seq: u32,
        mtu: u16,
    },
    Expect(Pattern),
    /// Nothing is sent for so long.
    Silence(Span),
    Claim(Claim),
}

/// What must be so.
#[derive(Clone, Copy, Debug)]
pub enum Claim {
    State(State),
    Established(bool),
    Received(u64),
    Acknowledged(u64),
    PeerClosed(bool),
    /// Stream offset of the end of the last urgent data that was told.
    Urgent(u64),
    SoftErrors(u64),
    Ended(Option<End>),
    Connections(usize),
    /// Place in [`Counters::TABLE`], and value.
    Counter(usize, u64),
}

/// Understands a script.
///
/// # Errors
/// The number of the first line that is not understood, and why.
pub fn script(text: &str) -> Result<Script, (usize, String)> {
    let mut script = Script { setup: Setup::default(), lines: Vec::new() };
    let mut goal = false;
    for (place, line) in text.lines().enumerate() {
        let number = place + 1;
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("//") {
            goal |= !comment.trim().is_empty();
        } else if !line.is_empty() && !goal {
            return Err((number, "a script opens with its goal in a `//` comment".to_owned()));
        } else if let Some(option) = line.strip_prefix("--") {
            script.setup.take(option).map_err(|what| (number, what))?;
        } else if !line.is_empty() {
            let (after, act) = timed(line, &mut script.setup).map_err(|what| (number, what))?;
            script.lines.push(Line { number, after, act });
        }
    }
    Ok(script)
}

impl Default for Setup {
    /// Options that need to be written out are off, so that scripts which are not about them stay
    /// short. The peer's numbers begin where it is plain that they are not ours.
    fn default() -> Setup {
        let plain = tcp::Config::default();
        let mss = Mss::both(plain.mss.v4);
        Setup {
            family: None,
            tcp: tcp::Config {
                mss,
                timestamps: false,
                window_scaling: false,
                sack: false,
                ..plain
            },
            keepalive: None,
            seed: 1,
            iss: None,
            irs: 1_000_000,
            arp: true,
            close_on_fin: false,
            listen: None,
        }
    }
}

impl Setup {
    fn take(&mut self, option: &str) -> Outcome<()> {
        let (name, value) =
            option.split_once('=').ok_or_else(|| format!("`--{option}` has no value"))?;
        let tcp = &mut self.tcp;
        match name {
            "ip_version" => {
                self.family = Some(match value {
                    "ipv4" => Family::V4,
                    "ipv6" => Family::V6,
                    _ => return Err(format!("`{value}` is neither ipv4 nor ipv6")),
                });
            }
            "msl" => tcp.msl = span(value)?,
            "rto" => tcp.rto_initial = span(value)?,
            "rto_min" => tcp.rto_min = span(value)?,
            "rto_max" => tcp.rto_max = span(value)?,
            "syn_retries" => tcp.syn_retries = number(value)?,
            "syn_backlog" => tcp.syn_backlog = number(value)?,
            "syncookies" => {
                tcp.syncookies = match value {
                    "off" => tcp::CookiesWhen::Off,
                    "full" => tcp::CookiesWhen::Full,
                    "always" => tcp::CookiesWhen::Always,
                    _ => return Err(format!("`{value}` is neither off, full nor always")),
                }
            }
            "rfc1337" => tcp.rfc1337 = yes(value)?,
            "data_retries" => tcp.data_retries = number(value)?,
            "fin_wait2" => tcp.fin_wait2 = span(value)?,
            "mss" => tcp.mss = Mss::both(number(value)?),
            "window" => tcp.window = number(value)?,
            "timestamps" => tcp.timestamps = yes(value)?,
            "sack" => tcp.sack = yes(value)?,
            "delayed_ack" => tcp.delayed_ack = span(value)?,
            "dscp" => tcp.dscp = number(value)?,
            "ecn" => {
                tcp.ecn = match value {
                    "off" => tcp::Ecn::Off,
                    "accept" => tcp::Ecn::Accept,
                    "request" => tcp::Ecn::Request,
                    _ => return Err(format!("`{value}` is neither off, accept nor request")),
                }
            }
            "reassembly" => tcp.reassembly_bytes = number(value)?,
            "window_scaling" => tcp.window_scaling = yes(value)?,
            "user_timeout" => tcp.user_timeout = Some(span(value)?),
            "nagle" => tcp.nagle = yes(value)?,
            "congestion" => {
                tcp.congestion = named(&tcp::Congestion::ALL, |one| one.name(), value)
                    .ok_or_else(|| format!("there is no congestion control `{value}`"))?;
            }
            "keepalive" => {
                let [idle, interval, probes] = arguments(value)?;
                let (idle, interval) = (span(idle)?, span(interval)?);
                self.keepalive = Some(Keepalive { idle, interval, probes: number(probes)? });
            }
            "seed" => self.seed = number(value)?,
            "iss" => self.iss = Some(number(value)?),
            "irs" => self.irs = number(value)?,
            "arp" => self.arp = yes(value)?,
            "close_on_fin" => self.close_on_fin = yes(value)?,
            _ => return Err(format!("there is no option `--{name}`")),
        }
        Ok(())
    }
}

/// `+0.5 what` or `+1~+1.5 > segment`.
fn timed(line: &str, setup: &mut Setup) -> Outcome<((Span, Span), Act)> {
    let (when, what) = line.split_once(' ').ok_or_else(|| format!("`{line}` does nothing"))?;
    let (earliest, latest) = when.split_once('~').unwrap_or((when, when));
    let seconds = |text: &str| {
        let digits = text.strip_prefix('+').ok_or_else(|| format!("`{text}` is no `+time`"))?;
        span(&format!("{digits}s")).map_err(|_| format!("`{text}` is no `+time`"))
    };
    let after = (seconds(earliest)?, seconds(latest)?);
    let act = act(what.trim(), setup)?;
    if after.0 != after.1 && !matches!(act, Act::Expect(_)) {
        return Err("only what is expected has a range of times".to_owned());
    }
    if after.0 > after.1 {
        return Err(format!("`{when}` ends before it begins"));
    }
    Ok((after, act))
}

fn act(what: &str, setup: &mut Setup) -> Outcome<Act> {
    if let Some(rest) = what.strip_prefix("> nothing for ") {
        return Ok(Act::Silence(span(rest)?));
    }
    if let Some(text) = what.strip_prefix("> ") {
        return Ok(Act::Expect(pattern(text)?));
    }
    if let Some(text) = what.strip_prefix("< ") {
        let pattern = pattern(text)?;
        let any_ack = pattern.flags.has(Flags::ACK) && pattern.ack.is_none();
        if pattern.seq.is_none() || any_ack || pattern.options == Wanted::Any {
            return Err("`*` and `...` are for what is expected".to_owned());
        }
        return Ok(Act::Inject(pattern));
    }
    let call = what.strip_suffix(')').and_then(|call| call.split_once('('));
    let (name, inside) = call.ok_or_else(|| format!("`{what}` is no call and no segment"))?;
    Ok(match name {
        "listen" => {
            setup.listen = Some(port(inside)?);
            Act::Listen
        }
        "connect" => Act::Connect(port(inside)?),
        "send" => Act::Send(number(inside)?),
        "dscp" => Act::Dscp(number(inside)?),
        "send_urgent" => Act::SendUrgent(number(inside)?),
        "close" => Act::Close,
        "abort" => Act::Abort,
        "room" => Act::Room(number(inside)?),
        "stop" => Act::Stop,
        "icmp" => icmp(inside)?,
        _ => Act::Claim(claim(name, inside)?),
    })
}

/// `frag_needed, 1, 1400`: which error, about which number, and the MTU if it is about that.
fn icmp(inside: &str) -> Outcome<Act> {
    let (name, rest) = inside.split_once(',').ok_or_else(|| format!("`{inside}` of what?"))?;
    let known = ICMP_NAMES.iter().find(|(known, ..)| *known == name.trim());
    let (_, kind, code) = *known.ok_or_else(|| format!("there is no ICMP error `{name}`"))?;
    let (seq, mtu) = rest.split_once(',').unwrap_or((rest, "0"));
    Ok(Act::Icmp { kind, code, seq: number(seq)?, mtu: number(mtu)? })
}

fn claim(name: &str, inside: &str) -> Outcome<Claim> {
    Ok(match name {
        "state" => Claim::State(
            named(&State::ALL, |state| state.name(), inside)
                .ok_or_else(|| format!("there is no state `{inside}`"))?,
        ),
        "established" => Claim::Established(yes(inside)?),
        "received" => Claim::Received(number(inside)?),
        "acknowledged" => Claim::Acknowledged(number(inside)?),
        "soft_errors" => Claim::SoftErrors(number(inside)?),
        "urgent" => Claim::Urgent(number(inside)?),
        "peer_closed" => Claim::PeerClosed(yes(inside)?),
        "ended" if inside == "none" => Claim::Ended(None),
        "ended" => Claim::Ended(Some(
            named(&End::ALL, |end| end.name(), inside)
                .ok_or_else(|| format!("there is no end `{inside}`"))?,
        )),
        "connections" => Claim::Connections(number(inside)?),
        "counter" => {
            let [name, value] = arguments(inside)?;
            let place = Counters::TABLE.iter().position(|(counter, _)| *counter == name);
            let place = place.ok_or_else(|| format!("there is no counter `{name}`"))?;
            Claim::Counter(place, number(value)?)
        }
        _ => return Err(format!("there is no `{name}(...)`")),
    })
}

/// `[ect0] S. 0:0(0) ack 1 win 65535 urg 0 <mss 1460>`.
fn pattern(text: &str) -> Outcome<Pattern> {
    let (marks, segment) = match text.strip_prefix('[') {
        None => ("", text),
        Some(rest) => rest.split_once(']').ok_or_else(|| format!("`{text}` has no `]`"))?,
    };
    let (fields, options) = match segment.split_once('<') {
        None => (segment, ""),
        Some((fields, options)) => {
            let inside = options.trim_end().strip_suffix('>');
            (fields, inside.ok_or_else(|| format!("`<{options}` has no end"))?)
        }
    };
    let mut fields = fields.split_whitespace();
    let flags = flags(fields.next().unwrap_or_default())?;
    let (seq, payload_len) = range(fields.next().unwrap_or_default())?;
    let mut pattern = Pattern {
        flags,
        seq,
        payload_len,
        ack: None,
        window: None,
        urgent: 0,
        tos: tos(marks)?,
        options: wanted(options)?,
        text: text.to_owned(),
    };
    let mut acks = false;
    while let Some(name) = fields.next() {
        let value = fields.next().ok_or_else(|| format!("`{name}` has no value"))?;
        match name {
            "ack" => {
                acks = true;
                pattern.ack = number_or_any(value)?;
            }
            "win" => pattern.window = number_or_any(value)?,
            "urg" => pattern.urgent = number(value)?,
            _ => return Err(format!("there is no field `{name}`")),
        }
    }
    if acks != flags.has(Flags::ACK) {
        return Err("the flag `.` and the field `ack` go together".to_owned());
    }
    Ok(pattern)
}

/// What stands between `[` and `]`: `ect0`, `ect1`, `ce`, `noecn`, `dscp 46`, or a DSCP and one of
/// the others.
fn tos(text: &str) -> Outcome<u8> {
    let (mut tos, mut words) = (0, text.split_whitespace());
    while let Some(word) = words.next() {
        let ecn = ECN_NAMES.iter().position(|name| *name == word);
        tos |= match (ecn, word) {
            (Some(bits), _) => bits as u8,
            (None, "dscp") => match number::<u8>(words.next().unwrap_or_default())? {
                dscp @ 0..64 => dscp << 2,
                dscp => return Err(format!("{dscp} is no DSCP: 0 to 63 are")),
            },
            (None, _) => return Err(format!("there is no mark `{word}`")),
        };
    }
    Ok(tos)
}

/// tcpdump's letters; `-` for none.
fn flags(text: &str) -> Outcome<Flags> {
    if text == "-" {
        return Ok(Flags::default());
    }
    text.chars().try_fold(Flags::default(), |flags, letter| {
        let flag = Flags::LETTERS.iter().find(|(_, known)| *known == letter);
        flag.map(|(flag, _)| flags | *flag).ok_or_else(|| format!("there is no flag `{letter}`"))
    })
}

/// `first:end(len)`, or `*:*(len)`.
fn range(text: &str) -> Outcome<(Option<u32>, u16)> {
    let wrong = || format!("`{text}` is no `first:end(len)`");
    let (numbers, len) =
        text.strip_suffix(')').and_then(|text| text.split_once('(')).ok_or_else(wrong)?;
    let (first, end) = numbers.split_once(':').ok_or_else(wrong)?;
    let len: u16 = number(len)?;
    let (first, end) = (number_or_any::<u32>(first)?, number_or_any::<u32>(end)?);
    if first.map(|first| first.wrapping_add(u32::from(len))) != end {
        return Err(wrong());
    }
    Ok((first, len))
}

/// What stands between `<` and `>`.
fn wanted(text: &str) -> Outcome<Wanted> {
    if text == "..." {
        return Ok(Wanted::Any);
    }
    let (mut options, mut timestamps) = (Options::default(), None);
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let words: Vec<&str> = item.split_whitespace().collect();
        match words[..] {
            ["nop" | "eol"] => {}
            ["sackOK"] => options.sack_permitted = true,
            ["mss", mss] => options.mss = Some(number(mss)?),
            ["sack", ref blocks @ ..] => {
                for block in blocks {
                    let (left, right) = block.split_once(':').unwrap_or((block, ""));
                    if !options.sack.push(number(left)?, number(right)?) {
                        return Err(format!("there is no room for all of `{item}`"));
                    }
                }
            }
            ["wscale", shift] => options.window_scale = Some(number(shift)?),
            ["uto", timeout] => options.user_timeout = Some(number(timeout)?),
            ["TS", "val", value, "ecr", echo] => {
                timestamps = Some((number_or_any(value)?, number_or_any(echo)?));
            }
            _ => return Err(format!("there is no option `{item}`")),
        }
    }
    Ok(Wanted::These { options, timestamps })
}

fn number<T: FromStr>(text: &str) -> Outcome<T> {
    text.trim().parse().map_err(|_| format!("`{text}` is no number that fits here"))
}

fn port(text: &str) -> Outcome<u16> {
    match number(text)? {
        0 => Err("port 0 is nobody's: 1 to 65535".to_owned()),
        port => Ok(port),
    }
}

fn number_or_any<T: FromStr>(text: &str) -> Outcome<Option<T>> {
    if text == "*" { Ok(None) } else { number(text).map(Some) }
}

fn yes(text: &str) -> Outcome<bool> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("`{text}` is neither yes nor no")),
    }
}

fn arguments<const COUNT: usize>(text: &str) -> Outcome<[&str; COUNT]> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    parts.try_into().map_err(|_| format!("`{text}` is not {COUNT} values"))
}

fn named<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|&one| name(one) == text)
}

/// `30s`, `1.5s`, `500ms`, `10us`.
fn span(text: &str) -> Outcome<Span> {
    let units = [("ms", 1e6), ("us", 1e3), ("s", 1e9)];
    let parsed = units.iter().find_map(|(unit, nanos)| {
        let count: f64 = text.strip_suffix(unit)?.parse().ok()?;
        (count.is_finite() && count >= 0.0).then(|| (count * nanos).round() as u64)
    });
    parsed.map(Span::from_nanos).ok_or_else(|| format!("`{text}` is no time such as 1.5s or 20ms"))
}

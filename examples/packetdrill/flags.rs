//! `so_flags`: `name=value`, separated by commas or spaces, to the engine's configuration.

use crate::net::OUR_MAC;
use shakedown::engine::{Config, Subnet};
use shakedown::tcp::{self, Congestion, Ecn, Mss};
use shakedown::time::Span;
use shakedown::wire::segment::Verify;
use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

/// What a script's host is made of.
pub struct Settings {
    pub config: Config,
    pub addresses: Vec<IpAddr>,
    /// Of a socket, until it is told otherwise: what it receives, what it sends.
    pub buffer_bytes: (u32, u32),
}

/// Every name, what its value is, and what it sets.
type Flag = (&'static str, &'static str, fn(&mut Raw, &str) -> Result<(), String>);

const FLAGS: &[Flag] = &[
    ("ip", "address, repeatable", |raw, value| {
        raw.addresses.push(parsed(value)?);
        Ok(())
    }),
    ("gateway", "address, repeatable: the next hop of what is not on our links", |raw, value| {
        raw.gateways.push(parsed(value)?);
        Ok(())
    }),
    ("mtu", "bytes of the largest datagram", |raw, value| set(&mut raw.mtu, value)),
    ("mss", "bytes", |raw, value| set(&mut raw.mss, value)),
    ("ttl", "hops", |raw, value| {
        raw.ttl = parsed(value)?;
        Ok(())
    }),
    ("window", "bytes of the receive buffer", |raw, value| set(&mut raw.window, value)),
    ("sndbuf", "bytes of the send buffer", |raw, value| set(&mut raw.send_buffer, value)),
    ("msl", "span", |raw, value| span(&mut raw.tcp.msl, value)),
    ("rto_initial", "span", |raw, value| span(&mut raw.tcp.rto_initial, value)),
    ("rto_min", "span", |raw, value| span(&mut raw.tcp.rto_min, value)),
    ("rto_max", "span", |raw, value| span(&mut raw.tcp.rto_max, value)),
    ("fin_wait2", "span", |raw, value| span(&mut raw.tcp.fin_wait2, value)),
    ("syn_retries", "count", |raw, value| {
        raw.tcp.syn_retries = parsed(value)?;
        Ok(())
    }),
    ("data_retries", "count", |raw, value| {
        raw.tcp.data_retries = parsed(value)?;
        Ok(())
    }),
    ("timestamps", "on or off", |raw, value| switch(&mut raw.tcp.timestamps, value)),
    ("window_scaling", "on or off", |raw, value| switch(&mut raw.tcp.window_scaling, value)),
    ("sack", "on or off", |raw, value| switch(&mut raw.tcp.sack, value)),
    ("delayed_ack", "span, 0 for none", |raw, value| span(&mut raw.tcp.delayed_ack, value)),
    ("ecn", "off, accept or request", |raw, value| {
        raw.tcp.ecn = match value {
            "off" => Ecn::Off,
            "accept" => Ecn::Accept,
            "request" | "on" => Ecn::Request,
            _ => return Err("none of them".to_string()),
        };
        Ok(())
    }),
    ("nagle", "on or off", |raw, value| switch(&mut raw.tcp.nagle, value)),
    ("congestion", "fixed, newreno or cubic", |raw, value| {
        raw.tcp.congestion = match value {
            "fixed" => Congestion::Fixed,
            "newreno" => Congestion::NewReno,
            "cubic" => Congestion::Cubic,
            _ => return Err("none of them".to_string()),
        };
        Ok(())
    }),
    ("dscp", "number", |raw, value| {
        raw.tcp.dscp = parsed(value)?;
        if raw.tcp.dscp < 64 { Ok(()) } else { Err("more than six bits".to_string()) }
    }),
    ("seed", "number", |raw, value| {
        raw.seed = parsed(value)?;
        Ok(())
    }),
];

/// Connections of a script at a time, TIME-WAIT included.
const CONNECTIONS_MAX: u32 = 1024;

/// As read, before what follows from each other is filled in.
struct Raw {
    addresses: Vec<IpAddr>,
    gateways: Vec<IpAddr>,
    mtu: Option<u16>,
    mss: Option<u16>,
    ttl: u8,
    window: Option<u32>,
    send_buffer: Option<u32>,
    tcp: tcp::Config,
    seed: u64,
}

impl Settings {
    /// # Errors
    /// A text for the user: an unknown name, with all known ones, or a value that does not fit.
    pub fn parse(flags: &str) -> Result<Settings, String> {
        let mut raw = Raw {
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            mss: None,
            ttl: 64,
            window: None,
            send_buffer: None,
            tcp: tcp::Config::default(),
            seed: 1,
        };
        let words = flags.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty());
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, "on"));
            let flag = FLAGS.iter().find(|(known, _, _)| *known == name);
            let Some((_, form, apply)) = flag else {
                return Err(format!("so_flags: no `{name}`; there are:\n{}", known()));
            };
            apply(&mut raw, value)
                .map_err(|why| format!("so_flags: {name}={value}: {why}; wanted: {form}"))?;
        }
        raw.settings()
    }
}

impl Raw {
    fn settings(self) -> Result<Settings, String> {
        let Raw { mut addresses, gateways, mtu, mss, ttl, window, send_buffer, mut tcp, seed } =
            self;
        if addresses.is_empty() {
            addresses =
                DEFAULT_ADDRESSES.iter().map(|ip| ip.parse().expect("an address")).collect();
        }
        let mtu = mtu.unwrap_or(1500);
        tcp.mss = mss.map_or(Mss::within(mtu), Mss::both);
        tcp.window = window.unwrap_or(tcp.window);
        // Only the address itself is on our link: everything else is the peer's.
        let alone = |ip: &IpAddr| Subnet::only(*ip, if ip.is_ipv4() { 32 } else { 128 });
        let subnets = addresses.iter().map(alone).collect();
        let config = Config {
            mac: OUR_MAC,
            mtu,
            ttl,
            subnets,
            gateways,
            listeners: Vec::new(),
            ranges: None,
            keepalive: None,
            connections_max: CONNECTIONS_MAX,
            awake_max: 0,
            tcp,
            verify: Verify::All,
            device_sums: false,
            seed,
        };
        let buffer_bytes = (tcp.window, send_buffer.unwrap_or(SEND_BUFFER_BYTES));
        Ok(Settings { config, addresses, buffer_bytes })
    }
}

/// What scripts take for ours, in each family, when they are not told.
const DEFAULT_ADDRESSES: [&str; 2] = ["192.168.0.1", "fd3d:fa7b:d17d::1"];

/// Linux's default of `SO_SNDBUF`, net.core.wmem_default.
const SEND_BUFFER_BYTES: u32 = 212_992;

fn parsed<T: FromStr>(value: &str) -> Result<T, String>
where
    T::Err: Display,
{
    value.parse().map_err(|why: T::Err| why.to_string())
}

fn set<T: FromStr>(place: &mut Option<T>, value: &str) -> Result<(), String>
where
    T::Err: Display,
{
    *place = Some(parsed(value)?);
    Ok(())
}

fn switch(place: &mut bool, value: &str) -> Result<(), String> {
    *place = match value {
        "on" | "yes" | "true" | "1" => true,
        "off" | "no" | "false" | "0" => false,
        _ => return Err("neither on nor off".to_string()),
    };
    Ok(())
}

/// `10ms`, `2s`, `5m`, or a bare number of seconds, which may have a fraction.
fn span(place: &mut Span, value: &str) -> Result<(), String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let nanos_each = match &value[digits.len()..] {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" | "" => 1e9,
        "m" => 60e9,
        unit => return Err(format!("no unit `{unit}`")),
    };
    let number: f64 = parsed(digits)?;
    if !(0.0..1e9).contains(&number) {
        return Err("out of range".to_string());
    }
    *place = Span::from_nanos((number * nanos_each).round() as u64);
    Ok(())
}

/// All names with the form of their values, a line each.
fn known() -> String {
    let lines = FLAGS.iter().map(|(name, form, _)| format!("  {name}=   {form}"));
    lines.collect::<Vec<_>>().join("\n")
}

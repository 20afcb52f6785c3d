//! The words of the command line and of the TOML file, turned into values: each is parsed once and
//! right from then on.
//!
//! Every error is one sentence that says what was wrong and what would be right; who asked for it
//! adds the flag, or the file's line and column.

use crate::tcp::Keepalive;
use crate::time::Span;
use std::str::FromStr;

/// Ports `first..=last`, neither of them 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

/// Small numbers, as `0-3` or `0,2,4-7`; in order, none twice, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indices(pub Vec<u32>);

/// What serves a port, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AppName {
    /// HTTP/1.1 with a response of fixed size.
    Http,
    /// Closes as soon as the handshake is done.
    Accept,
    /// Sends back what it receives.
    Echo,
    /// Reads everything, sends nothing.
    Discard,
    /// Sends for ever.
    Chargen,
    /// Reads to the end, then sends `BYE` and closes.
    Halfclose,
    /// Receives and sends what a stream client orders, and verifies it.
    Stream,
}

/// One `--listen`: `80`, `80=http`, `8000-8009=echo`, `7003=echo:keepalive=2s/1s/3`,
/// `80=http:response-size=1k`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub ports: Ports,
    pub app: Option<AppName>,
    pub response_size: Option<u64>,
    pub keepalive: Option<Keepalive>,
}

impl Ports {
    /// Number of ports, at least one.
    pub fn count(&self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + use<> {
        self.first..=self.last
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!("port range `{text}` is empty: write the lower port first"));
        }
        Ok(Ports { first, last })
    }
}

impl FromStr for Indices {
    type Err = String;

    fn from_str(text: &str) -> Result<Indices, String> {
        let mut indices = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number =
                |text: &str| {
                    text.trim().parse::<u32>().ok().filter(|&n| n < 1024).ok_or_else(|| {
                        format!("`{text}` is not a number below 1024: write 0-3 or 0,2")
                    })
                };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("range `{part}` is empty: write the lower number first"));
            }
            indices.extend(first..=last);
        }
        indices.sort_unstable();
        indices.dedup();
        Ok(Indices(indices))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        let mut parts = text.split(':');
        let head = parts.next().unwrap_or_default();
        let (ports, app) = match head.split_once('=') {
            Some((ports, name)) => (ports.parse()?, Some(app(name)?)),
            None => (head.parse()?, None),
        };
        let mut listen = Listen { ports, app, response_size: None, keepalive: None };
        for part in parts {
            match part.split_once('=') {
                Some(("response-size", size)) => listen.response_size = Some(number(size)?),
                Some(("keepalive", value)) => listen.keepalive = Some(keepalive(value)?),
                _ => {
                    return Err(format!(
                        "`{part}` is nothing a listener knows: write \
                         80=http:response-size=1k or 7003=echo:keepalive=2s/1s/3"
                    ));
                }
            }
        }
        Ok(listen)
    }
}

/// A port, not 0.
pub fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a port: write a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

fn app(name: &str) -> Result<AppName, String> {
    clap::ValueEnum::from_str(name, false).map_err(|_| {
        format!(
            "no application is called `{name}`: http, accept, echo, discard, chargen, halfclose, \
             stream"
        )
    })
}

/// A whole number with a decimal suffix: `250`, `10k`, `1.5m`, `2g`.
pub fn number(text: &str) -> Result<u64, String> {
    let value = rate(text)?;
    if value.fract() != 0.0 {
        return Err(format!("`{text}` is not a whole number"));
    }
    Ok(value as u64)
}

/// Bytes: as [`number`], or with a binary suffix: `64KiB`, `1.5MiB`, `1GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let binary = [("KiB", 1u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)));
    let Some((digits, unit)) = binary else { return number(text) };
    let value = digits.parse::<f64>().ok().filter(|value| (0.0..=1e6).contains(value));
    let value =
        value.ok_or_else(|| format!("`{text}` is not a size: write 500m, 64KiB or 1GiB"))?;
    Ok((value * unit as f64).round() as u64)
}

/// As [`number`], for what is held in 32 bits.
pub fn number32(text: &str) -> Result<u32, String> {
    u32::try_from(number(text)?).map_err(|_| format!("`{text}` is too large: at most 4.29g"))
}

/// As [`number`], for connections: those in every state, and what else is counted of them, are to
/// have numbers of 32 bits.
pub fn connections(text: &str) -> Result<u32, String> {
    const MAX: u64 = 500_000_000;
    match number(text)? {
        connections @ ..=MAX => Ok(connections as u32),
        _ => Err(format!("`{text}` is too large: at most 500m connections a core")),
    }
}

/// A number a second, or bits a second, with a decimal suffix; a fraction is welcome.
pub fn rate(text: &str) -> Result<f64, String> {
    let bad = || format!("`{text}` is not a number: write 250, 10k, 1.5m or 2g (k is 1000)");
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        Some((at, 'g' | 'G')) => (&text[..at], 1e9),
        _ => (text, 1.0),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(bad());
    }
    let value = digits.parse::<f64>().map_err(|_| bad())? * factor;
    // Products such as 1.1 * 1e6 miss the whole number by an ulp; within a millionth, it is meant.
    let whole = value.round();
    let value = if (value - whole).abs() < 1e-6 { whole } else { value };
    if value < 9e15 { Ok(value) } else { Err(format!("`{text}` is too large")) }
}

/// A rate above zero.
pub fn positive_rate(text: &str) -> Result<f64, String> {
    match rate(text)? {
        0.0 => Err("a rate of 0 does nothing: leave it out for no limit".to_string()),
        value => Ok(value),
    }
}

/// A probability: `0.01` or `1%`.
pub fn probability(text: &str) -> Result<f64, String> {
    let bad = || format!("`{text}` is not a probability: write 0.01 or 1%");
    let (digits, scale) = match text.strip_suffix('%') {
        Some(digits) => (digits, 100.0),
        None => (text, 1.0),
    };
    let value = digits.trim().parse::<f64>().map_err(|_| bad())? / scale;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(bad()) }
}

/// A length of time: `250us`, `500ms`, `10s`, `5m`, `1.5h`, `2d`; `0` needs no unit.
pub fn span(text: &str) -> Result<Span, String> {
    let bad = || format!("`{text}` is not a duration: write 250us, 500ms, 10s, 5m or 1.5h");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let value = digits.parse::<f64>().map_err(|_| bad())?;
    let unit_ns = match unit {
        "ns" => 1e0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3_600e9,
        "d" => 86_400e9,
        "" if value == 0.0 => 1.0,
        "" => return Err(format!("`{text}` has no unit: write {text}s for seconds")),
        _ => return Err(bad()),
    };
    // Ten years: far past any run, far below what nanoseconds in 64 bits can hold.
    let nanos = (value * unit_ns).round();
    if nanos > 3.2e17 {
        Err(format!("`{text}` is too long"))
    } else {
        Ok(Span::from_nanos(nanos as u64))
    }
}

/// Keepalive as `IDLE/INTERVAL/PROBES`, such as `2h/75s/9`; what is left out at the end keeps its
/// default.
pub fn keepalive(text: &str) -> Result<Keepalive, String> {
    let mut keepalive = Keepalive::default();
    let mut parts = text.split('/');
    if let Some(idle) = parts.next() {
        keepalive.idle = span(idle)?;
    }
    if let Some(interval) = parts.next() {
        keepalive.interval = span(interval)?;
    }
    if let Some(probes) = parts.next() {
        keepalive.probes = probes
            .parse::<u8>()
            .ok()
            .filter(|&probes| probes > 0)
            .ok_or_else(|| format!("`{probes}` is not a number of probes from 1 to 255"))?;
    }
    let zero = keepalive.idle == Span::ZERO || keepalive.interval == Span::ZERO;
    if zero || parts.next().is_some() {
        return Err(format!("`{text}` is not a keepalive: write idle/interval/probes as 2h/75s/9"));
    }
    Ok(keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_decimal_and_binary_suffixes() {
        assert_eq!(bytes("1g"), Ok(1_000_000_000));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("1.5MiB"), Ok(3 << 19));
        for bad in ["GiB", "-1KiB", "1Gib", "inf", "1e9GiB", "9999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_take_decimal_suffixes() {
        assert_eq!(number("250"), Ok(250));
        assert_eq!(number("10k"), Ok(10_000));
        assert_eq!(number("1.5m"), Ok(1_500_000));
        assert_eq!(number("1.1m"), Ok(1_100_000));
        assert_eq!(number("2G"), Ok(2_000_000_000));
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["", "k", "-1", "1e3", "1kk", "nan", "inf", "1.2.3", "0.5", "99999999g", "é"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert!(positive_rate("0").is_err());
    }

    #[test]
    fn durations_need_a_unit_and_say_so() {
        assert_eq!(span("500ms"), Ok(Span::from_millis(500)));
        assert_eq!(span("1.5h"), Ok(Span::from_secs(5400)));
        assert_eq!(span("250us"), Ok(Span::from_micros(250)));
        assert_eq!(span("0"), Ok(Span::ZERO));
        assert!(span("10").unwrap_err().contains("write 10s"));
        for bad in ["", "s", "-1s", "10 s", "1y", "400000d", "1..s"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_listener_has_its_own_application_and_keepalive() {
        let listen: Listen = "7003=echo:keepalive=2s/1s/3".parse().unwrap();
        assert_eq!((listen.ports.first, listen.app), (7003, Some(AppName::Echo)));
        let keepalive =
            Keepalive { idle: Span::from_secs(2), interval: Span::from_secs(1), probes: 3 };
        assert_eq!(listen.keepalive, Some(keepalive));
        let listen: Listen = "8000-8009".parse().unwrap();
        assert_eq!((listen.ports.count(), listen.app), (10, None));
        assert!("80=htpp".parse::<Listen>().unwrap_err().contains("no application"));
        assert!("80=http:ttl=3".parse::<Listen>().unwrap_err().contains("nothing a listener"));
    }

    #[test]
    fn keepalive_parts_left_out_keep_their_default() {
        assert_eq!(keepalive("10s").unwrap().probes, 9);
        assert_eq!(keepalive("10s").unwrap().interval, Span::from_secs(75));
        for bad in ["", "0", "1s/0", "1s/1s/0", "1s/1s/1/1"] {
            assert!(keepalive(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn indices_are_sorted_and_met_once() {
        assert_eq!("0-3".parse(), Ok(Indices(vec![0, 1, 2, 3])));
        assert_eq!("4,0-1,1".parse(), Ok(Indices(vec![0, 1, 4])));
        for bad in ["", "3-1", "a", "0-5000000"] {
            assert!(bad.parse::<Indices>().is_err(), "{bad}");
        }
    }

    #[test]
    fn probabilities_are_fractions_or_percent() {
        assert_eq!(probability("1%"), Ok(0.01));
        assert_eq!(probability("0.25"), Ok(0.25));
        assert!(probability("2").is_err());
        assert!(probability("nan").is_err());
    }
}

//! RFC 9293 as pure functions of (control block, segment, now). No frame, no device, no clock, no
//! application.

pub mod arrives;
pub mod cc;
mod ecn;
mod flight;
pub mod idle;
pub mod isn;
pub mod output;
mod pages;
pub mod path;
mod pmtu;
mod rack;
mod reassembly;
mod receive;
mod recovery;
pub mod rto;
mod scoreboard;
pub mod seq;
pub mod state;
pub mod syn_received;
pub mod syncookie;
pub mod tcb;
mod text;
pub mod time_wait;
mod timestamps;
mod urgent;

pub use arrives::{Arrival, Note};
pub use cc::Congestion;
pub use idle::Idle;
pub use isn::isn;
pub use output::Transmit;
pub use path::{Paths, Tally};
pub use rto::Expiry;
pub use seq::Seq;
pub use state::State;
pub use syn_received::SynReceived;
pub use syncookie::Syncookies;
pub use tcb::Tcb;
pub use time_wait::TimeWait;

use crate::time::{Instant, Span};
use crate::wire::Family;
use crate::wire::tcp::HEADER_LEN;

/// How a connection ended; the application is told of every one (RFC 9293 s3.6, MUST-12: whether it
/// "closed normally or was aborted").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Both sides sent FIN and both were acknowledged.
    Finished,
    /// The peer sent RST after the handshake.
    Reset,
    /// The peer sent RST in answer to our SYN or SYN-ACK.
    Refused,
    /// SYN or SYN-ACK was not answered after the configured tries, or while the SYN cache was full.
    SynTimeout,
    /// Data or FIN was not acknowledged after the configured tries (RFC 9293 s3.8.3, R2).
    DataTimeout,
    /// No keepalive probe was answered (RFC 9293 s3.8.4).
    KeepaliveTimeout,
    /// The peer did not send its FIN within the FIN-WAIT-2 limit.
    FinWait2Timeout,
    /// Our application aborted it; RST was sent.
    Aborted,
    /// The next hop does not answer ARP, or a router said that the host can't be reached.
    Unreachable,
}

impl End {
    /// Every end, in declaration order.
    pub const ALL: [End; 9] = [
        End::Finished,
        End::Reset,
        End::Refused,
        End::SynTimeout,
        End::DataTimeout,
        End::KeepaliveTimeout,
        End::FinWait2Timeout,
        End::Aborted,
        End::Unreachable,
    ];

    /// Name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            End::Finished => "finished",
            End::Reset => "reset",
            End::Refused => "refused",
            End::SynTimeout => "syn_timeout",
            End::DataTimeout => "data_timeout",
            End::KeepaliveTimeout => "keepalive_timeout",
            End::FinWait2Timeout => "fin_wait2_timeout",
            End::Aborted => "aborted",
            End::Unreachable => "unreachable",
        }
    }
}

/// Keepalive of a listener or of the client, its times theirs to choose (RFC 9293 s3.8.4, MUST-27).
/// Absent means off, the default (MUST-25).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Span,
    /// Time between probes.
    pub interval: Span,
    /// Unanswered probes before the connection is given up.
    pub probes: u8,
}

impl Default for Keepalive {
    /// 2 h (MUST-28), 75 s, 9: the kernel's.
    fn default() -> Keepalive {
        Keepalive { idle: Span::from_secs(7200), interval: Span::from_secs(75), probes: 9 }
    }
}

/// Explicit congestion notification (RFC 3168).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    /// Never.
    Off,
    /// If the peer asks for it, as Linux does.
    Accept,
    /// Asked for on every connection.
    Request,
}

/// When a SYN is answered with a cookie, and nothing kept of it (RFC 4987 s3.6): as the kernel's
/// `tcp_syncookies`, 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookiesWhen {
    /// Never: a SYN that there is no room for is dropped.
    Off,
    /// When the SYN cache is full.
    Full,
    Always,
}

/// What a connection's functions are given beside the segment.
#[derive(Debug)]
pub struct Env<'a> {
    pub config: &'a Config,
    pub now: Instant,
    /// Bytes that the application can take: bounds the window that is offered.
    pub room: u32,
    /// This connection sends by Nagle's algorithm.
    pub nagle: bool,
    pub paths: &'a mut Paths,
}

/// The largest segments, in bytes of text and options, in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mss {
    pub v4: u16,
    pub v6: u16,
}

impl Mss {
    /// What datagrams of `mtu` bytes have room for: less the fixed IP and TCP headers (RFC 9293
    /// s3.7.1, MUST-67; RFC 6691 s2).
    pub const fn within(mtu: u16) -> Mss {
        let (v4, v6) = (Family::V4.header_len() + HEADER_LEN, Family::V6.header_len() + HEADER_LEN);
        Mss { v4: mtu.saturating_sub(v4 as u16), v6: mtu.saturating_sub(v6 as u16) }
    }

    /// The same in both families.
    pub const fn both(bytes: u16) -> Mss {
        Mss { v4: bytes, v6: bytes }
    }

    pub const fn of(self, family: Family) -> u16 {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// What all connections of an engine share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum segment lifetime: TIME-WAIT lasts twice this (MUST-13).
    pub msl: Span,
    /// First RTO, before there is a measurement (RFC 6298 s2.1).
    pub rto_initial: Span,
    /// Lower bound of the RTO. 200 ms as Linux; RFC 6298 s2.4 says 1 s SHOULD.
    pub rto_min: Span,
    /// Upper bound of the RTO (RFC 6298 s2.5).
    pub rto_max: Span,
    /// Times a SYN or SYN-ACK is sent again before giving up.
    pub syn_retries: u8,
    /// Connections that peers have opened and not completed, at the most (`tcp_max_syn_backlog`).
    pub syn_backlog: u32,
    pub syncookies: CookiesWhen,
    /// An RST ends no TIME-WAIT (RFC 1337; `tcp_rfc1337`).
    pub rfc1337: bool,
    /// Times data or FIN is sent again before giving up.
    pub data_retries: u8,
    /// How long FIN-WAIT-2 may last once our application has closed.
    pub fin_wait2: Span,
    /// The MSS we offer.
    pub mss: Mss,
    /// Offer and use timestamps (RFC 7323).
    pub timestamps: bool,
    /// What the timestamp clock reads at [`Instant::ZERO`](crate::time::Instant), in ms. It should
    /// go on where the last run on the same addresses stopped: a peer that has its connections in
    /// TIME-WAIT takes earlier timestamps for old duplicates (RFC 6191 s2).
    pub timestamp_origin_ms: u32,
    /// Offer window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Offer and use selective acknowledgments (RFC 2018).
    pub sack: bool,
    /// Receive window in bytes.
    pub window: u32,
    /// How long an ACK of text may wait for a second segment, or for text of ours to ride on; zero
    /// for not at all (RFC 9293 s3.8.6.3, MUST-40).
    pub delayed_ack: Span,
    pub ecn: Ecn,
    /// Differentiated services code point of what is sent, unless the application says otherwise
    /// (RFC 9293 s3.9.1.9, MUST-48).
    pub dscp: u8,
    /// Memory for what all connections of an engine hold out of order.
    pub reassembly_bytes: u32,
    pub congestion: Congestion,
    /// Hold small segments back while something is under way (RFC 9293 s3.7.4, SHLD-7). Off in a
    /// load tester, as an application of its kind would have it (MUST-17).
    pub nagle: bool,
    /// How long data may wait for an acknowledgment before the connection is given up (RFC 9293
    /// s3.9.1.1, RFC 5482), if that is before `data_retries` are over. Told to the peer in SYNs.
    pub user_timeout: Option<Span>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            msl: Span::from_secs(30),
            rto_initial: Span::from_secs(1),
            rto_min: Span::from_millis(200),
            rto_max: Span::from_secs(120),
            // Given up after 1+2+4+...+128 s = 255 s. MUST-23 asks for at least 3 minutes; Linux's
            // 6 give up after 127 s.
            syn_retries: 7,
            // Four megabytes; what a million handshakes a second have under way at a round trip of
            // 65 ms.
            syn_backlog: 65_536,
            syncookies: CookiesWhen::Full,
            rfc1337: false,
            // From 0.2+0.4+...+102.4+120 s upwards; SHLD-11 asks for at least 100 s.
            data_retries: 15,
            fin_wait2: Span::from_secs(60),
            mss: Mss::within(1500),
            timestamps: true,
            timestamp_origin_ms: 0,
            window_scaling: true,
            sack: true,
            window: 262_144,
            // Linux's least.
            delayed_ack: Span::from_millis(40),
            ecn: Ecn::Accept,
            dscp: 0,
            reassembly_bytes: 32_000_000,
            congestion: Congestion::Cubic,
            nagle: false,
            user_timeout: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until a connection is given up that sends `retries` times again, the wait doubled
    /// each time from `first` on.
    fn given_up_after(first: Span, retries: u8, config: &Config) -> Span {
        let wait = |retry: u8| first.times(1 << retry).min(config.rto_max);
        (0..=retries).map(wait).fold(Span::ZERO, |sum, wait| sum + wait)
    }

    #[test]
    fn the_defaults_are_within_what_the_rfc_asks_for() {
        let config = Config::default();
        // MUST-23, SHLD-11; the worst case of data is a round trip of nothing.
        let syn = given_up_after(config.rto_initial, config.syn_retries, &config);
        let text = given_up_after(config.rto_min, config.data_retries, &config);
        assert!(syn >= Span::from_secs(180), "{syn}");
        assert!(text >= Span::from_secs(100), "{text}");
        // MUST-28.
        assert!(Keepalive::default().idle >= Span::from_secs(7200));
    }
}

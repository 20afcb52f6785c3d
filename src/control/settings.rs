//! Every setting there is, said once: a field here is a flag, its help, and a key of the TOML file.
//!
//! Nothing is required and nothing has a default here, because a file may still say it; `plan`
//! decides what is missing and what stands in for what was left out.

use super::address;
use super::value::{self, AppName, Indices, Listen, Ports};
use crate::engine::Subnet;
use crate::flow::tuples::Target;
use crate::tcp::Keepalive;
use crate::time::Span;
use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// Where the run meets the network.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Network")]
pub struct Network {
    /// Interface to run on; it stays the kernel's, only our traffic is taken
    #[arg(short, long, value_name = "IFACE")]
    pub interface: Option<String>,
    /// Our addresses with their prefix, and their VLAN if it is not --vlan: 10.0.0.2/24,
    /// fd00::2/64@100, 10.0.0.10-10.0.3.250/16, 10.0.1.0/24 (every host)
    #[arg(long, value_name = "ADDR/LEN[@VLAN]", value_delimiter = ',',
        value_parser = address::subnet)]
    pub addr: Vec<Subnet>,
    /// Router for addresses outside our subnets, one for each family and VLAN
    #[arg(long, value_name = "ADDR", value_delimiter = ',', value_parser = address::address)]
    pub gateway: Vec<IpAddr>,
    /// 802.1Q tag of the addresses that do not say their own [default: untagged]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub vlan: Option<u16>,
    /// Largest IP datagram in bytes; above 1500 are jumbo frames, in several buffers each where the
    /// device has that [default: the interface's, at most 1500]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=9216))]
    pub mtu: Option<u16>,
    /// Time to live, IPv6's hop limit, of what is sent [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub ttl: Option<u8>,
    /// Queues to take, such as 0-3 [default: all]
    #[arg(long, value_name = "LIST")]
    pub queues: Option<Indices>,
    /// How frames reach us [default: auto, the fastest that works]
    #[arg(long)]
    pub mode: Option<Mode>,
    /// Run the interface's interrupt work on our own core by busy polling
    #[arg(long)]
    pub busy_poll: bool,
    /// Who puts in the TCP checksums of what carries data [default: auto, the NIC if its driver
    /// says so]
    #[arg(long)]
    pub tx_checksum: Option<TxChecksum>,
    /// Accept segments whatever their TCP checksum: a kernel on the other end of a veth leaves it
    /// to hardware that is not there (or run `ethtool -K PEER tx off` on that end)
    #[arg(long)]
    pub no_verify_tcp_checksum: bool,
}

/// How frames reach us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The first of zerocopy, copy, skb that works; it is reported.
    #[default]
    Auto,
    /// AF_XDP, the NIC writes into our memory.
    Zerocopy,
    /// AF_XDP in the driver, one copy a frame.
    Copy,
    /// AF_XDP behind the driver: any interface, slower.
    Skb,
    /// AF_PACKET, where XDP is impossible.
    Packet,
}

/// Who puts in the TCP checksums of what carries data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TxChecksum {
    /// The NIC, where nothing is copied and its driver says that it does.
    #[default]
    Auto,
    /// The NIC, and the kernel where frames are copied (Linux 6.11); over a veth nobody does.
    Device,
    /// We.
    Software,
}

/// What the run may take, and how it goes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Run")]
pub struct Run {
    /// Cores to run on, one worker each, such as 0-3 [default: one]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<Indices>,
    /// Connections at a time and core, and as many more in TIME-WAIT [default: 256k]
    #[arg(long, value_name = "N", value_parser = value::connections)]
    pub max_connections: Option<u32>,
    /// Time for open connections to end once the run is stopping [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    pub drain: Option<Span>,
    /// Seed of every random choice [default: the system's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Keepalive as IDLE/INTERVAL/PROBES, such as 2h/75s/9 [default: off]
    #[arg(long, value_name = "I/I/N", value_parser = value::keepalive)]
    pub keepalive: Option<Keepalive>,
    /// Keep root's privileges, and let workers make any system call
    #[arg(long)]
    pub no_sandbox: bool,
}

/// TCP's constants; `[tcp]` in the file.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TCP ([tcp] in the file)")]
pub struct Tcp {
    /// Maximum segment lifetime: TIME-WAIT lasts twice this [default: 30s; bench: 5ms]
    #[arg(long, alias = "msl", value_name = "TIME", value_parser = value::span)]
    pub tcp_msl: Option<Span>,
    /// First retransmission timeout [default: 1s]
    #[arg(long, alias = "rto-initial", value_name = "TIME", value_parser = value::span)]
    pub tcp_rto_initial: Option<Span>,
    /// Lower bound of the retransmission timeout [default: 200ms]
    #[arg(long, alias = "rto-min", value_name = "TIME", value_parser = value::span)]
    pub tcp_rto_min: Option<Span>,
    /// Upper bound of the retransmission timeout [default: 120s]
    #[arg(long, alias = "rto-max", value_name = "TIME", value_parser = value::span)]
    pub tcp_rto_max: Option<Span>,
    /// Times a SYN or SYN-ACK is sent again [default: 7]
    #[arg(long, alias = "syn-retries", value_name = "N")]
    pub tcp_syn_retries: Option<u8>,
    /// Connections of a core that wait in SYN-RECEIVED, at the most as many as connections in all
    /// [default: 65536]
    #[arg(long, alias = "syn-backlog", value_name = "N", value_parser = value::number32)]
    pub tcp_syn_backlog: Option<u32>,
    /// Answer SYNs with a cookie and keep nothing of them (RFC 4987) [default: full]
    #[arg(long, alias = "syncookies")]
    pub tcp_syncookies: Option<CookiesName>,
    /// Let no RST end a TIME-WAIT (RFC 1337) [default: false]
    #[arg(long, value_name = "BOOL")]
    pub tcp_rfc1337: Option<bool>,
    /// Times data or FIN is sent again [default: 15]
    #[arg(long, alias = "data-retries", value_name = "N")]
    pub tcp_data_retries: Option<u8>,
    /// How long FIN-WAIT-2 may last [default: 60s]
    #[arg(long, alias = "fin-wait2", value_name = "TIME", value_parser = value::span)]
    pub tcp_fin_wait2: Option<Span>,
    /// Largest segment payload we offer to take [default: MTU less 40]
    #[arg(long, alias = "mss", value_name = "BYTES",
        value_parser = clap::value_parser!(u16).range(64..=9176))]
    pub tcp_mss: Option<u16>,
    /// Offer timestamps (RFC 7323) [default: true]
    #[arg(long, value_name = "BOOL")]
    pub tcp_timestamps: Option<bool>,
    /// Offer window scaling (RFC 7323) [default: true]
    #[arg(long, value_name = "BOOL")]
    pub tcp_window_scaling: Option<bool>,
    /// Receive window in bytes [default: 262144]
    #[arg(long, value_name = "BYTES", value_parser = value::number32)]
    pub tcp_window: Option<u32>,
    /// How long an ACK may wait for a second segment, or text to ride on; 0s: not at all, at most
    /// 200ms [default: 40ms]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    pub tcp_delayed_ack: Option<Span>,
    /// Explicit congestion notification (RFC 3168) [default: accept]
    #[arg(long)]
    pub tcp_ecn: Option<EcnName>,
    /// Differentiated services code point of what is sent [default: 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=63))]
    pub tcp_dscp: Option<u8>,
    /// Offer selective acknowledgments (RFC 2018) [default: true]
    #[arg(long, value_name = "BOOL")]
    pub tcp_sack: Option<bool>,
    /// Memory of a core for what arrives out of order [default: 32m]
    #[arg(long, value_name = "BYTES", value_parser = value::number32)]
    pub tcp_reassembly: Option<u32>,
    /// What bounds the bytes under way beside the peer's window; fixed: nothing, for networks that
    /// are not shared [default: cubic]
    #[arg(long)]
    pub tcp_congestion: Option<CongestionName>,
    /// Hold small segments back while something is under way (Nagle) [default: false]
    #[arg(long, value_name = "BOOL")]
    pub tcp_nagle: Option<bool>,
    /// Give a connection up when data has waited so long for its ACK (RFC 5482); 0s: when the tries
    /// are over [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    pub tcp_user_timeout: Option<Span>,
}

/// Congestion control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CongestionName {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 5681.
    #[value(name = "newreno")]
    NewReno,
    /// None: the peer's window alone.
    Fixed,
}

/// When SYN cookies are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CookiesName {
    Off,
    /// When the backlog is full.
    #[default]
    Full,
    Always,
}

/// Explicit congestion notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EcnName {
    Off,
    /// If the peer asks for it.
    #[default]
    Accept,
    /// Ask for it.
    Request,
}

/// A worse network than there is; `[impair]` in the file.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Impairment ([impair] in the file)")]
pub struct Impair {
    /// What it happens to: what we send, what we receive, or each of them by itself [default: tx]
    #[arg(long)]
    pub impair_direction: Option<ImpairDirection>,
    /// Probability that a frame is lost: 0.01 or 1%
    #[arg(long, value_name = "P", value_parser = value::probability)]
    pub impair_loss: Option<f64>,
    /// Probability that a frame is sent twice
    #[arg(long, value_name = "P", value_parser = value::probability)]
    pub impair_dup: Option<f64>,
    /// Probability that a frame is overtaken by later ones
    #[arg(long, value_name = "P", value_parser = value::probability)]
    pub impair_reorder: Option<f64>,
    /// Probability that bits of a frame are flipped
    #[arg(long, value_name = "P", value_parser = value::probability)]
    pub impair_corrupt: Option<f64>,
    /// Delay of every frame
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    pub impair_delay: Option<Span>,
    /// Delay on top, from 0 to this, drawn for each frame
    #[arg(long, value_name = "TIME", value_parser = value::span)]
    pub impair_jitter: Option<Span>,
    /// Bits a second the link carries
    #[arg(long, value_name = "BITS", value_parser = value::number)]
    pub impair_rate: Option<u64>,
}

/// Which frames an impairment happens to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ImpairDirection {
    /// What we send.
    #[default]
    Tx,
    /// What we receive.
    Rx,
    Both,
}

/// What is said, and where to.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Write the results as JSON; `-` is standard output
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write every frame to a pcap file
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// No line a second, only the summary
    #[arg(short, long)]
    pub quiet: bool,
    /// All counters in the summary
    #[arg(short, long)]
    pub verbose: bool,
}

/// What a server listens on.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Server ([[listen]] in the file)")]
pub struct Serve {
    /// Port, or range of ports, with what serves it: 80, 80=http, 8000-8009=echo,
    /// 7003=echo:keepalive=2s/1s/3
    #[arg(long, value_name = "PORTS[=APP]", value_delimiter = ',')]
    pub listen: Vec<Listen>,
    /// What serves the ports that do not say [default: http]
    #[arg(long)]
    pub app: Option<AppName>,
    /// Body of an HTTP response in bytes [default: 100]
    #[arg(long, value_name = "BYTES", value_parser = value::number)]
    pub response_size: Option<u64>,
    /// Stop after this time [default: run until a signal]
    #[arg(short, long, value_name = "TIME", value_parser = value::span)]
    pub duration: Option<Span>,
}

/// Where a client connects to.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Client")]
pub struct Aim {
    /// Where to connect: 10.0.0.2:80, 10.0.0.2-10.0.0.9:80-89, 10.0.1.0/24:80, [fd00::2]:80,
    /// [fd00::10-fd00::1f]:80-89
    #[arg(long, value_name = "ADDR:PORTS", value_delimiter = ',', value_parser = address::target)]
    pub target: Vec<Target>,
    /// Source ports [default: 1024-65535; on a kernel's address 61000-65535]
    #[arg(long, value_name = "PORTS")]
    pub sport: Option<Ports>,
    /// Host header of HTTP requests [default: the first target]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Path of HTTP requests [default: /]
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
}

/// What a client does.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Load")]
pub struct Load {
    /// What each connection does [default: handshake]
    #[arg(long)]
    pub workload: Option<WorkloadName>,
    /// New connections a second, on schedule whatever the answers [default: as fast as connections
    /// end]
    #[arg(short, long, value_name = "N", value_parser = value::positive_rate)]
    pub rate: Option<f64>,
    /// Connections open at a time [default: 200; stream 1; with a rate: --max-connections]
    #[arg(short, long, value_name = "N", value_parser = value::number32)]
    pub connections: Option<u32>,
    /// Open so many first, of which nothing more is asked, and hold them under the rest to the end
    #[arg(long, value_name = "N", value_parser = value::number32)]
    pub held: Option<u32>,
    /// Stop after this time [default: 10s, unless --count or --bytes is given or the workload is
    /// hold]
    #[arg(short, long, value_name = "TIME", value_parser = value::span)]
    pub duration: Option<Span>,
    /// Stop after this many connections [default: no limit; stream with --bytes and no --duration:
    /// --connections]
    #[arg(short = 'n', long, value_name = "N", value_parser = value::number)]
    pub count: Option<u64>,
    /// How the client ends a connection [default: fin]
    #[arg(long)]
    pub close: Option<CloseName>,
    /// Requests on each connection, for http and rr [default: 1]
    #[arg(long, value_name = "N", value_parser = value::number32)]
    pub requests: Option<u32>,
    /// Bytes of a request, for rr [default: 100]
    #[arg(long, value_name = "BYTES", value_parser = value::number)]
    pub request_size: Option<u64>,
    /// Bytes of a response: http and rr check it, bench serves it [default: rr the request's, http
    /// any; bench 100]
    #[arg(long, value_name = "BYTES", value_parser = value::number)]
    pub response_size: Option<u64>,
    /// Which way a stream goes; up is from client to server [default: up]
    #[arg(long)]
    pub direction: Option<DirectionName>,
    /// Bytes of each stream and direction: 500m, 1GiB [default: to the end of the run]
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    pub bytes: Option<u64>,
}

/// What each connection of a client does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WorkloadName {
    /// Open, close.
    #[default]
    Handshake,
    /// GET, check status and length, close.
    Http,
    /// Send a request, wait for the response, so many times, close.
    Rr,
    /// Stay open.
    Hold,
    /// Send, receive, or both, so many bytes or to the end of the run, every byte verified.
    Stream,
}

/// Which way a stream goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DirectionName {
    /// From client to server.
    #[default]
    Up,
    /// From server to client.
    Down,
    /// Both at once.
    Both,
}

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CloseName {
    #[default]
    Fin,
    Rst,
}

/// Where a bench runs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Bench")]
pub struct Rig {
    /// Between the two ends: memory needs no root, veth makes its own pair of namespaces [default:
    /// memory]
    #[arg(long)]
    pub link: Option<LinkName>,
    /// Threads: memory 1 (both ends on one core), 2 (a core each), or as many clients as servers
    /// on queues of their own, on more threads than cores too; veth one queue each [default: 1;
    /// veth: every core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: Option<u32>,
    /// Who serves: our stack, or on a veth the kernel's own sockets [default: ours]
    #[arg(long)]
    pub peer: Option<PeerName>,
    /// On a veth, measure something else on the same veth in the same run, and print the ratio;
    /// repeat it for several
    #[arg(long, value_delimiter = ',')]
    pub compare: Vec<Rival>,
    /// Measure the same packets without TCP's state on the same link, in turns with the run, and
    /// print the ratio: of the rates or, with --rate, of the times to the SYN-ACK; takes as long
    /// again
    #[arg(long)]
    pub floor: bool,
    /// IP version between the two ends [default: 4]
    #[arg(long, value_name = "4|6")]
    pub family: Option<FamilyName>,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FamilyName {
    #[default]
    #[value(name = "4")]
    Ipv4,
    #[value(name = "6")]
    Ipv6,
}

/// What connects the two ends of a bench.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LinkName {
    /// Two rings in memory.
    #[default]
    Memory,
    /// A veth pair between two namespaces, AF_XDP on both ends.
    Veth,
}

/// Who serves in a bench.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PeerName {
    /// Our stack.
    #[default]
    Ours,
    /// The kernel's sockets, at the other end of the veth.
    Kernel,
}

/// What a bench compares itself with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rival {
    /// The kernel's TCP: a client and a server on epoll
    Kernel,
    /// The kernel's TCP: a client and a server on io_uring
    IoUring,
}

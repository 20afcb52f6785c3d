//! What a client is asked to do.

/// What goes on over a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Open, close.
    Handshake,
    /// GET `path`, `requests` times a connection; the response is to have status 200 and, if given,
    /// so many bytes.
    Http { host: String, path: String, requests: u32, response_bytes: Option<u64> },
    /// `count` times a request and a response. The server is an echo if both are the same size
    /// (every byte is then compared), and a discard if there is no response.
    Rr { request_bytes: u64, response_bytes: u64, count: u32 },
    /// Open, and stay until the run stops. What ends before is opened anew.
    Hold,
    /// So many bytes up and down over each connection, or to the end of the run
    /// ([`ENDLESS`](super::stream::ENDLESS)). The server is a `stream`.
    Stream { up_bytes: u64, down_bytes: u64 },
}

/// How many connections, how fast, and how they are closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Connections a second, evenly spaced; as fast as `connections` allows if `None`.
    pub rate_per_second: Option<f64>,
    /// Connections at a time, those in TIME-WAIT and those held not counted.
    pub connections: u32,
    /// Connections that are opened before all others, and held to the end.
    pub held: u32,
    /// Connections in all; without end if `None`. At a rate, one that is refused counts; in a
    /// closed loop it is tried again.
    pub count: Option<u64>,
    pub close: Close,
}

/// How the client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    Fin,
    Rst,
}

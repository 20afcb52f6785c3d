//! An HTTP/1.1 server (RFC 9112) that answers every request with a body of one size. Keep-alive and
//! pipelining as the client asks; no body and no path is looked at.
//!
//! Responses that keep the connection are all alike, so what stands at a stream offset follows from
//! `offset % length`. Whatever differs (HEAD, an error, a last response) closes the connection
//! after it: there is at most one, at the end.

use super::head::{Familiar, Fault, Head};
use super::{Owes, pattern};

/// Longest head taken, in bytes: what nginx and Apache take. Empty lines before a request count.
pub const HEAD_BYTES_MAX: u16 = 8192;

/// Text of all bodies, repeated: whole lines, so that a terminal shows them well.
static BODY: [u8; 64 * 32] = body();

/// The responses of one listener.
pub struct Site {
    ordinary: Response,
    farewells: [Response; 6],
    familiar: Familiar,
}

/// A response after which the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    Ok,
    /// To HEAD: the length is told, the body is not sent.
    HeadOnly,
    BadRequest,
    HeadTooLong,
    /// Transfer codings are not read (RFC 9112 s6.1).
    NotImplemented,
    Version,
}

/// A connection. After a farewell nothing more is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    head: Head,
    /// Bytes of the request's body still to come.
    body_left: u64,
    /// Bytes of responses promised so far; the farewell, if there is one, is the last of them.
    promised: u64,
    farewell: Option<Farewell>,
    /// The next response is the last.
    stopping: bool,
}

impl State {
    /// Bytes promised so far, if there is nothing else to know: it waits for a request.
    pub fn rest(&self) -> Option<u64> {
        let waits = self.head.is_untouched() && self.farewell.is_none() && !self.stopping;
        waits.then_some(self.promised)
    }

    /// One that waits for a request, with so many bytes promised so far.
    pub fn woken(promised: u64) -> State {
        State { promised, ..State::default() }
    }
}

/// What was served, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests answered with 200.
    pub requests: u64,
    /// Requests answered with an error.
    pub rejected: u64,
}

impl Site {
    /// A site whose bodies have `response_bytes` bytes.
    pub fn new(response_bytes: u64) -> Site {
        let farewell = |status, length, body| Response::new(status, "close", length, body);
        let error = |status| farewell(status, 0, 0);
        Site {
            ordinary: Response::new("200 OK", "keep-alive", response_bytes, response_bytes),
            farewells: [
                farewell("200 OK", response_bytes, response_bytes),
                farewell("200 OK", response_bytes, 0),
                error("400 Bad Request"),
                error("431 Request Header Fields Too Large"),
                error("501 Not Implemented"),
                error("505 HTTP Version Not Supported"),
            ],
            familiar: Familiar::new(),
        }
    }

    pub fn received(&mut self, state: &mut State, mut data: &[u8], served: &mut Served) -> Owes {
        let mut owes = Owes::NOTHING;
        while !data.is_empty() && state.farewell.is_none() {
            if !state.head.is_complete() {
                match self.familiar.read(&mut state.head, data) {
                    Ok(Some(bytes)) => data = &data[bytes..],
                    Ok(None) => break,
                    Err(fault) => return owes.and(self.leave(state, fault.into(), served)),
                }
                if state.head.is_coded() {
                    return owes.and(self.leave(state, Farewell::NotImplemented, served));
                }
                state.body_left = state.head.content_length().unwrap_or(0);
            }
            let body = state.body_left.min(data.len() as u64);
            data = &data[body as usize..];
            state.body_left -= body;
            if state.body_left == 0 {
                owes = owes.and(self.answer(state, served));
            }
        }
        owes
    }

    /// The request was read to its end.
    fn answer(&self, state: &mut State, served: &mut Served) -> Owes {
        if state.head.is_head() {
            return self.leave(state, Farewell::HeadOnly, served);
        }
        if state.stopping || !state.head.persists() {
            return self.leave(state, Farewell::Ok, served);
        }
        state.head = Head::request();
        state.promised = state.promised.saturating_add(self.ordinary.len());
        served.requests += 1;
        Owes::send(self.ordinary.len())
    }

    /// Sends the last response. FIN goes with its last segment.
    fn leave(&self, state: &mut State, farewell: Farewell, served: &mut Served) -> Owes {
        match farewell {
            Farewell::Ok | Farewell::HeadOnly => served.requests += 1,
            Farewell::BadRequest
            | Farewell::HeadTooLong
            | Farewell::NotImplemented
            | Farewell::Version => served.rejected += 1,
        }
        state.farewell = Some(farewell);
        let bytes = self.farewell(farewell).len();
        state.promised = state.promised.saturating_add(bytes);
        Owes::send(bytes).and(Owes::CLOSE)
    }

    /// Closes between requests; a request under way gets its response, and that is the last.
    pub fn drain(&self, state: &mut State) -> Owes {
        if state.farewell.is_none() && state.head.is_untouched() {
            return Owes::CLOSE;
        }
        state.stopping = true;
        Owes::NOTHING
    }

    pub fn payload(&self, state: &State, mut offset: u64, mut out: &mut [u8]) {
        let farewell = state.farewell.map(|farewell| self.farewell(farewell));
        let farewell_at = state.promised - farewell.map_or(0, Response::len);
        while !out.is_empty() {
            let (response, at) = match farewell {
                Some(farewell) if offset >= farewell_at => (farewell, offset - farewell_at),
                Some(_) | None => (&self.ordinary, offset % self.ordinary.len()),
            };
            let bytes = (response.len() - at).min(out.len() as u64);
            let (now, later) = out.split_at_mut(bytes as usize);
            response.copy(at, now);
            out = later;
            offset += bytes;
        }
    }

    fn farewell(&self, farewell: Farewell) -> &Response {
        &self.farewells[farewell as usize]
    }
}

/// Responses that were promised are still sent.
pub const fn peer_closed() -> Owes {
    Owes::CLOSE
}

impl State {
    /// The connection came while the run is stopping: one request is served.
    pub fn stop(&mut self) {
        self.stopping = true;
    }
}

impl From<Fault> for Farewell {
    fn from(fault: Fault) -> Farewell {
        match fault {
            Fault::Malformed => Farewell::BadRequest,
            Fault::TooLong => Farewell::HeadTooLong,
            Fault::Version => Farewell::Version,
        }
    }
}

/// A head and `body_bytes` of [`BODY`].
struct Response {
    head: Box<[u8]>,
    body_bytes: u64,
}

impl Response {
    fn new(status: &str, connection: &str, content_length: u64, body_bytes: u64) -> Response {
        let head = format!(
            "HTTP/1.1 {status}\r\nServer: shakedown\r\nContent-Type: text/plain\r\n\
             Content-Length: {content_length}\r\nConnection: {connection}\r\n\r\n"
        );
        Response { head: head.into_bytes().into_boxed_slice(), body_bytes }
    }

    fn len(&self) -> u64 {
        self.head.len() as u64 + self.body_bytes
    }

    /// Copies from byte `at` of the response; all of `out` lies within it.
    fn copy(&self, at: u64, out: &mut [u8]) {
        let head = self.head.get(at.min(u64::from(u32::MAX)) as usize..).unwrap_or_default();
        let (in_head, in_body) = out.split_at_mut(out.len().min(head.len()));
        in_head.copy_from_slice(&head[..in_head.len()]);
        pattern::repeat(&BODY, at.saturating_sub(self.head.len() as u64), in_body);
    }
}

const fn body() -> [u8; 64 * 32] {
    let line = b"shakedown 0123456789 abcdefghijklmnopqrstuvwxyz 0123456789 abcd\n";
    let mut text = [0; 64 * 32];
    let mut at = 0;
    while at < text.len() {
        text[at] = line[at % line.len()];
        at += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    const LAST: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";

    /// Feeds `pieces` to a new connection; answers its state, what it owes, and what was served.
    fn serve<'a>(
        site: &mut Site,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (State, Owes, Served) {
        let (mut state, mut owes, mut served) = Default::default();
        for piece in pieces {
            owes = Owes::and(owes, site.received(&mut state, piece, &mut served));
        }
        (state, owes, served)
    }

    fn stream(site: &Site, state: &State) -> String {
        let mut out = vec![0; state.promised as usize];
        site.payload(state, 0, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_gets_a_response_of_the_size_asked_for_and_the_connection_stays() {
        for size in [0, 1, 100, 2048, 100_000] {
            let mut site = Site::new(size);
            let (state, owes, served) = serve(&mut site, [GET]);
            let text = stream(&site, &state);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(head.contains(&format!("\r\nContent-Length: {size}\r\n")));
            assert!(head.ends_with("\r\nConnection: keep-alive"));
            assert_eq!(body.len() as u64, size);
            assert_eq!(owes, Owes::send(text.len() as u64));
            assert_eq!(served, Served { requests: 1, rejected: 0 });
        }
    }

    #[test]
    fn pipelined_requests_are_answered_in_order_and_the_last_closes() {
        let mut site = Site::new(10);
        let (state, owes, served) = serve(&mut site, [[GET, GET, LAST, GET].concat().as_slice()]);
        let text = stream(&site, &state);
        assert_eq!(text.matches("Connection: keep-alive").count(), 2);
        assert_eq!(text.matches("Connection: close").count(), 1);
        assert_eq!(
            text.matches("HTTP/1.1 200 OK").count(),
            3,
            "what follows the last request is not read"
        );
        assert_eq!(owes, Owes::send(text.len() as u64).and(Owes::CLOSE));
        assert_eq!(served.requests, 3);
    }

    #[test]
    fn http_1_0_closes_unless_it_asks_for_keep_alive() {
        let mut site = Site::new(5);
        let (_, owes, _) = serve(&mut site, [b"GET / HTTP/1.0\r\n\r\n".as_slice()]);
        assert!(owes.close);
        let (state, owes, _) =
            serve(&mut site, [b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".as_slice()]);
        assert!(!owes.close);
        assert!(stream(&site, &state).contains("keep-alive"));
    }

    #[test]
    fn head_gets_the_length_without_the_body() {
        let mut site = Site::new(77);
        let (state, owes, _) = serve(&mut site, [b"HEAD / HTTP/1.1\r\n\r\n".as_slice()]);
        let text = stream(&site, &state);
        assert!(text.contains("Content-Length: 77\r\n") && text.ends_with("\r\n\r\n"));
        assert!(owes.close);
    }

    #[test]
    fn a_body_is_passed_over_and_answered_at_its_end() {
        let mut site = Site::new(5);
        let post = b"POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\n".as_slice();
        let (_, owes, _) = serve(&mut site, [post, &[b'x'; 29]]);
        assert_eq!(owes, Owes::NOTHING);
        let (_, owes, served) = serve(&mut site, [post, &[b'x'; 29], b"x", GET]);
        assert_eq!(owes, Owes::send(2 * site.ordinary.len()));
        assert_eq!(served.requests, 2);
    }

    #[test]
    fn what_cannot_be_served_gets_its_status_and_the_connection_closes() {
        let mut site = Site::new(5);
        for (request, status) in [
            ("nonsense\r\n\r\n", "400 "),
            ("GET / HTTP/3.0\r\n\r\n", "505 "),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                "501 ",
            ),
            (&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), "431 "),
        ] {
            let (state, owes, served) = serve(&mut site, [GET, request.as_bytes(), GET]);
            let text = stream(&site, &state);
            assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "{text}");
            assert!(text.contains(&format!("HTTP/1.1 {status}")), "{text}");
            assert!(owes.close);
            assert_eq!(served, Served { requests: 1, rejected: 1 });
        }
    }

    #[test]
    fn draining_closes_between_requests_and_waits_within_one() {
        let mut site = Site::new(5);
        let (mut idle, ..) = serve(&mut site, [GET]);
        assert_eq!(site.drain(&mut idle), Owes::CLOSE);
        let (mut busy, _, mut served) = serve(&mut site, [&GET[..7]]);
        assert_eq!(site.drain(&mut busy), Owes::NOTHING);
        assert!(site.received(&mut busy, &GET[7..], &mut served).close);
    }

    proptest! {
        /// Goal: the bytes of the stream depend on the requests alone, not on how they were cut up
        /// or how much is asked for at a time.
        #[test]
        fn the_stream_is_the_same_however_it_is_cut(
            size in 0u64..5000,
            gets in 0usize..5,
            end in 0usize..4,
            step in 1usize..200,
            ask in 1usize..3000,
        ) {
            let ends: [&[u8]; 4] = [b"", LAST, b"HEAD / HTTP/1.1\r\n\r\n", b"?\r\n"];
            let requests = [&GET.repeat(gets), ends[end]].concat();
            let mut site = Site::new(size);
            let (whole, owes, served) = serve(&mut site, [requests.as_slice()]);
            let (pieces, owes_pieces, served_pieces) = serve(&mut site, requests.chunks(step));
            prop_assert_eq!((owes, served), (owes_pieces, served_pieces));
            let expected = stream(&site, &whole);
            let mut asked = vec![0; pieces.promised as usize];
            for (i, out) in asked.chunks_mut(ask).enumerate() {
                site.payload(&pieces, (i * ask) as u64, out);
            }
            prop_assert_eq!(expected.as_bytes(), asked);
        }
    }
}

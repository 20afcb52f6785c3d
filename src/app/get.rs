//! A client's HTTP/1.1 GET: the request, and what is checked of the response. Requests keep the
//! connection but for the last one, which says `Connection: close`.

use super::head::{Familiar, Head};
use super::pattern;
use super::results::{Progress, Results};

/// The requests of all connections of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    keep: Box<[u8]>,
    last: Box<[u8]>,
    requests: u32,
    /// What the body's length is to be; anything goes if `None`.
    response_bytes: Option<u64>,
    familiar: Familiar,
}

/// Where in the response a connection is.
#[derive(Clone, Copy, Debug)]
pub struct State {
    head: Head,
    /// Bytes of the body so far.
    body: u64,
    /// Its length. `None` if the head does not say: the body ends with the connection.
    length: Option<u64>,
}

impl Plan {
    /// # Panics
    /// If `host` or `path` would break the request line or a field: they hold a space or a control
    /// character; or if there is no request.
    pub fn new(host: &str, path: &str, requests: u32, response_bytes: Option<u64>) -> Plan {
        assert!(requests > 0, "a connection makes a request");
        let fits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        assert!(
            fits(host) && fits(path),
            "host {host:?} or path {path:?} can't stand in a request"
        );
        let request = |connection: &str| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shakedown\r\n{connection}\r\n"
            )
            .into_bytes()
            .into_boxed_slice()
        };
        Plan {
            keep: request(""),
            last: request("Connection: close\r\n"),
            requests,
            response_bytes,
            familiar: Familiar::new(),
        }
    }

    /// Starts transaction `index` of a connection. Answers the bytes of its request.
    pub fn begin(&self, state: &mut State, index: u32) -> u64 {
        *state = State::new();
        let request = if index + 1 == self.requests { &self.last } else { &self.keep };
        request.len() as u64
    }

    pub fn received(
        &mut self,
        state: &mut State,
        mut data: &[u8],
        results: &mut Results,
    ) -> Progress {
        while !state.head.is_complete() {
            match self.familiar.read(&mut state.head, data) {
                Ok(Some(bytes)) => data = &data[bytes..],
                Ok(None) => return Progress::Waiting,
                Err(_) => return Progress::Broken,
            }
            match state.head.status() {
                // An interim response: the final one follows (RFC 9110 s15.2).
                100..=199 => state.head = Head::response(),
                204 | 304 => state.length = Some(0),
                // Deviates: a client must understand chunked (RFC 9112 s7.1); the length of what a
                // load test asks for is known.
                _ if state.head.is_coded() => return Progress::Broken,
                _ => state.length = state.head.content_length(),
            }
        }
        state.body += data.len() as u64;
        match state.length {
            Some(length) if state.body > length => Progress::Broken,
            Some(length) if state.body == length => self.judge(state, results),
            Some(_) | None => Progress::Waiting,
        }
    }

    /// The peer's FIN: the end of a body of untold length, and of nothing else.
    pub fn peer_closed(&self, state: &State, results: &mut Results) -> Progress {
        if state.head.is_complete() && state.length.is_none() {
            self.judge(state, results)
        } else {
            Progress::Waiting
        }
    }

    pub fn payload(&self, offset: u64, out: &mut [u8]) {
        let last_at = u64::from(self.requests - 1) * self.keep.len() as u64;
        let keep = last_at.saturating_sub(offset).min(out.len() as u64);
        let (keep, last) = out.split_at_mut(keep as usize);
        pattern::repeat(&self.keep, offset, keep);
        pattern::repeat(&self.last, offset.saturating_sub(last_at), last);
    }

    /// The response is complete: is it what was asked for?
    fn judge(&self, state: &State, results: &mut Results) -> Progress {
        let status = state.head.status() == 200;
        let length = self.response_bytes.is_none_or(|bytes| bytes == state.body);
        results.status_errors += u64::from(!status);
        results.length_errors += u64::from(status && !length);
        let last = !state.head.persists() || state.length.is_none();
        Progress::Complete { good: status && length, last }
    }
}

impl State {
    pub const fn new() -> State {
        State { head: Head::response(), body: 0, length: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn respond(plan: &mut Plan, text: &[u8], step: usize) -> (State, Progress, Results) {
        let (mut state, mut results) = (State::new(), Results::default());
        plan.begin(&mut state, 0);
        let mut progress = Progress::Waiting;
        for piece in text.chunks(step) {
            progress = plan.received(&mut state, piece, &mut results);
            if progress == Progress::Broken {
                break;
            }
        }
        (state, progress, results)
    }

    #[test]
    fn requests_keep_the_connection_but_for_the_last() {
        let plan = Plan::new("a:80", "/x", 3, None);
        let mut state = State::new();
        let total: u64 = (0..3).map(|index| plan.begin(&mut state, index)).sum();
        let mut text = vec![0; total as usize];
        plan.payload(0, &mut text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.matches("GET /x HTTP/1.1\r\nHost: a:80\r\n").count(), 3);
        assert!(text.ends_with("Connection: close\r\n\r\n"));
        assert_eq!(text.matches("Connection").count(), 1);
    }

    proptest! {
        #[test]
        fn any_range_of_the_requests_agrees_with_the_whole(
            requests in 1u32..5, from in 0usize..400, len in 0usize..400,
        ) {
            let plan = Plan::new("a", "/", requests, None);
            let mut state = State::new();
            let total: u64 = (0..requests).map(|index| plan.begin(&mut state, index)).sum();
            let mut whole = vec![0; total as usize];
            plan.payload(0, &mut whole);
            let from = from.min(whole.len());
            let len = len.min(whole.len() - from);
            let mut part = vec![0; len];
            plan.payload(from as u64, &mut part);
            prop_assert_eq!(&part, &whole[from..from + len]);
        }

        #[test]
        fn a_response_is_judged_the_same_however_it_is_cut(step in 1usize..80) {
            let mut plan = Plan::new("a", "/", 2, Some(5));
            let judged = |good, last| Progress::Complete { good, last };
            let ok = "HTTP/1.1 200 OK\r\n";
            for (head, rest, expected) in [
                (ok, "Content-Length: 5\r\n\r\nhello", Progress::GOOD),
                ("HTTP/1.1 100 C\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nhello", Progress::Waiting),
                ("HTTP/1.1 100 C\r\n\r\n", "HTTP/1.1 204 X\r\n\r\n", judged(false, false)),
                (ok, "Connection: close\r\nContent-Length: 5\r\n\r\nhello", judged(true, true)),
                ("HTTP/1.1 404 X\r\n", "Content-Length: 0\r\n\r\n", judged(false, false)),
                ("HTTP/1.1 304 X\r\n", "Content-Length: 9\r\n\r\n", judged(false, false)),
                (ok, "Content-Length: 6\r\n\r\nhello!", judged(false, false)),
                (ok, "Content-Length: 6\r\n\r\nhello", Progress::Waiting),
                (ok, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello", Progress::Broken),
                ("220 smtp.example\r\n", "", Progress::Broken),
            ] {
                let text = [head, rest].concat();
                prop_assert_eq!(respond(&mut plan, text.as_bytes(), step).1, expected, "{}", text);
            }
        }
    }

    #[test]
    fn a_body_of_untold_length_ends_with_the_connection() {
        let mut plan = Plan::new("a", "/", 2, Some(5));
        let (state, progress, mut results) = respond(&mut plan, b"HTTP/1.1 200 OK\r\n\r\nhello", 7);
        assert_eq!(progress, Progress::Waiting);
        assert_eq!(
            plan.peer_closed(&state, &mut results),
            Progress::Complete { good: true, last: true }
        );
        let (state, _, mut results) =
            respond(&mut plan, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 7);
        assert_eq!(plan.peer_closed(&state, &mut results), Progress::Waiting);
    }

    #[test]
    fn bytes_after_the_response_break_the_protocol() {
        let mut plan = Plan::new("a", "/", 2, None);
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, world";
        assert_eq!(respond(&mut plan, text, text.len()).1, Progress::Broken);
    }
}

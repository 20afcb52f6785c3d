//! The head of an HTTP/1 message (RFC 9112), read incrementally over any segmentation with no
//! buffer: sixteen bytes of state hold where we are in the grammar and what was learned. Knows only
//! what decides where a message ends and whether the connection lives on; every other field is
//! checked and passed over.

use super::http::HEAD_BYTES_MAX;

/// Why a head can't be read. Nothing after it can be either: where the next message starts is not
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Malformed,
    /// Longer than [`HEAD_BYTES_MAX`].
    TooLong,
    /// Not HTTP/1.
    Version,
}

/// A head, as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    step: Step,
    word: Word,
    flags: u8,
    bytes: u16,
    status: u16,
    length: u64,
}

const _: () = assert!(size_of::<Head>() == 16);

/// Where in the grammar the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Before a request: empty lines are passed over (RFC 9112 s2.2).
    Blank,
    Method,
    Target,
    RequestVersion,
    ResponseVersion,
    Status,
    /// Rest of a line that says nothing to us: a reason phrase, or the value of another field.
    Rest,
    FieldStart,
    FieldName,
    Connection,
    ContentLength,
    TransferEncoding,
    /// CR was seen: LF must follow.
    LineFeed,
    /// CR of the empty line was seen.
    LastLineFeed,
    Complete,
}

const HEAD_METHOD: u8 = 1;
/// The minor version is 0.
const OLD: u8 = 1 << 1;
const CLOSE: u8 = 1 << 2;
const KEEP_ALIVE: u8 = 1 << 3;
const CODED: u8 = 1 << 4;
const LENGTH_DIGITS: u8 = 1 << 5;
/// White space after the digits of Content-Length.
const LENGTH_DONE: u8 = 1 << 6;

const VERSION: &[u8; 5] = b"HTTP/";
const METHODS: &[&[u8]] = &[b"HEAD"];
const OPTIONS: &[(&[u8], u8)] = &[(b"close", CLOSE), (b"keep-alive", KEEP_ALIVE)];
const FIELDS: &[&[u8]] = &[b"connection", b"content-length", b"transfer-encoding"];

impl Default for Head {
    fn default() -> Head {
        Head::request()
    }
}

impl Head {
    pub const fn request() -> Head {
        Head::starting(Step::Blank)
    }

    pub const fn response() -> Head {
        Head::starting(Step::ResponseVersion)
    }

    const fn starting(step: Step) -> Head {
        Head { step, word: Word::EMPTY, flags: 0, bytes: 0, status: 0, length: 0 }
    }

    /// Reads `data` up to the end of the head. Answers how many bytes of it belong to the head once
    /// that is complete, and `None` when all of it does and more is to come.
    ///
    /// # Errors
    /// The head is not HTTP/1, or too long. Do not read on.
    pub fn read(&mut self, data: &[u8]) -> Result<Option<usize>, Fault> {
        let mut at = 0;
        while at < data.len() {
            // Most bytes are of the target and of values that say nothing to us: these are passed
            // over in one stride.
            let stride = match self.step {
                Step::Target => data[at..].iter().take_while(|&&byte| is_visible(byte)).count(),
                Step::Rest => data[at..].iter().take_while(|&&byte| is_text(byte)).count(),
                _ => 0,
            };
            if stride > 0 {
                self.word.len = 1;
            }
            let end = (at + stride + 1).min(data.len());
            self.bytes = self.bytes.saturating_add((end - at).min(usize::from(u16::MAX)) as u16);
            if self.bytes > HEAD_BYTES_MAX {
                return Err(Fault::TooLong);
            }
            if at + stride < data.len() {
                self.step = self.after(data[at + stride])?;
            }
            at = end;
            if self.step == Step::Complete {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// All of it was read.
    pub fn is_complete(&self) -> bool {
        self.step == Step::Complete
    }

    /// Nothing of it was read.
    pub fn is_untouched(&self) -> bool {
        self.bytes == 0
    }

    /// The method is HEAD: the response has no body (RFC 9110 s9.3.2).
    pub fn is_head(&self) -> bool {
        self.flags & HEAD_METHOD != 0
    }

    /// The sender keeps the connection open for another message (RFC 9112 s9.3).
    pub fn persists(&self) -> bool {
        self.flags & CLOSE == 0 && (self.flags & OLD == 0 || self.flags & KEEP_ALIVE != 0)
    }

    /// There is a Transfer-Encoding: the body does not end where Content-Length says.
    pub fn is_coded(&self) -> bool {
        self.flags & CODED != 0
    }

    /// Content-Length, if it was there.
    pub fn content_length(&self) -> Option<u64> {
        (self.flags & LENGTH_DIGITS != 0).then_some(self.length)
    }

    /// Status code of a response.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The step after `byte`.
    fn after(&mut self, byte: u8) -> Result<Step, Fault> {
        match self.step {
            Step::Blank => match byte {
                b'\r' | b'\n' => Ok(Step::Blank),
                byte => self.in_method(byte),
            },
            Step::Method => self.in_method(byte),
            Step::Target if byte == b' ' && self.word.len > 0 => {
                self.word = Word::EMPTY;
                Ok(Step::RequestVersion)
            }
            Step::Target => Err(Fault::Malformed),
            Step::RequestVersion if self.word.len == 8 => line_end(byte),
            Step::RequestVersion => self.in_version(byte, Step::RequestVersion),
            Step::ResponseVersion if self.word.len == 8 && byte == b' ' => {
                self.word = Word::EMPTY;
                Ok(Step::Status)
            }
            Step::ResponseVersion => self.in_version(byte, Step::ResponseVersion),
            Step::Status => self.in_status(byte),
            Step::Rest => line_end(byte),
            Step::FieldStart => match byte {
                b'\r' => Ok(Step::LastLineFeed),
                b'\n' => Ok(Step::Complete),
                byte => {
                    self.word = Word::EMPTY;
                    self.in_name(byte)
                }
            },
            Step::FieldName => self.in_name(byte),
            Step::Connection => self.in_options(byte),
            Step::ContentLength => self.in_length(byte),
            Step::TransferEncoding => {
                self.flags |= CODED;
                if is_text(byte) { Ok(Step::Rest) } else { line_end(byte) }
            }
            Step::LineFeed if byte == b'\n' => Ok(Step::FieldStart),
            Step::LastLineFeed if byte == b'\n' => Ok(Step::Complete),
            Step::LineFeed | Step::LastLineFeed | Step::Complete => Err(Fault::Malformed),
        }
    }

    fn in_method(&mut self, byte: u8) -> Result<Step, Fault> {
        if is_token(byte) {
            self.word.push(byte, METHODS.iter().copied());
            return Ok(Step::Method);
        }
        if byte != b' ' || self.word.len == 0 {
            return Err(Fault::Malformed);
        }
        if self.word.found(METHODS.iter().copied()).is_some() {
            self.flags |= HEAD_METHOD;
        }
        self.word = Word::EMPTY;
        Ok(Step::Target)
    }

    fn in_version(&mut self, byte: u8, step: Step) -> Result<Step, Fault> {
        match (self.word.len, byte) {
            (at @ 0..=4, byte) if byte == VERSION[usize::from(at)] => {}
            (5, b'1') | (6, b'.') | (7, b'1'..=b'9') => {}
            (5, b'0'..=b'9') => return Err(Fault::Version),
            (7, b'0') => self.flags |= OLD,
            _ => return Err(Fault::Malformed),
        }
        self.word.len += 1;
        Ok(step)
    }

    fn in_status(&mut self, byte: u8) -> Result<Step, Fault> {
        match (self.word.len, byte) {
            (0..=2, b'0'..=b'9') => {
                self.status = self.status * 10 + u16::from(byte - b'0');
                self.word.len += 1;
                Ok(Step::Status)
            }
            (3, b' ') => Ok(Step::Rest),
            (3, byte) => line_end(byte),
            _ => Err(Fault::Malformed),
        }
    }

    /// In a field's name, or at its start: a line that starts with white space (obs-fold, RFC 9112
    /// s5.2) and white space before the colon (s5.1) are malformed, because no token holds it.
    fn in_name(&mut self, byte: u8) -> Result<Step, Fault> {
        if is_token(byte) {
            self.word.push(byte.to_ascii_lowercase(), FIELDS.iter().copied());
            return Ok(Step::FieldName);
        }
        if byte != b':' || self.word.len == 0 {
            return Err(Fault::Malformed);
        }
        let field = self.word.found(FIELDS.iter().copied());
        self.word = Word::EMPTY;
        match field {
            Some(0) => Ok(Step::Connection),
            // Deviates: the same length said twice may be read as once (RFC 9110 s8.6); refused,
            // nothing sends it.
            Some(1) if self.flags & LENGTH_DIGITS != 0 => Err(Fault::Malformed),
            Some(1) => Ok(Step::ContentLength),
            Some(_) => Ok(Step::TransferEncoding),
            None => Ok(Step::Rest),
        }
    }

    /// In the list of connection options: the words we know are remembered (RFC 9110 s7.6.1).
    fn in_options(&mut self, byte: u8) -> Result<Step, Fault> {
        let names = OPTIONS.iter().map(|&(name, _)| name);
        if is_token(byte) {
            self.word.push(byte.to_ascii_lowercase(), names);
            return Ok(Step::Connection);
        }
        if let Some(option) = self.word.found(names) {
            self.flags |= OPTIONS[option].1;
        }
        self.word = Word::EMPTY;
        if is_text(byte) { Ok(Step::Connection) } else { line_end(byte) }
    }

    fn in_length(&mut self, byte: u8) -> Result<Step, Fault> {
        match byte {
            b'0'..=b'9' if self.flags & LENGTH_DONE == 0 => {
                let digit = u64::from(byte - b'0');
                let length =
                    self.length.checked_mul(10).and_then(|length| length.checked_add(digit));
                self.length = length.ok_or(Fault::Malformed)?;
                self.flags |= LENGTH_DIGITS;
                Ok(Step::ContentLength)
            }
            b' ' | b'\t' => {
                if self.flags & LENGTH_DIGITS != 0 {
                    self.flags |= LENGTH_DONE;
                }
                Ok(Step::ContentLength)
            }
            byte if self.flags & LENGTH_DIGITS != 0 => line_end(byte),
            _ => Err(Fault::Malformed),
        }
    }
}

/// The head that was read last, if it came in one piece. The peers of a load test say the same
/// thing again and again, and reading it took a third of the time of an HTTP connection in memory.
#[derive(Clone, Debug)]
pub struct Familiar {
    bytes: [u8; FAMILIAR_BYTES_MAX],
    /// Zero if there is none yet.
    len: usize,
    head: Head,
}

/// Longest head that is remembered. curl, wrk and ab stay below half of it.
const FAMILIAR_BYTES_MAX: usize = 256;

impl Familiar {
    pub const fn new() -> Familiar {
        Familiar { bytes: [0; FAMILIAR_BYTES_MAX], len: 0, head: Head::request() }
    }

    /// [`Head::read`], or what it answered to the same bytes before. All of its heads must be of
    /// one kind, requests or responses.
    ///
    /// # Errors
    /// As [`Head::read`].
    pub fn read(&mut self, head: &mut Head, data: &[u8]) -> Result<Option<usize>, Fault> {
        let whole = head.is_untouched();
        if whole && self.len > 0 && data.starts_with(&self.bytes[..self.len]) {
            *head = self.head;
            return Ok(Some(self.len));
        }
        let end = head.read(data)?;
        if let Some(bytes) = end.filter(|&bytes| whole && bytes <= FAMILIAR_BYTES_MAX) {
            self.bytes[..bytes].copy_from_slice(&data[..bytes]);
            (self.len, self.head) = (bytes, *head);
        }
        Ok(end)
    }
}

/// A word that is read byte by byte and compared with a short list at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// Bit i is cleared when word i of the list is out.
    candidates: u8,
    /// Bytes so far, up to 255. Of a target: whether there are any.
    len: u8,
}

impl Word {
    const EMPTY: Word = Word { candidates: u8::MAX, len: 0 };

    fn push(&mut self, byte: u8, list: impl Iterator<Item = &'static [u8]>) {
        if self.candidates != 0 {
            let at = usize::from(self.len);
            for (bit, word) in list.enumerate() {
                if word.get(at) != Some(&byte) {
                    self.candidates &= !(1 << bit);
                }
            }
        }
        self.len = self.len.saturating_add(1);
    }

    /// Which word of the list it is.
    fn found(&self, list: impl Iterator<Item = &'static [u8]>) -> Option<usize> {
        let len = usize::from(self.len);
        list.enumerate()
            .position(|(bit, word)| self.candidates & 1 << bit != 0 && word.len() == len)
    }
}

/// At the end of a line: CR LF, or LF alone (RFC 9112 s2.2).
fn line_end(byte: u8) -> Result<Step, Fault> {
    match byte {
        b'\r' => Ok(Step::LineFeed),
        b'\n' => Ok(Step::FieldStart),
        _ => Err(Fault::Malformed),
    }
}

/// May stand in a field's value (RFC 9110 s5.5) or a reason phrase.
const fn is_text(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// May stand in a request target: no white space, no control character.
const fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// RFC 9110 s5.6.2: tchar.
const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

static TOKEN: [bool; 256] = token();

const fn token() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Head, Fault> {
        let mut head = Head::request();
        match head.read(text.as_bytes())? {
            Some(bytes) => {
                assert_eq!(bytes, text.len(), "{text:?}");
                Ok(head)
            }
            None => panic!("{text:?} has no end"),
        }
    }

    #[test]
    fn what_curl_wrk_and_ab_send_is_understood() {
        let curl =
            "GET / HTTP/1.1\r\nHost: 10.0.0.2\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
        let wrk = "GET / HTTP/1.1\r\nHost: 10.0.0.2:80\r\n\r\n";
        let ab = "GET /x?y=1 HTTP/1.0\r\nHost: 10.0.0.2\r\nUser-Agent: ApacheBench/2.3\r\n\r\n";
        let ab_k = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: 10.0.0.2\r\n\r\n";
        for (text, persists) in [(curl, true), (wrk, true), (ab, false), (ab_k, true)] {
            let head = read(text).unwrap();
            assert_eq!(head.persists(), persists, "{text}");
            assert_eq!(
                (head.is_head(), head.is_coded(), head.content_length()),
                (false, false, None)
            );
        }
    }

    #[test]
    fn the_fields_that_matter_are_found_in_any_case_and_order() {
        let head =
            read("POST / HTTP/1.1\r\ncontent-LENGTH:\t42 \r\nCONNECTION: upgrade, Close\r\n\r\n")
                .unwrap();
        assert_eq!((head.content_length(), head.persists()), (Some(42), false));
        let head = read(
            "HEAD / HTTP/1.1\nConnections: close\nX-Connection: close\nTransfer-Encoding:\n\n",
        );
        let head = head.unwrap();
        assert!(head.is_head() && head.persists() && head.is_coded());
        assert!(!read("HEADS / HTTP/1.1\r\n\r\n").unwrap().is_head());
        assert!(!read("HEA / HTTP/1.1\r\n\r\n").unwrap().is_head());
        assert!(
            read("GET / HTTP/1.1\r\nConnection: closed, keep-alive-not\r\n\r\n")
                .unwrap()
                .persists()
        );
    }

    #[test]
    fn empty_lines_before_a_request_are_passed_over() {
        assert!(read("\r\n\nGET / HTTP/1.1\r\n\r\n").is_ok());
    }

    #[test]
    fn what_is_not_http_is_refused_with_the_reason() {
        for (text, fault) in [
            (" GET / HTTP/1.1\r\n\r\n", Fault::Malformed),
            ("GET  / HTTP/1.1\r\n\r\n", Fault::Malformed),
            ("GET  HTTP/1.1\r\n\r\n", Fault::Malformed),
            ("GET /\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/2.0\r\n\r\n", Fault::Version),
            ("GET / HTTP/1.1 \r\n\r\n", Fault::Malformed),
            ("GET / http/1.1\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\n folded\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\n: x\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nHost: \0\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nHost: x\ry\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nContent-Length: \r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nContent-Length: 1 2\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", Fault::Malformed),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Fault::Malformed),
            ("\x16\x03\x01\x02\0", Fault::Malformed),
        ] {
            assert_eq!(read(text), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn a_head_may_be_just_as_long_as_the_limit() {
        let text = |bytes: usize| {
            let fixed = "GET / HTTP/1.1\r\nX: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(bytes - fixed))
        };
        assert!(read(&text(usize::from(HEAD_BYTES_MAX))).is_ok());
        assert_eq!(read(&text(usize::from(HEAD_BYTES_MAX) + 1)), Err(Fault::TooLong));
        assert_eq!(Head::request().read(&[b'\n'; 70_000]), Err(Fault::TooLong));
        assert_eq!(Head::request().read(&[b'x'; 70_000]), Err(Fault::TooLong));
    }

    #[test]
    fn a_response_head_gives_its_status_and_length() {
        let mut head = Head::response();
        let text = b"HTTP/1.1 404 Not Found\r\nServer: x\r\nContent-Length: 7\r\n\r\nmissing";
        assert_eq!(head.read(text), Ok(Some(text.len() - 7)));
        assert_eq!((head.status(), head.content_length(), head.persists()), (404, Some(7), true));
        for short in ["HTTP/1.0 200\r\n\r\n", "HTTP/1.0 200 \r\n\r\n"] {
            let mut head = Head::response();
            assert_eq!(head.read(short.as_bytes()), Ok(Some(short.len())));
            assert_eq!((head.status(), head.persists()), (200, false));
        }
        for bad in ["HTTP/1.1 20\r\n", "HTTP/1.1 2000\r\n", "HTTP/1.1\r\n", "SSH-2.0-x\r\n"] {
            assert_eq!(Head::response().read(bad.as_bytes()), Err(Fault::Malformed), "{bad:?}");
        }
    }

    /// Reads in pieces cut at `cuts`; answers the outcome and the number of bytes read before it.
    fn read_in_pieces(text: &[u8], cuts: &[usize]) -> (Head, Result<Option<usize>, Fault>) {
        let mut head = Head::request();
        let mut start = 0;
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
        cuts.extend([text.len()]);
        cuts.sort_unstable();
        for end in cuts {
            match head.read(&text[start..end]) {
                Ok(None) => start = end,
                Ok(Some(bytes)) => return (head, Ok(Some(start + bytes))),
                Err(fault) => return (head, Err(fault)),
            }
        }
        (head, Ok(None))
    }

    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "GET ",
            "HEAD ",
            "/",
            "/index.html ",
            " ",
            "HTTP/1.1",
            "HTTP/1.0",
            "\r\n",
            "\n",
            "\r",
            ":",
            ",",
            "Host: x\r\n",
            "Connection: ",
            "close",
            "keep-alive",
            "Content-Length: ",
            "17",
            "Transfer-Encoding: chunked\r\n",
            "\0",
            "GET / HTTP/1.1\r\n",
            "\r\n\r\n",
        ]);
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat().into_bytes())
    }

    /// Two heads that are complete, and others.
    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let keep = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /".to_vec();
        let close = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec();
        prop_oneof![Just(keep), Just(close), plausible()]
    }

    proptest! {
        /// Goal: whatever was read before, and however it came, what is familiar reads as if new.
        #[test]
        fn a_familiar_head_reads_as_a_new_one(
            texts in prop::collection::vec((likely(), any::<usize>()), 1..6),
            again in 0usize..6,
        ) {
            let mut familiar = Familiar::new();
            for at in [again % texts.len(), 0, again % texts.len(), again % texts.len()] {
                let (text, cut) = &texts[at];
                let (first, rest) = text.split_at(cut % (text.len() + 1));
                for pieces in [[first, rest], [text.as_slice(), &[]]] {
                    let (mut new, mut seen) = (Head::request(), Head::request());
                    for piece in pieces {
                        let outcome = new.read(piece);
                        prop_assert_eq!(&outcome, &familiar.read(&mut seen, piece));
                        if outcome != Ok(None) {
                            break;
                        }
                        prop_assert_eq!(new, seen);
                    }
                }
            }
        }

        #[test]
        fn the_outcome_does_not_depend_on_the_segmentation(
            text in prop_oneof![plausible(), prop::collection::vec(any::<u8>(), 0..200)],
            cuts in prop::collection::vec(any::<usize>(), 0..10),
        ) {
            let (whole, outcome) = read_in_pieces(&text, &[]);
            let (pieces, again) = read_in_pieces(&text, &cuts);
            prop_assert_eq!(outcome, again);
            if outcome.is_ok() {
                prop_assert_eq!(whole, pieces);
            }
        }
    }
}

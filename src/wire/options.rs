//! TCP options (RFC 9293 s3.2, RFC 7323, RFC 2018, RFC 5482), gathered in one pass.

use super::{Malformed, checksum};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const USER_TIMEOUT: u8 = 28;

/// Padding, kind and length of timestamps where there is nothing else.
const TIMESTAMPS_ALONE: [u8; 4] = [NOP, NOP, TIMESTAMPS, 10];

/// Blocks that one header has room for.
pub const SACK_BLOCKS_MAX: usize = 4;

/// The options of one segment that we understand; all others are skipped by their length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size in bytes.
    pub mss: Option<u16>,
    /// Window scale shift as sent; RFC 7323 s2.3 caps its use at 14.
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    pub sack: Sack,
    /// User timeout as sent: the granularity bit and fifteen bits of time (RFC 5482 s3).
    pub user_timeout: Option<u16>,
}

/// The blocks of a SACK option (RFC 2018 s3): left and right edge of each, in the order in which
/// they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sack {
    blocks: [(u32, u32); SACK_BLOCKS_MAX],
    count: u8,
}

/// The words of options that are laid out as most are: timestamps alone (RFC 7323 appendix A), and
/// those of a SYN, as Linux lays them out, and we.
pub(super) enum Layout {
    Nothing,
    Timestamps([u32; 3]),
    Syn([u32; 5]),
    Any,
}

#[inline(always)]
fn timestamps_words((value, echo): (u32, u32)) -> [u32; 3] {
    [u32::from_be_bytes(TIMESTAMPS_ALONE), value, echo]
}

#[inline(always)]
fn syn_words(mss: u16, (value, echo): (u32, u32), shift: u8) -> [u32; 5] {
    [
        u32::from_be_bytes([MSS, 4, 0, 0]) | u32::from(mss),
        u32::from_be_bytes([SACK_PERMITTED, 2, TIMESTAMPS, 10]),
        value,
        echo,
        u32::from_be_bytes([NOP, WINDOW_SCALE, 3, shift]),
    ]
}

/// Words of options in the longest header.
const WORDS_MAX: usize = 10;

/// Options as they are written: whole words, so that a header never needs padding (which would be
/// zero, MUST-69).
pub(super) struct Words {
    words: [u32; WORDS_MAX],
    count: usize,
}

impl Options {
    pub const NONE: Options = Options {
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: Sack { blocks: [(0, 0); SACK_BLOCKS_MAX], count: 0 },
        user_timeout: None,
    };

    /// Reads the option bytes of any segment, at any alignment (RFC 9293 s3.1 MUST-5, MUST-64). An
    /// option that we know but whose length is not its own is skipped; of two alike the last
    /// counts.
    ///
    /// # Errors
    /// A length is 0, 1, or past the end (MUST-7).
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Options, Malformed> {
        let mut options = Options::NONE;
        if bytes.is_empty() || options.read_syn(bytes).is_some() {
            return Ok(options);
        }
        options.timestamps = Options::only_timestamps(bytes);
        if options.timestamps.is_some() { Ok(options) } else { Options::parse_any(bytes) }
    }

    /// Reads a SYN's as Linux, and we, lay them out into what has none; answers their words, or
    /// `None` if these are not so.
    #[inline(always)]
    fn read_syn(&mut self, bytes: &[u8]) -> Option<[u32; 5]> {
        let &[
            MSS,
            4,
            m0,
            m1,
            SACK_PERMITTED,
            2,
            TIMESTAMPS,
            10,
            ref pair @ ..,
            NOP,
            WINDOW_SCALE,
            3,
            shift,
        ] = bytes
        else {
            return None;
        };
        let &[v0, v1, v2, v3, e0, e1, e2, e3] = pair else { return None };
        let mss = u16::from_be_bytes([m0, m1]);
        let stamps = (u32::from_be_bytes([v0, v1, v2, v3]), u32::from_be_bytes([e0, e1, e2, e3]));
        self.mss = Some(mss);
        self.window_scale = Some(shift);
        self.sack_permitted = true;
        self.timestamps = Some(stamps);
        Some(syn_words(mss, stamps, shift))
    }

    /// RFC 7323 appendix A: what nearly every segment has that has options at all.
    #[inline(always)]
    fn only_timestamps(bytes: &[u8]) -> Option<(u32, u32)> {
        let (bytes, []) = bytes.as_chunks::<4>() else { return None };
        let [kinds, value, echo] = *<&[[u8; 4]; 3]>::try_from(bytes).ok()?;
        if kinds != TIMESTAMPS_ALONE {
            return None;
        }
        Some((u32::from_be_bytes(value), u32::from_be_bytes(echo)))
    }

    /// Reads the option bytes of a segment into what has none so far; answers the sum of their
    /// words. `None` as [`Options::parse`] has an error.
    #[inline(always)]
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<u64> {
        if bytes.is_empty() {
            return Some(0);
        }
        if let Some(pair) = Options::only_timestamps(bytes) {
            self.timestamps = Some(pair);
            return Some(checksum::sum_words(&timestamps_words(pair)));
        }
        if let Some(words) = self.read_syn(bytes) {
            return Some(checksum::sum_words(&words));
        }
        *self = Options::parse_any(bytes).ok()?;
        Some(checksum::sum(bytes))
    }

    /// How the options are laid out.
    #[inline(always)]
    pub(super) fn layout(&self) -> Layout {
        let Options { mss, window_scale, sack_permitted, timestamps, sack, user_timeout } = self;
        if !sack.is_empty() || user_timeout.is_some() {
            return Layout::Any;
        }
        match (timestamps, mss, window_scale, sack_permitted) {
            (None, None, None, false) => Layout::Nothing,
            (&Some(stamps), None, None, false) => Layout::Timestamps(timestamps_words(stamps)),
            (&Some(stamps), &Some(mss), &Some(shift), true) => {
                Layout::Syn(syn_words(mss, stamps, shift))
            }
            _ => Layout::Any,
        }
    }

    /// Out of the common path's way. The three that every TCP must know (MUST-4) among others;
    /// whatever else has a length (MUST-68), and is skipped by it (MUST-6). A length that can't be
    /// ends the reading with an error, never with a loop (MUST-7).
    #[inline(never)]
    fn parse_any(mut bytes: &[u8]) -> Result<Options, Malformed> {
        let mut options = Options::default();
        loop {
            bytes = match *bytes {
                [] | [END, ..] => return Ok(options),
                [NOP, ref rest @ ..] => rest,
                [MSS, 4, a, b, ref rest @ ..] => {
                    options.mss = Some(u16::from_be_bytes([a, b]));
                    rest
                }
                [WINDOW_SCALE, 3, shift, ref rest @ ..] => {
                    options.window_scale = Some(shift);
                    rest
                }
                [SACK_PERMITTED, 2, ref rest @ ..] => {
                    options.sack_permitted = true;
                    rest
                }
                [TIMESTAMPS, 10, v0, v1, v2, v3, e0, e1, e2, e3, ref rest @ ..] => {
                    let value = u32::from_be_bytes([v0, v1, v2, v3]);
                    options.timestamps = Some((value, u32::from_be_bytes([e0, e1, e2, e3])));
                    rest
                }
                [SACK, len @ (10 | 18 | 26 | 34), ref rest @ ..]
                    if rest.len() >= usize::from(len) - 2 =>
                {
                    let (edges, rest) = rest.split_at(usize::from(len) - 2);
                    options.sack = Sack::parse(edges);
                    rest
                }
                [USER_TIMEOUT, 4, a, b, ref rest @ ..] => {
                    options.user_timeout = Some(u16::from_be_bytes([a, b]));
                    rest
                }
                [_, len, ..] if len >= 2 && usize::from(len) <= bytes.len() => {
                    &bytes[usize::from(len)..]
                }
                [_, ..] => return Err(Malformed::TcpOption),
            };
        }
    }

    /// Bytes that the options take in a header: a multiple of four, 40 at most, with as many blocks
    /// of SACK as there is room for.
    #[inline]
    pub fn len(&self) -> usize {
        match self.layout() {
            Layout::Nothing => 0,
            Layout::Timestamps(words) => 4 * words.len(),
            Layout::Syn(words) => 4 * words.len(),
            Layout::Any => self.len_of_any(),
        }
    }

    #[cold]
    fn len_of_any(&self) -> usize {
        let sack_word = self.sack_permitted && self.timestamps.is_none();
        let words = usize::from(self.mss.is_some())
            + 3 * usize::from(self.timestamps.is_some())
            + usize::from(sack_word)
            + usize::from(self.window_scale.is_some())
            + usize::from(self.user_timeout.is_some());
        4 * words + self.sack.len(words)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The options as words, in Linux's order and alignment, which middleboxes know best: MSS,
    /// SACK-permitted in the place of the timestamps' two NOPs, timestamps, window scale, user
    /// timeout, SACK. Whole words leave no padding, whose bytes would be zero (MUST-69); all but
    /// NOP have a length (MUST-68).
    #[inline]
    pub(super) fn words(&self) -> Words {
        let mut words = Words { words: [0; WORDS_MAX], count: 0 };
        if let Some(mss) = self.mss {
            words.push([MSS, 4, (mss >> 8) as u8, mss as u8]);
        }
        match (self.timestamps, self.sack_permitted) {
            (Some(_), true) => words.push([SACK_PERMITTED, 2, TIMESTAMPS, 10]),
            (Some(_), false) => words.push(TIMESTAMPS_ALONE),
            (None, true) => words.push([NOP, NOP, SACK_PERMITTED, 2]),
            (None, false) => {}
        }
        if let Some((value, echo)) = self.timestamps {
            words.push(value.to_be_bytes());
            words.push(echo.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            words.push([NOP, WINDOW_SCALE, 3, shift]);
        }
        if let Some(timeout) = self.user_timeout {
            words.push([USER_TIMEOUT, 4, (timeout >> 8) as u8, timeout as u8]);
        }
        let blocks = self.sack.first(words.count);
        if !blocks.is_empty() {
            words.push([NOP, NOP, SACK, 2 + 8 * blocks.len() as u8]);
        }
        for &(left, right) in blocks {
            words.push(left.to_be_bytes());
            words.push(right.to_be_bytes());
        }
        words
    }
}

impl Sack {
    /// The blocks, first first.
    pub fn blocks(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.count)]
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a block at the end; false if there is no room for it.
    pub fn push(&mut self, left: u32, right: u32) -> bool {
        let Some(place) = self.blocks.get_mut(usize::from(self.count)) else { return false };
        *place = (left, right);
        self.count += 1;
        true
    }

    /// The first blocks, as many as there is room for after so many words of other options (RFC
    /// 2018 s3): all of those are six at most, so one at least.
    #[inline]
    fn first(&self, words: usize) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.count).min((WORDS_MAX - 1 - words) / 2)]
    }

    /// Bytes that the option takes after so many words, its two NOPs included.
    #[inline]
    fn len(&self, words: usize) -> usize {
        if self.is_empty() { 0 } else { 4 + 8 * self.first(words).len() }
    }

    fn parse(edges: &[u8]) -> Sack {
        let mut sack = Sack::default();
        let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        for block in edges.chunks_exact(8) {
            sack.push(word(&block[..4]), word(&block[4..]));
        }
        sack
    }
}

impl Words {
    #[inline]
    pub(super) fn as_slice(&self) -> &[u32] {
        &self.words[..self.count]
    }

    #[inline]
    fn push(&mut self, bytes: [u8; 4]) {
        self.words[self.count] = u32::from_be_bytes(bytes);
        self.count += 1;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any options.
    pub fn any_options() -> impl Strategy<Value = Options> {
        (any::<Option<u16>>(), any::<Option<u8>>(), any::<bool>(), any::<Option<(u32, u32)>>())
            .prop_map(|(mss, window_scale, sack_permitted, timestamps)| Options {
                mss,
                window_scale,
                sack_permitted,
                timestamps,
                ..Options::default()
            })
    }

    fn written(options: &Options) -> Vec<u8> {
        options.words().as_slice().iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_syn_of_linux_is_laid_out_as_linux_does() {
        let golden = crate::wire::hex("020405b4 0402080a 4aba782d 00000000 0103030a");
        let options = Options {
            mss: Some(1460),
            window_scale: Some(10),
            sack_permitted: true,
            timestamps: Some((0x4aba_782d, 0)),
            ..Options::default()
        };
        assert_eq!(Options::parse(&golden), Ok(options));
        assert_eq!(written(&options), golden);
    }

    #[test]
    fn options_stand_at_any_byte() {
        // Timestamps first, then the rest, each off its alignment by another count.
        let bytes = crate::wire::hex("080a 00000001 00000002 01 0402 01 0204 0218 0303 07 00ff");
        let options = Options {
            mss: Some(536),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 2)),
            ..Options::default()
        };
        assert_eq!(Options::parse(&bytes), Ok(options));
    }

    #[test]
    fn what_we_do_not_know_is_skipped_by_its_length() {
        let unknown = crate::wire::hex("fd 06 01020304 01 fe 02 0204 05b4");
        assert_eq!(Options::parse(&unknown).unwrap().mss, Some(1460));
        // A SACK block and a half, and an MSS of a length that is not its own.
        let strange = crate::wire::hex("050e 0000000100000002 00000003 0206 05b40000");
        assert_eq!(Options::parse(&strange), Ok(Options::default()));
    }

    #[test]
    fn nothing_after_the_end_of_the_list_is_read() {
        assert_eq!(Options::parse(&crate::wire::hex("01 00 0200 0204")), Ok(Options::default()));
    }

    #[test]
    fn lengths_of_zero_one_and_past_the_end_are_malformed() {
        for bytes in ["0200", "0201", "fd00", "020405", "01 02", "fd05 0102", "020405b4 08"] {
            let parsed = Options::parse(&crate::wire::hex(bytes));
            assert_eq!(parsed, Err(Malformed::TcpOption), "{bytes}");
        }
    }

    #[test]
    fn sack_blocks_are_laid_out_as_linux_does_and_come_back() {
        let golden = crate::wire::hex(
            "0101080a 0000000100000002 0101 0512 00000010 00000020 00000030 00000040",
        );
        let mut options = Options { timestamps: Some((1, 2)), ..Options::default() };
        assert!(options.sack.push(0x10, 0x20) && options.sack.push(0x30, 0x40));
        assert_eq!(Options::parse(&golden), Ok(options));
        assert_eq!((written(&options), options.len()), (golden, 32));
        let mut full = Sack::default();
        assert_eq!((0..5).filter(|&n| full.push(n, n + 1)).count(), SACK_BLOCKS_MAX);
        let full = Options { sack: full, ..Options::default() };
        assert_eq!(Options::parse(&written(&full)), Ok(full));
    }

    #[test]
    fn a_user_timeout_comes_back() {
        let options = Options { user_timeout: Some(0x8003), ..Options::default() };
        assert_eq!(written(&options), crate::wire::hex("1c04 8003"));
        assert_eq!(Options::parse(&written(&options)), Ok(options));
    }

    #[test]
    fn blocks_that_find_no_room_are_left_out() {
        let mut options = Options {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 2)),
            user_timeout: Some(3),
            ..Options::NONE
        };
        for left in [10, 20, 30, 40] {
            assert!(options.sack.push(left, left + 5));
        }
        assert_eq!((written(&options).len(), options.len()), (36, 36));
        assert_eq!(Options::parse(&written(&options)).unwrap().sack.blocks(), [(10, 15)]);
        options = Options { sack: options.sack, timestamps: Some((1, 2)), ..Options::NONE };
        assert_eq!((written(&options).len(), options.len()), (40, 40));
        assert_eq!(Options::parse(&written(&options)).unwrap().sack.blocks().len(), 3);
    }

    proptest! {
        #[test]
        fn options_come_back_as_they_went(options in any_options()) {
            let bytes = written(&options);
            prop_assert_eq!(bytes.len(), options.len());
            prop_assert_eq!(options.is_empty(), bytes.is_empty());
            prop_assert!(bytes.len() <= 40);
            prop_assert_eq!(Options::parse(&bytes), Ok(options));
        }

        #[test]
        fn random_bytes_end_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..=40)) {
            let _ = Options::parse(&bytes);
        }
    }
}

//! The character generator (RFC 864): 72-character lines for as long as the peer listens.

use super::{Owes, pattern};

/// How far ahead of the acknowledged bytes the promise runs: more than any window, so that it never
/// holds the sender up, and little enough to be sent out after the peer's FIN.
const AHEAD_BYTES: u64 = 1 << 20;

const LINE_BYTES: usize = 74;
const PRINTABLE: usize = 95;

/// RFC 864's "one popular pattern": each line starts one character later, and after 95 lines it is
/// the first again.
static LINES: [u8; LINE_BYTES * PRINTABLE] = lines();

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct State {
    promised: u64,
    closed: bool,
}

impl State {
    pub fn established(&mut self) -> Owes {
        self.acknowledged(0)
    }

    pub fn acknowledged(&mut self, acked: u64) -> Owes {
        if self.closed {
            return Owes::NOTHING;
        }
        let more = acked.saturating_add(AHEAD_BYTES).saturating_sub(self.promised);
        self.promised += more;
        Owes::send(more)
    }

    pub fn peer_closed(&mut self) -> Owes {
        self.closed = true;
        Owes::CLOSE
    }
}

pub fn payload(offset: u64, out: &mut [u8]) {
    pattern::repeat(&LINES, offset, out);
}

const fn lines() -> [u8; LINE_BYTES * PRINTABLE] {
    let mut bytes = [0; LINE_BYTES * PRINTABLE];
    let mut at = 0;
    while at < bytes.len() {
        let (line, column) = (at / LINE_BYTES, at % LINE_BYTES);
        bytes[at] = match column {
            72 => b'\r',
            73 => b'\n',
            _ => b' ' + ((line + column) % PRINTABLE) as u8,
        };
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_72_printable_characters_and_start_one_later_each() {
        let mut text = vec![0; LINE_BYTES * 200];
        payload(0, &mut text);
        let lines: Vec<_> = text.chunks(LINE_BYTES).collect();
        assert!(lines[0].starts_with(b" !\"#$%&'()*+,-./0123456789:;<=>?@AB"));
        for pair in lines.windows(2) {
            assert_eq!(pair[0][1..72], pair[1][..71]);
            assert!(pair[0][..72].iter().all(|byte| (b' '..=b'~').contains(byte)));
            assert!(pair[0].ends_with(b"\r\n"));
        }
        assert_eq!(lines[0], lines[PRINTABLE]);
    }

    #[test]
    fn the_promise_keeps_its_distance_until_the_peer_closes() {
        let mut state = State::default();
        assert_eq!(state.established(), Owes::send(AHEAD_BYTES));
        assert_eq!(state.acknowledged(0), Owes::NOTHING);
        assert_eq!(state.acknowledged(5000), Owes::send(5000));
        assert_eq!(state.peer_closed(), Owes::CLOSE);
        assert_eq!(state.acknowledged(9000), Owes::NOTHING);
    }
}

//! Bulk transfer, the serving end: a connection begins with an order of 32 bytes that says how much
//! is to go each way, and both directions hold [`pattern`] bytes, so that every byte is verified
//! where it arrives.
//!
//! ```text
//!   client  ORDER  up bytes of pattern .................  FIN
//!   server         down bytes of pattern ....  RECEIPT    FIN
//! ```
//! The receipt says what came: how many bytes, and how many of them were wrong. It follows the last
//! byte down once the last byte up is here. A direction that is [`ENDLESS`] lasts to the client's
//! FIN, and down without an end has no receipt. A client that closes before it has everything wants
//! no more: what was not sent yet is not sent.

use super::{Owes, pattern};

/// Until the client's FIN: in the place of a number of bytes.
pub const ENDLESS: u64 = u64::MAX;

/// Bytes of an [`Order`] on the wire.
pub const ORDER_BYTES: usize = 32;

/// Bytes of a [`Receipt`] on the wire.
pub const RECEIPT_BYTES: usize = 16;

/// What a connection is to carry. On the wire: the mark, then the three numbers, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Tells this connection's bytes from those of others.
    pub salt: u32,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes from the server.
    pub down: u64,
}

/// What a server received up to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    pub bytes: u64,
    /// Bytes that were not those of the pattern.
    pub wrong: u64,
}

/// What was served, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Connections with an order.
    pub orders: u64,
    /// Connections aborted because they did not begin with an order, or sent more than it said.
    pub rejected: u64,
    /// Received bytes that were not the ones expected.
    pub verify_errors: u64,
}

/// A connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    order: Order,
    /// Bytes received after the order, and how many of them were wrong, up to 2^32.
    received: u64,
    wrong: u32,
    /// Bytes of the order that were read.
    read: u8,
    /// Nothing more will be promised.
    done: bool,
}

const MARK: &[u8; 12] = b"SHAKEDOWN 1\n";

impl Order {
    /// The salt of what the server sends.
    pub fn salt_down(&self) -> u32 {
        !self.salt
    }

    pub fn to_bytes(self) -> [u8; ORDER_BYTES] {
        let mut bytes = [0; ORDER_BYTES];
        bytes[..12].copy_from_slice(MARK);
        bytes[12..16].copy_from_slice(&self.salt.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.up.to_be_bytes());
        bytes[24..].copy_from_slice(&self.down.to_be_bytes());
        bytes
    }

    /// Takes byte `at` of an order. False if no order has it there.
    fn take(&mut self, at: u8, byte: u8) -> bool {
        match at {
            0..12 => return byte == MARK[usize::from(at)],
            12..16 => self.salt = self.salt << 8 | u32::from(byte),
            16..24 => self.up = self.up << 8 | u64::from(byte),
            _ => self.down = self.down << 8 | u64::from(byte),
        }
        true
    }
}

impl Receipt {
    pub fn to_bytes(self) -> [u8; RECEIPT_BYTES] {
        let mut bytes = [0; RECEIPT_BYTES];
        bytes[..8].copy_from_slice(&self.bytes.to_be_bytes());
        bytes[8..].copy_from_slice(&self.wrong.to_be_bytes());
        bytes
    }

    /// Takes byte `at` of a receipt.
    pub fn take(&mut self, at: u8, byte: u8) {
        let number = if at < 8 { &mut self.bytes } else { &mut self.wrong };
        *number = *number << 8 | u64::from(byte);
    }
}

impl State {
    pub fn received(&mut self, data: &[u8], served: &mut Served) -> Owes {
        let (owes, text) = match self.read_order(data) {
            Ok((0, text)) => (Owes::NOTHING, text),
            Ok((_, text)) if self.has_order() => {
                served.orders += 1;
                (Owes::send(self.order.down), text)
            }
            Ok(_) => return Owes::NOTHING,
            Err(()) => return self.reject(served),
        };
        if text.len() as u64 > self.order.up.saturating_sub(self.received) {
            return self.reject(served);
        }
        let wrong = pattern::mismatches(self.order.salt, self.received, text);
        served.verify_errors += wrong;
        self.wrong = self.wrong.saturating_add(wrong as u32);
        self.received += text.len() as u64;
        let whole = self.received == self.order.up;
        if whole && self.order.down != ENDLESS { owes.and(self.sign()) } else { owes }
    }

    /// Reads what of `data` belongs to the order. Answers how much did, and the rest.
    fn read_order<'a>(&mut self, data: &'a [u8]) -> Result<(usize, &'a [u8]), ()> {
        let (order, text) = data.split_at(data.len().min(ORDER_BYTES - usize::from(self.read)));
        for &byte in order {
            if !self.order.take(self.read, byte) {
                return Err(());
            }
            self.read += 1;
        }
        Ok((order.len(), text))
    }

    fn has_order(&self) -> bool {
        usize::from(self.read) == ORDER_BYTES
    }

    /// The receipt, and the end.
    fn sign(&mut self) -> Owes {
        if self.done {
            return Owes::NOTHING;
        }
        self.done = true;
        Owes::send(RECEIPT_BYTES as u64).and(Owes::CLOSE)
    }

    fn reject(&mut self, served: &mut Served) -> Owes {
        self.done = true;
        served.rejected += 1;
        Owes::ABORT
    }

    /// The end of an endless upload, or of a client's interest.
    pub fn peer_closed(&mut self) -> Owes {
        if self.has_order() && self.order.down == 0 { self.sign() } else { self.stop() }
    }

    /// Ends with what was sent so far.
    pub fn stop(&mut self) -> Owes {
        self.done = true;
        Owes::CURTAIL.and(Owes::CLOSE)
    }

    pub fn payload(&self, offset: u64, out: &mut [u8]) {
        let text = self.order.down.saturating_sub(offset).min(out.len() as u64);
        let (text, receipt) = out.split_at_mut(text as usize);
        pattern::fill(self.order.salt_down(), offset, text);
        let at = offset.saturating_sub(self.order.down) as usize;
        let bytes = Receipt { bytes: self.received, wrong: self.wrong.into() }.to_bytes();
        receipt.copy_from_slice(&bytes[at..at + receipt.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORDER: Order = Order { salt: 7, up: 5000, down: 3000 };

    /// An order and the first `bytes` of what follows it.
    fn upload(order: Order, bytes: usize) -> Vec<u8> {
        let mut text = vec![0; bytes];
        pattern::fill(order.salt, 0, &mut text);
        [order.to_bytes().as_slice(), &text].concat()
    }

    fn receipt(state: &State) -> Receipt {
        let (mut bytes, mut receipt) = ([0; RECEIPT_BYTES], Receipt::default());
        state.payload(state.order.down, &mut bytes);
        (0..).zip(bytes).for_each(|(at, byte)| receipt.take(at, byte));
        receipt
    }

    proptest! {
        /// Goal: what is owed and what the receipt says do not depend on how the stream was cut.
        #[test]
        fn an_order_is_served_however_it_comes_in_pieces(step in 1usize..2000, wrong in 0usize..5) {
            let mut text = upload(ORDER, 5000);
            (0..wrong).for_each(|i| text[100 + i * 700] ^= 1);
            let (mut state, mut served, mut owes) = Default::default();
            for piece in text.chunks(step) {
                owes = Owes::and(owes, State::received(&mut state, piece, &mut served));
            }
            prop_assert_eq!(owes, Owes::send(3000 + RECEIPT_BYTES as u64).and(Owes::CLOSE));
            let wrong = wrong as u64;
            prop_assert_eq!(served, Served { orders: 1, rejected: 0, verify_errors: wrong });
            prop_assert_eq!(receipt(&state), Receipt { bytes: 5000, wrong });
            prop_assert!(state.received(b"more", &mut served).abort);
        }

        #[test]
        fn any_range_of_the_download_agrees_with_the_whole(
            from in 0usize..3016, len in 0usize..3016,
        ) {
            let (mut state, mut served) = Default::default();
            State::received(&mut state, &upload(ORDER, 5000), &mut served);
            let mut whole = vec![0; 3016];
            state.payload(0, &mut whole);
            prop_assert_eq!(pattern::mismatches(ORDER.salt_down(), 0, &whole[..3000]), 0);
            let mut part = vec![0; len.min(3016 - from)];
            state.payload(from as u64, &mut part);
            prop_assert_eq!(&part, &whole[from..from + part.len()]);
        }
    }

    #[test]
    fn what_does_not_begin_with_an_order_is_aborted_at_the_first_wrong_byte() {
        let (mut state, mut served) = <(State, Served)>::default();
        assert_eq!(state.received(b"SHAKE", &mut served), Owes::NOTHING);
        assert_eq!(state.received(b"R", &mut served), Owes::ABORT);
        assert_eq!(served.rejected, 1);
    }

    #[test]
    fn an_endless_upload_gets_its_receipt_at_the_fin() {
        let order = Order { up: ENDLESS, down: 0, ..ORDER };
        let (mut state, mut served) = Default::default();
        assert_eq!(State::received(&mut state, &upload(order, 900), &mut served), Owes::NOTHING);
        assert_eq!(state.peer_closed(), Owes::send(16).and(Owes::CLOSE));
        assert_eq!(receipt(&state), Receipt { bytes: 900, wrong: 0 });
        assert_eq!(state.peer_closed(), Owes::NOTHING);
    }

    #[test]
    fn a_client_that_closes_early_gets_no_more_than_was_sent() {
        for order in [Order { down: ENDLESS, ..ORDER }, ORDER] {
            let (mut state, mut served) = Default::default();
            let owes = State::received(&mut state, &upload(order, 10), &mut served);
            assert_eq!(owes, Owes::send(order.down));
            assert_eq!(state.peer_closed(), Owes::CURTAIL.and(Owes::CLOSE));
        }
    }
}

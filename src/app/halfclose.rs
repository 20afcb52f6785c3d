//! Reads to the peer's FIN, then says goodbye to a peer that can still hear it, then closes. A test
//! of half-closed connections.

use super::{Owes, pattern};

const GOODBYE: &[u8] = b"BYE\n";

pub const fn peer_closed() -> Owes {
    Owes::send(GOODBYE.len() as u64).and(Owes::CLOSE)
}

/// There is nothing more to read: the same as the peer's FIN.
pub const fn drain() -> Owes {
    peer_closed()
}

pub fn payload(offset: u64, out: &mut [u8]) {
    pattern::repeat(GOODBYE, offset, out);
}

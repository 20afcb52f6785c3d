//! Reads all and says nothing (RFC 863); closes when the peer has closed.

use super::Owes;

pub const fn peer_closed() -> Owes {
    Owes::CLOSE
}

//! Closes as soon as the handshake is done: the server closes first and keeps TIME-WAIT.

use super::Owes;

pub const fn established() -> Owes {
    Owes::CLOSE
}

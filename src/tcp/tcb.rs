//! The transmission control block. (To come; the application sees it only through `app::Conn`.)

use super::Seq;
use super::state::State;
use crate::flow::FlowKey;
use crate::time::Instant;

/// (placeholder while the parts are being built)
#[derive(Clone, Copy, Debug)]
pub struct Tcb {
    pub key: FlowKey,
    pub state: State,
    pub snd_una: Seq,
    pub deadline: Instant,
}

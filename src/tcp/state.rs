//! The eleven states (RFC 9293 s3.3.2) and the only way between them: a table, held by a snapshot
//! test.
//!
//! ```text
//!            ActiveOpen                      PassiveOpen
//!   CLOSED ------------> SYN-SENT    LISTEN <----------- CLOSED
//!                          |  \         |
//!                   SynAck |   \ Syn    | Syn
//!                          v    v       v
//!                 ESTABLISHED <-- SYN-RECEIVED          (AckOfSyn)
//!       Close  /               \  Fin
//!     FIN-WAIT-1               CLOSE-WAIT -- Close --> LAST-ACK -- AckOfFin --> CLOSED
//!      |AckOfFin  \Fin
//!   FIN-WAIT-2   CLOSING
//!      |Fin       |AckOfFin
//!      `------> TIME-WAIT -- TimeWaitOver --> CLOSED
//! ```
//!
//! FIN and the ACK of ours in one segment take FIN-WAIT-1 to TIME-WAIT by way of FIN-WAIT-2 within
//! that segment.

/// A connection's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    #[default]
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

/// What may change a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    PassiveOpen,
    ActiveOpen,
    /// A SYN without an acceptable ACK of ours arrived.
    Syn,
    /// A SYN that acknowledges ours arrived.
    SynAck,
    /// Our SYN was acknowledged.
    AckOfSyn,
    /// Our application closed: a FIN is owed.
    Close,
    /// The peer's FIN arrived in order.
    Fin,
    /// Our FIN was acknowledged.
    AckOfFin,
    /// Two MSL went by.
    TimeWaitOver,
    /// An acceptable RST arrived, our application aborted, or a timer gave up.
    Abort,
}

impl State {
    /// Every state, in the RFC's order.
    pub const ALL: [State; 11] = [
        State::Closed,
        State::Listen,
        State::SynSent,
        State::SynReceived,
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::Closing,
        State::LastAck,
        State::TimeWait,
    ];

    /// The state after `event`, or `None` where the event can't happen.
    pub const fn after(self, event: Event) -> Option<State> {
        use State::*;
        Some(match (self, event) {
            (Closed, Event::PassiveOpen) => Listen,
            (Closed, Event::ActiveOpen) => SynSent,
            (Listen, Event::Syn) => SynReceived,
            (SynSent, Event::SynAck) => Established,
            // Simultaneous open (RFC 9293 s3.5, MUST-10).
            (SynSent, Event::Syn) => SynReceived,
            (SynReceived, Event::AckOfSyn) => Established,
            (Established, Event::Close) => FinWait1,
            (Established, Event::Fin) => CloseWait,
            (CloseWait, Event::Close) => LastAck,
            (FinWait1, Event::AckOfFin) => FinWait2,
            (FinWait1, Event::Fin) => Closing,
            (FinWait2, Event::Fin) => TimeWait,
            (Closing, Event::AckOfFin) => TimeWait,
            (LastAck, Event::AckOfFin) => Closed,
            (TimeWait, Event::TimeWaitOver) => Closed,
            // CLOSE in LISTEN or SYN-SENT deletes the block (RFC 9293 s3.10.4).
            (Listen | SynSent, Event::Close) => Closed,
            (
                Listen | SynSent | SynReceived | Established | FinWait1 | FinWait2 | CloseWait
                | Closing | LastAck | TimeWait,
                Event::Abort,
            ) => Closed,
            _ => return None,
        })
    }

    /// RFC 9293's name of the state.
    pub const fn name(self) -> &'static str {
        match self {
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        }
    }
}

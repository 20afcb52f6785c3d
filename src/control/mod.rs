//! From what the user asked for to workers that run, and back to what they found: the only part
//! that prints, reads a clock, starts threads or knows of signals. No packet and no control block
//! is seen here.

pub mod address;
mod assemble;
mod bench;
mod bulk;
pub mod clock;
pub mod config;
mod crew;
mod distance;
pub mod doctor;
mod floor;
mod guard;
mod homing;
mod kernel;
pub mod launch;
mod live;
mod memory;
mod nic;
mod output;
mod pin;
pub mod plan;
mod report;
mod rival;
mod rival_ring;
mod runner;
mod sandbox;
pub mod settings;
mod signals;
mod summary;
pub mod value;
mod veth;
mod wrapped;

/// Why a command did not end well. Scripts read the code, people the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The run itself went wrong.
    Run(String),
    /// The command line asks for something that can't be.
    Usage(String),
    /// This machine, or this user, can't do it as things are.
    Environment(String),
    /// The configuration file is wrong.
    Config(String),
    /// A signal came before the run's own end; what was measured till then has been reported.
    Stopped,
}

impl Failure {
    /// The process's exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Failure::Run(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Environment(_) => 3,
            Failure::Config(_) => 104,
            Failure::Stopped => 105,
        }
    }

    /// What to tell the user.
    pub fn message(&self) -> &str {
        match self {
            Failure::Run(text)
            | Failure::Usage(text)
            | Failure::Environment(text)
            | Failure::Config(text) => text,
            Failure::Stopped => "stopped by a signal before its end",
        }
    }
}

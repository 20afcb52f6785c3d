//! `shakedown doctor`.

use crate::control::{Failure, doctor};
use clap::Args;

/// Say what this machine can do, and how to mend what it can't
///
/// Exit code 3 if AF_XDP can't run as things are.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Interface to look at as well
    #[arg(short, long, value_name = "IFACE")]
    interface: Option<String>,
}

impl Doctor {
    pub fn run(self) -> Result<(), Failure> {
        doctor::run(self.interface.as_deref())
    }
}

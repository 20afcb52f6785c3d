//! `shakedown client`.

use super::File;
use crate::control::plan::ClientPlan;
use crate::control::settings::{Aim, Impair, Load, Network, Output, Run, Tcp};
use crate::control::{Failure, launch};
use clap::Args;

/// Open TCP connections, at a rate or as many as fit at a time
///
/// Ends at its --duration or --count, whichever is first. SIGINT or SIGTERM before that is exit
/// code 105; a hold without either has no other end, and there it is 0.
#[derive(Args, Debug)]
pub struct Client {
    #[command(flatten)]
    pub(super) file: File,
    #[command(flatten)]
    pub(super) network: Network,
    #[command(flatten)]
    pub(super) aim: Aim,
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) run: Run,
    #[command(flatten)]
    pub(super) tcp: Tcp,
    #[command(flatten)]
    pub(super) impair: Impair,
    #[command(flatten)]
    pub(super) output: Output,
}

impl Client {
    /// Runs it to its end.
    pub fn run(self) -> Result<(), Failure> {
        launch::client(&self.plan()?)
    }

    /// What it asks for, whole.
    pub fn plan(self) -> Result<ClientPlan, Failure> {
        let Client { file, network, aim, load, run, tcp, impair, output } = self;
        ClientPlan::new(network, run, aim, load, tcp, impair, output)
            .map_err(|message| file.failure(message))
    }
}

//! `shakedown server`.

use super::File;
use crate::control::plan::ServerPlan;
use crate::control::settings::{Impair, Network, Output, Run, Serve, Tcp};
use crate::control::{Failure, launch};
use clap::Args;

/// Serve TCP on an interface
///
/// Ends at its --duration, or at SIGINT or SIGTERM, which without --duration is its normal end
/// (exit code 0).
#[derive(Args, Debug)]
pub struct Server {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    serve: Serve,
    #[command(flatten)]
    run: Run,
    #[command(flatten)]
    tcp: Tcp,
    #[command(flatten)]
    impair: Impair,
    #[command(flatten)]
    output: Output,
}

impl Server {
    /// Runs it to its end.
    pub fn run(self) -> Result<(), Failure> {
        launch::server(&self.plan()?)
    }

    /// What it asks for, whole.
    pub fn plan(self) -> Result<ServerPlan, Failure> {
        let Server { file, network, serve, run, tcp, impair, output } = self;
        ServerPlan::new(network, run, serve, tcp, impair, output)
            .map_err(|message| file.failure(message))
    }
}

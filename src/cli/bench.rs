//! `shakedown bench`.

use super::File;
use crate::control::plan::BenchPlan;
use crate::control::settings::{Impair, Load, Output, Rig, Run, Tcp};
use crate::control::{Failure, launch};
use clap::Args;

/// Run server and client against each other, and verify that every connection was opened and closed
/// on both sides
///
/// --link memory needs no root and no network. --link veth makes two namespaces and a veth pair of
/// its own, runs AF_XDP on both ends, and takes them away again.
#[derive(Args, Debug)]
pub struct Bench {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    rig: Rig,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    run: Run,
    #[command(flatten)]
    tcp: Tcp,
    #[command(flatten)]
    impair: Impair,
    #[command(flatten)]
    output: Output,
}

impl Bench {
    /// Runs it to its end.
    pub fn run(self) -> Result<(), Failure> {
        launch::bench(&self.plan()?)
    }

    /// What it asks for, whole.
    pub fn plan(self) -> Result<BenchPlan, Failure> {
        let Bench { file, rig, load, run, tcp, impair, output } = self;
        BenchPlan::new(rig, run, load, tcp, impair, output).map_err(|message| file.failure(message))
    }
}

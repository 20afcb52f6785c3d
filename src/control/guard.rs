//! What may happen to an interface during a run, seen from the thread that watches: it goes down,
//! is changed or deleted, or somebody takes our program off it. Looked at once a second; what can
//! be outlasted is told and counted, what can't ends the run.

use crate::device::xdp::Program;
use crate::sys::net::Interface;
use serde_json::{Value, json};
use std::sync::Arc;

/// Watches over an interface.
pub struct Guard {
    known: Interface,
    /// `None` where there is none to watch.
    program: Option<Arc<Program>>,
    outages: u64,
    changes: u64,
}

impl Guard {
    pub fn new(known: Interface, program: Option<Arc<Program>>) -> Guard {
        Guard { known, program, outages: 0, changes: 0 }
    }

    /// Looks once. What can't be outlasted is answered.
    pub fn look(&mut self) -> Option<String> {
        let name = &self.known.name;
        let found = match Interface::find(name) {
            Ok(found) if found.index == self.known.index => found,
            Ok(_) => return Some(format!("{name} was deleted, and another has its name")),
            Err(error) => return Some(format!("{name} is gone: {error}")),
        };
        if self.program.as_ref().is_some_and(|program| !program.is_attached()) {
            return Some(format!("somebody has taken our XDP program off {name}"));
        }
        if self.known.running != found.running {
            self.outages += u64::from(!found.running);
            let how = if found.running { "is up again" } else { "is down: waiting for it" };
            eprintln!("shakedown: {name} {how}");
        }
        let sizes = [
            ("MTU", self.known.mtu, found.mtu, "what is longer is lost"),
            ("number of receive queues", self.known.queues, found.queues, "ours stay as they are"),
        ];
        for (what, before, now, so) in sizes {
            if before != now {
                self.changes += 1;
                eprintln!("shakedown: the {what} of {name} was {before} and is {now}: {so}");
            }
        }
        self.known = found;
        None
    }

    /// For the report.
    pub fn json(&self) -> Value {
        json!({ "outages_total": self.outages, "changes_total": self.changes })
    }
}

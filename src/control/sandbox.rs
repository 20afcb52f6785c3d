//! Who may do what once a run stands. Sockets, programs and files are opened before; after that no
//! thread that moves frames has a privilege or a system call that it does not need, and neither has
//! the thread that watches them, where nothing is left for it to undo.

use super::Failure;
use crate::sys::sandbox::{Filter, drop_capabilities};
use std::sync::Arc;

/// What the threads of a run are held to.
#[derive(Clone)]
pub struct Sandbox(Option<Arc<Filter>>);

impl Sandbox {
    /// The rules for workers; none if the user wants none.
    ///
    /// # Errors
    /// There are none for this processor.
    pub fn new(wanted: bool) -> Result<Sandbox, Failure> {
        let advice = |error| Failure::Environment(format!("{error}: --no-sandbox goes without"));
        let filter = wanted.then(Filter::new).transpose().map_err(advice)?;
        if wanted {
            // To print a backtrace the usual hook would read files, and be killed for it.
            std::panic::set_hook(Box::new(|panic| {
                let thread = std::thread::current();
                eprintln!("shakedown: {}: {panic}", thread.name().unwrap_or("a thread"));
            }));
        }
        Ok(Sandbox(filter.map(Arc::new)))
    }

    /// Holds the calling thread, a worker's, to its turns: no capability, no system call but those
    /// that moving frames takes.
    ///
    /// # Errors
    /// The kernel can't.
    pub fn confine_worker(&self) -> Result<(), String> {
        let Some(filter) = &self.0 else { return Ok(()) };
        let confined = drop_capabilities(false).and_then(|()| filter.enter());
        confined.map_err(|error| format!("{error}: --no-sandbox goes without"))
    }

    /// Takes all capabilities from the calling thread and from those that it will start, once
    /// everything is open; but CAP_NET_ADMIN if the interface has settings to be given back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drop_privileges(&self, settings_to_give_back: bool) -> Result<(), Failure> {
        if self.0.is_none() {
            return Ok(());
        }
        drop_capabilities(settings_to_give_back)
            .map_err(|error| Failure::Run(format!("{error}: --no-sandbox goes without")))
    }
}

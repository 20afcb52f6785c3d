//! SIGINT and SIGTERM: the first asks for a graceful stop, the second ends the process at once.

use super::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a signal has come.
#[derive(Clone, Debug)]
pub struct Signals {
    came: Arc<AtomicBool>,
}

impl Signals {
    /// Takes both signals over for the rest of the process's life.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch() -> io::Result<Signals> {
        let came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, and only then is it set.
            let code = i32::from(Failure::Stopped.code());
            flag::register_conditional_shutdown(signal, code, Arc::clone(&came))?;
            flag::register(signal, Arc::clone(&came))?;
        }
        Ok(Signals { came })
    }

    /// True once a signal has come.
    pub fn came(&self) -> bool {
        self.came.load(Relaxed)
    }
}

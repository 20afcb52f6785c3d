//! The machine's clocks, as the rest of the program sees them: nanoseconds since the run began, and
//! the date it began on. The only place that reads them.

use crate::time::Instant;
use std::time::SystemTime;

/// A clock that starts at zero. Copies share their origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
    wall_origin: SystemTime,
}

impl Clock {
    /// A clock that reads zero now.
    pub fn start() -> Clock {
        Clock { origin: std::time::Instant::now(), wall_origin: SystemTime::now() }
    }

    /// The time now. No system call where the kernel offers the vDSO (about 20 ns).
    #[inline]
    pub fn now(&self) -> Instant {
        let elapsed = self.origin.elapsed();
        Instant::from_nanos(elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos()))
    }

    /// The date and time at which the clock read zero.
    pub fn wall_origin(&self) -> SystemTime {
        self.wall_origin
    }
}

/// The date and time now, in ms, wrapping: what goes on from run to run.
pub fn wall_ms() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u32)
}

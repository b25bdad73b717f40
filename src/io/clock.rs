//! The only place that reads clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::pool::Instant;

/// A monotonic clock that starts at zero, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that shows zero now.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// Time since the start.
    pub fn now(&self) -> Instant {
        let elapsed = self.start.elapsed().as_micros();
        Instant::from_micros(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Unix time in milliseconds; 0 on a board whose clock stands before 1970.
    #[allow(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn unix_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

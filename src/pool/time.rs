//! Time as the pool sees it: an instant handed in with every event.

/// A point on a monotonic clock, in microseconds since the host started.
///
/// The pool never reads a clock; the host hands `now` in, and tests hand in whatever they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The host's start.
    pub const ZERO: Instant = Instant(0);

    /// The end of time: a deadline that does not come.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The instant `us` microseconds after the host started.
    pub const fn from_micros(us: u64) -> Instant {
        Instant(us)
    }

    /// Microseconds since the host started.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The instant `us` microseconds later; the end of time if that does not fit.
    #[must_use]
    pub const fn after_us(self, us: u64) -> Instant {
        Instant(self.0.saturating_add(us))
    }

    /// The instant `ms` milliseconds later; the end of time if that does not fit.
    #[must_use]
    pub const fn after_ms(self, ms: u32) -> Instant {
        self.after_us(ms as u64 * 1000)
    }

    /// Microseconds from `earlier` to here, 0 if `earlier` is later.
    pub const fn micros_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

//! What the pool knows about each version: its settings, its idle workers, its record of starts.

use super::event::Settings;
use super::time::Instant;
use crate::limits::{BACKOFF_MS_MAX, BACKOFF_MS_MIN, SPAWN_PAUSE_MS};

/// Why a version is not started right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing speaks against a start.
    None,
    /// Its workers failed to start; invocations are answered with that failure until then.
    Failing(Instant),
    /// The machine refused a process; invocations wait until then.
    NoProcess(Instant),
}

/// One version and its workers.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// As configured last.
    pub settings: Settings,
    /// It takes no more invocations.
    pub retired: bool,
    /// Start failures in a row, over all its workers; a reply ends the row.
    pub failures: u8,
    /// Whether it may be started.
    pub hold: Hold,
    /// Slots in state Starting, Idle, Busy, Stopping.
    pub starting: u16,
    /// See `starting`.
    pub idle: u16,
    /// See `starting`.
    pub busy: u16,
    /// See `starting`.
    pub stopping: u16,
    /// Provisioned workers among `starting`, `idle` and `busy`.
    pub provisioned: u16,
    /// Waiters that want it.
    pub waiting: u16,
    /// Most recently used idle worker: of those started on demand, of the provisioned ones.
    pub(super) newest: [Option<u16>; 2],
}

impl Version {
    pub(super) fn new(settings: Settings) -> Version {
        Version {
            settings,
            retired: false,
            failures: 0,
            hold: Hold::None,
            starting: 0,
            idle: 0,
            busy: 0,
            stopping: 0,
            provisioned: 0,
            waiting: 0,
            newest: [None; 2],
        }
    }

    /// How many provisioned workers it should have.
    pub fn provisioned_target(&self) -> u16 {
        if self.retired || self.settings.one_shot { 0 } else { self.settings.provisioned }
    }

    /// How many of them are missing.
    pub fn missing(&self) -> u16 {
        self.provisioned_target().saturating_sub(self.provisioned)
    }

    /// Workers that serve or will serve.
    pub fn live(&self) -> u16 {
        self.starting + self.idle + self.busy
    }

    /// Slots it holds.
    pub fn slots(&self) -> u16 {
        self.live() + self.stopping
    }

    /// It may be started.
    pub(super) fn may_start(&self) -> bool {
        !self.retired && self.hold == Hold::None
    }

    /// An invocation that finds no worker is answered with the last start failure.
    pub(super) fn is_failing(&self) -> bool {
        self.live() == 0 && matches!(self.hold, Hold::Failing(_))
    }

    /// When it may be started again, if it may not now.
    pub(super) fn hold_until(&self) -> Option<Instant> {
        match self.hold {
            Hold::None => None,
            Hold::Failing(until) | Hold::NoProcess(until) => Some(until),
        }
    }

    /// Ends a hold whose time is over.
    pub(super) fn lift(&mut self, now: Instant) {
        if self.hold_until().is_some_and(|until| until <= now) {
            self.hold = Hold::None;
        }
    }

    /// Takes note of a start that failed by the handler's fault: 1, 2, 4 ... 60 s of quiet.
    pub(super) fn start_failed(&mut self, now: Instant) {
        let doubled = BACKOFF_MS_MIN << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        self.hold = Hold::Failing(now.after_ms(doubled.min(BACKOFF_MS_MAX)));
    }

    /// Takes note of a start that failed by the machine's fault.
    pub(super) fn start_refused(&mut self, now: Instant) {
        self.hold = Hold::NoProcess(now.after_ms(SPAWN_PAUSE_MS));
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::FunctionId;
    use super::*;

    #[test]
    fn backoff_doubles_from_one_second_to_a_minute() {
        let mut version = Version::new(Settings {
            function: FunctionId(0),
            reserved: None,
            provisioned: 0,
            queue_wait_ms: 0,
            idle_timeout_ms: 1,
            timeout_ms: 1,
            init_limit_ms: 1,
            grace_ms: 1,
            max_invocations: 0,
            one_shot: false,
        });
        let seconds: Vec<u64> = (0..9)
            .map(|_| {
                version.start_failed(Instant::ZERO);
                version.hold_until().expect("held").as_micros() / 1_000_000
            })
            .collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        for _ in 0..300 {
            version.start_failed(Instant::ZERO);
        }
        assert_eq!(version.hold_until(), Some(Instant::ZERO.after_ms(BACKOFF_MS_MAX)));
    }
}

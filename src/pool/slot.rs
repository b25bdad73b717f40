//! A slot: a numbered place that may hold a worker, and the states of that worker.
//!
//! `Free -> Starting -> Idle <-> Busy`, any live state `-> Stopping -> Free`. A one-shot worker
//! goes `Free -> Busy -> Free`. Only [`Event::Exited`](super::Event::Exited) frees a slot: a
//! process that was merely killed still has its memory, its pid and its place.

use super::event::{InvocationId, VersionId, WorkerId};
use super::line::Ticket;
use super::time::Instant;

/// One place of the table.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Which life of this slot; counts spawns.
    pub generation: u32,
    /// What lives here.
    pub state: State,
}

/// The worker in a slot, if any.
#[derive(Clone, Copy, Debug)]
pub enum State {
    /// No process. Ends with a spawn.
    Free,
    /// A process that has not asked for work yet. Ends with ready, exit, init failure, or `until`.
    Starting {
        /// What it serves.
        version: VersionId,
        /// Kept on purpose.
        provisioned: bool,
        /// The init limit.
        until: Instant,
        /// The invocation this start is for; `None` once another worker took it.
        waiter: Option<Ticket>,
    },
    /// A process blocked on its next request for work. Ends with a dispatch, exit, or `until`.
    Idle {
        /// What it serves.
        version: VersionId,
        /// Kept on purpose.
        provisioned: bool,
        /// Invocations so far.
        served: u32,
        /// Last use: the smallest is evicted first.
        since: Instant,
        /// Idle timeout; `None` for provisioned workers.
        until: Option<Instant>,
        /// The worker of this version that was used just before this one.
        next: Option<u16>,
    },
    /// A process that runs an invocation. Ends with ready, exit, or `until`.
    Busy {
        /// What it serves.
        version: VersionId,
        /// Kept on purpose.
        provisioned: bool,
        /// Invocations so far, this one included.
        served: u32,
        /// What it runs.
        invocation: InvocationId,
        /// The invocation's deadline.
        until: Instant,
        /// It has replied and the caller has the answer; it has not asked for more yet.
        settled: bool,
        /// An invocation that waits a moment for exactly this worker.
        waiter: Option<Ticket>,
    },
    /// A process that was told to go. Ends with exit; `until` leads to a kill.
    Stopping {
        /// What it served.
        version: VersionId,
        /// End of its grace; `None` once killed.
        until: Option<Instant>,
        /// The invocation that will start here as soon as the process is reaped.
        waiter: Option<Ticket>,
    },
}

impl Slot {
    /// An empty slot that has never held a worker.
    pub const EMPTY: Slot = Slot { generation: 0, state: State::Free };

    /// The worker here, as slot number `slot`.
    pub fn worker(&self, slot: u16) -> WorkerId {
        WorkerId { slot, generation: self.generation }
    }

    /// True if no process is here.
    pub fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    /// What is or was served here; `None` for a free slot.
    pub fn version(&self) -> Option<VersionId> {
        match self.state {
            State::Free => None,
            State::Starting { version, .. }
            | State::Idle { version, .. }
            | State::Busy { version, .. }
            | State::Stopping { version, .. } => Some(version),
        }
    }

    /// The invocation that is tied to this slot, if any.
    pub fn waiter(&self) -> Option<Ticket> {
        match self.state {
            State::Starting { waiter, .. }
            | State::Busy { waiter, .. }
            | State::Stopping { waiter, .. } => waiter,
            State::Free | State::Idle { .. } => None,
        }
    }

    /// Ties an invocation to this slot, or frees it of one.
    pub(super) fn set_waiter(&mut self, ticket: Option<Ticket>) {
        match &mut self.state {
            State::Starting { waiter, .. }
            | State::Busy { waiter, .. }
            | State::Stopping { waiter, .. } => *waiter = ticket,
            State::Free | State::Idle { .. } => assert!(ticket.is_none(), "nothing to wait for"),
        }
    }

    /// The instant at which this slot needs attention.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Free => None,
            State::Starting { until, .. } | State::Busy { until, .. } => Some(until),
            State::Idle { until, .. } | State::Stopping { until, .. } => until,
        }
    }
}

//! What goes into the pool and what comes out: ids, events, actions, outcomes.
//!
//! Events are past tense (something happened), actions are imperative (the host must do it).

use super::time::Instant;
use crate::limits::PROVISIONED_INIT_LIMIT_MS;

/// A function: the unit that reserved concurrency belongs to, over all its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionId(pub u16);

/// One immutable state of a function's code and configuration.
///
/// The host chooses the number and may use it again only after [`Action::Forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionId(pub u16);

/// One request, from acceptance to settling. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvocationId(pub u64);

/// One life of one slot: the generation changes with every spawn, so an event that speaks of a
/// process which is already gone names a worker that no longer exists, and is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId {
    /// Which slot, counted from 0.
    pub slot: u16,
    /// Which life of that slot, counted from 1.
    pub generation: u32,
}

/// How a version wants its workers kept. All times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The function this version belongs to.
    pub function: FunctionId,
    /// Guarantee and ceiling of the whole function; `None`: shares what nobody reserved.
    pub reserved: Option<u16>,
    /// Workers of this version kept initialised, never evicted, never idled out.
    pub provisioned: u16,
    /// How long an invocation waits for a worker before it is rejected: `QUEUE_WAIT_MS_MIN` at least
    /// while half of the line is free.
    pub queue_wait_ms: u32,
    /// How long a worker may sit idle before it is stopped (jittered by a tenth either way).
    pub idle_timeout_ms: u32,
    /// How long one invocation may take.
    pub timeout_ms: u32,
    /// How long a worker may take from spawn to ready; longer if it is provisioned.
    pub init_limit_ms: u32,
    /// How long a worker may take from stop to exit before it is killed.
    pub grace_ms: u32,
    /// Stop a worker after this many invocations; 0: never.
    pub max_invocations: u32,
    /// One process per invocation: the worker is busy from its spawn and never idles.
    pub one_shot: bool,
}

impl Settings {
    /// How long a worker may take from spawn to ready.
    pub fn start_limit_ms(&self, provisioned: bool) -> u32 {
        let least = if provisioned { PROVISIONED_INIT_LIMIT_MS.max(self.timeout_ms) } else { 0 };
        self.init_limit_ms.max(least)
    }
}

/// Why a process is not (or no longer) there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ran and was reaped.
    Reaped,
    /// It could not be started, and the handler is to blame (missing, not executable, ...).
    HandlerFault,
    /// It could not be started, and the machine is to blame (no processes, no memory, ...).
    SystemFault,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants a function to run.
    Invoked {
        /// A fresh id.
        invocation: InvocationId,
        /// What to run.
        version: VersionId,
    },
    /// The caller of a waiting invocation is gone. A running one runs on.
    Cancelled {
        /// The id it was invoked with.
        invocation: InvocationId,
    },
    /// A worker asked for its next invocation (the first time: its init phase is over).
    Ready {
        /// Who asked.
        worker: WorkerId,
    },
    /// A worker answered the invocation it runs. It stays busy until it is ready again.
    Replied {
        /// Who answered.
        worker: WorkerId,
        /// False: the handler reported an error.
        ok: bool,
    },
    /// A worker cannot go on, although something of it is still there: it reported that it cannot
    /// initialise, or lost one of its processes.
    Failed {
        /// Which one.
        worker: WorkerId,
    },
    /// A worker's process is gone and reaped, or never came to be.
    Exited {
        /// Whose process.
        worker: WorkerId,
        /// Why.
        cause: Cause,
    },
    /// `next_deadline` is not in the future any more. Handles one deadline; repeat while true.
    DeadlinePassed,
    /// A version appeared, or its settings changed.
    Configured {
        /// Which one.
        version: VersionId,
        /// Its settings from here on.
        settings: Settings,
    },
    /// A version takes no more invocations.
    Retired {
        /// Which one.
        version: VersionId,
        /// Who serves the invocations that still wait for it; `None`: they are cancelled.
        successor: Option<VersionId>,
    },
    /// Refuse new invocations, finish the running ones by `until`, stop every worker.
    DrainStarted {
        /// When running invocations are cut off.
        until: Instant,
    },
}

impl Event {
    /// The worker that this event speaks of.
    pub(super) fn worker(&self) -> Option<WorkerId> {
        match *self {
            Event::Ready { worker }
            | Event::Replied { worker, .. }
            | Event::Failed { worker }
            | Event::Exited { worker, .. } => Some(worker),
            Event::Invoked { .. }
            | Event::Cancelled { .. }
            | Event::DeadlinePassed
            | Event::Configured { .. }
            | Event::Retired { .. }
            | Event::DrainStarted { .. } => None,
        }
    }
}

/// What the host must do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process in this slot. Answer `Ready` when it is, or `Exited` if it cannot be.
    Spawn {
        /// The new worker.
        worker: WorkerId,
        /// What it serves.
        version: VersionId,
        /// It is kept ready on purpose (`AWS_LAMBDA_INITIALIZATION_TYPE`).
        provisioned: bool,
        /// For one-shot versions: the only invocation this process will ever get.
        invocation: Option<InvocationId>,
        /// The start before this one failed, for the same invocation.
        again: bool,
    },
    /// Hand an invocation to an idle worker.
    Dispatch {
        /// Who runs it.
        worker: WorkerId,
        /// What.
        invocation: InvocationId,
    },
    /// Tell the caller how it ended. Comes exactly once for every invocation.
    Settle {
        /// Whose caller.
        invocation: InvocationId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Ask a worker to go (SIGTERM to its process group).
    Stop {
        /// Whom.
        worker: WorkerId,
    },
    /// Make a worker go (SIGKILL to its process group).
    Kill {
        /// Whom.
        worker: WorkerId,
    },
    /// The last worker and the last waiting invocation of a retired version are gone.
    Forget {
        /// Its number is free again.
        version: VersionId,
    },
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler returned a reply.
    Done,
    /// The handler reported an error.
    Failed,
    /// No worker could be initialised for it, twice, or the version is known to fail.
    InitFailed,
    /// The worker's process went away while it ran.
    Crashed,
    /// It ran longer than its timeout.
    TimedOut,
    /// It never ran.
    Rejected(Refusal),
    /// The caller went away, the function was removed, or the drain limit cut it off.
    Cancelled,
}

/// Why an invocation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The function is at its own reserved concurrency.
    Reserved,
    /// The table is full, or what is left of it is reserved for others.
    Unreserved,
    /// More invocations wait than the waiting line holds.
    LineFull,
    /// The machine could not start a process in time.
    NoProcess,
    /// The server is stopping.
    Draining,
}

/// Why the pool wants to be called at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// More placements are possible than one event may make.
    Placement,
    /// A worker takes too long to become ready.
    Init,
    /// An invocation takes too long.
    Timeout,
    /// A worker was idle for long enough.
    Idle,
    /// A stopped worker's grace is over.
    Kill,
    /// A waiting invocation has waited long enough.
    Wait,
    /// A version that failed to start may try again.
    Backoff,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provisioned_workers_have_more_time_to_start() {
        let settings = |init_limit_ms, timeout_ms| Settings {
            function: FunctionId(0),
            reserved: None,
            provisioned: 1,
            queue_wait_ms: 0,
            idle_timeout_ms: 1,
            timeout_ms,
            init_limit_ms,
            grace_ms: 1,
            max_invocations: 0,
            one_shot: false,
        };
        for (init, timeout, on_demand, provisioned) in [
            (10_000, 3_000, 10_000, 130_000),
            (10_000, 900_000, 10_000, 900_000),
            (200_000, 3_000, 200_000, 200_000),
        ] {
            let settings = settings(init, timeout);
            assert_eq!(settings.start_limit_ms(false), on_demand);
            assert_eq!(settings.start_limit_ms(true), provisioned);
        }
    }
}

//! The pool decides: which invocation runs on which worker, what is started, stopped, refused.
//!
//! A pure state machine over ids and instants. It does no I/O, reads no clock, takes no memory,
//! logs nothing and never awaits; the host feeds it events and performs its actions:
//!
//! ```text
//! trigger -> host -> pool.on_event(now, event) -> actions -> host performs -> (later) next event
//! ```
//!
//! Rules, each of them checked after every event of the simulation in `tests/sim`:
//!
//! 1. A slot becomes free only when its process is reaped, never when it is killed.
//! 2. A `WorkerId` carries a generation; events with an old one change nothing.
//! 3. Every accepted invocation is settled exactly once.
//! 4. `DeadlinePassed` handles at most one deadline; the host repeats while `next_deadline <= now`.
//! 5. Nobody waits while a worker of theirs idles or a slot is free, within their concurrency.
//! 6. A worker is evicted only for a waiter that is bound to its slot, so stops in progress never
//!    exceed unmet wants.
//! 7. Drain sets deadlines to now and stops placement; it is not a mode of the code paths.
//! 8. Same inputs, same outputs: no hashing, no randomness.

mod concurrency;
mod deadline;
mod event;
mod line;
mod placement;
mod slot;
mod table;
mod time;
mod version;

use heapless::Vec;

pub use concurrency::{Share, Shares};
pub use event::{
    Action, Cause, Event, FunctionId, InvocationId, Outcome, Reason, Refusal, Settings, VersionId,
    WorkerId,
};
pub use line::{Bound, Line, Ticket, Waiter};
pub use slot::{Slot, State};
pub use time::Instant;
pub use version::{Hold, Version};

use crate::limits::{ACTIONS_MAX, QUEUE_WAIT_MS_MIN, SLOTS_MAX, VERSIONS_MAX, WAITING_MAX};

/// What one event asks of the host, in order.
pub type Actions = Vec<Action, ACTIONS_MAX>;

/// The table, the waiting line, and the rules.
pub struct Pool {
    slots: Vec<Slot, SLOTS_MAX>,
    versions: Vec<Option<Version>, VERSIONS_MAX>,
    shares: Shares,
    line: Line,
    /// Provisioned workers that are missing, over all versions.
    missing: u16,
    /// More placements were possible than one event may ask for; wants `DeadlinePassed` at once.
    recheck: bool,
    /// Set once draining: when running invocations are cut off.
    drain: Option<Instant>,
    /// Not later than the nearest deadline, often exact. Kept low by `note`, made exact by the
    /// sweep in `DeadlinePassed`, so that the warm path never sweeps.
    next: Option<(Instant, Reason)>,
}

impl Pool {
    /// A pool of `slots_limit` slots, all free.
    ///
    /// # Panics
    /// If `slots_limit` exceeds [`SLOTS_MAX`]; the host checks its configuration first.
    pub fn new(slots_limit: u16) -> Pool {
        let mut slots = Vec::new();
        for _ in 0..slots_limit {
            assert!(slots.push(Slot::EMPTY).is_ok(), "slots_limit <= SLOTS_MAX");
        }
        Pool {
            slots,
            versions: Vec::new(),
            shares: Shares::new(slots_limit),
            line: Line::new(),
            missing: 0,
            recheck: false,
            drain: None,
            next: None,
        }
    }

    /// When, and why, the pool wants `DeadlinePassed`. Never later than the nearest deadline; may
    /// be earlier than it, and then the event changes nothing.
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        if self.recheck { Some((Instant::ZERO, Reason::Placement)) } else { self.next }
    }

    /// The table, for status and tests.
    pub fn view(&self) -> &[Slot] {
        &self.slots
    }

    /// The waiting line, for status and tests.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// A version, for status and tests.
    pub fn version(&self, version: VersionId) -> Option<&Version> {
        self.versions.get(usize::from(version.0))?.as_ref()
    }

    /// The shares of the table, for status and tests.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// True once draining and nothing is left to wait for.
    pub fn is_drained(&self) -> bool {
        self.drain.is_some() && self.line.is_empty() && self.slots.iter().all(Slot::is_free)
    }

    /// Takes note of what happened at `now` and says what must be done.
    pub fn on_event(&mut self, now: Instant, event: Event) -> Actions {
        let mut actions = Actions::new();
        if event.worker().is_some_and(|worker| !self.is_current(worker)) {
            return actions;
        }
        match event {
            Event::Invoked { invocation, version } => {
                self.invoked(now, invocation, version, &mut actions);
            }
            Event::Cancelled { invocation } => self.cancelled(invocation, &mut actions),
            Event::Ready { worker } => self.ready(now, worker.slot, &mut actions),
            Event::Replied { worker, ok } => self.replied(worker.slot, ok, &mut actions),
            Event::Failed { worker } => self.failed(now, worker.slot, &mut actions),
            Event::Exited { worker, cause } => self.exited(now, worker.slot, cause, &mut actions),
            Event::DeadlinePassed => self.deadline_passed(now, &mut actions),
            Event::Configured { version, settings } => self.configured(now, version, settings),
            Event::Retired { version, successor } => {
                self.retired(now, version, successor, &mut actions);
            }
            Event::DrainStarted { until } => self.drain_started(now, until),
        }
        self.place(now, &mut actions);
        actions
    }

    fn is_current(&self, worker: WorkerId) -> bool {
        self.slots.get(usize::from(worker.slot)).is_some_and(|slot| {
            slot.generation == worker.generation && !matches!(slot.state, State::Free)
        })
    }

    fn slot(&mut self, slot: u16) -> &mut Slot {
        &mut self.slots[usize::from(slot)]
    }

    fn worker(&self, slot: u16) -> WorkerId {
        self.slots[usize::from(slot)].worker(slot)
    }

    fn known(&self, version: VersionId) -> &Version {
        self.version(version).expect("slots and waiters name known versions")
    }

    fn known_mut(&mut self, version: VersionId) -> &mut Version {
        self.versions[usize::from(version.0)]
            .as_mut()
            .expect("slots and waiters name known versions")
    }

    /// Makes sure that `next_deadline` is not later than `at`.
    fn note(&mut self, at: Instant, reason: Reason) {
        if self.next.is_none_or(|(next, _)| at < next) {
            self.next = Some((at, reason));
        }
    }

    fn configured(&mut self, now: Instant, id: VersionId, settings: Settings) {
        let index = usize::from(id.0);
        while self.versions.len() <= index {
            assert!(self.versions.push(None).is_ok(), "VersionId < VERSIONS_MAX");
        }
        let before = match &mut self.versions[index] {
            Some(version) => {
                assert!(version.settings.function == settings.function, "a version never moves");
                let before = version.provisioned_target();
                self.missing -= version.missing();
                version.settings = settings;
                before
            }
            none => {
                *none = Some(Version::new(settings));
                self.shares.join(settings.function);
                0
            }
        };
        let version = self.known(id);
        let (after, missing) = (version.provisioned_target(), version.missing());
        self.missing += missing;
        self.shares.configure(settings.function, settings.reserved, (before, after));
        self.drop_surplus(now, id);
    }

    /// Lets idle provisioned workers beyond the target go.
    fn drop_surplus(&mut self, now: Instant, id: VersionId) {
        let version = self.known(id);
        let mut surplus = version.provisioned.saturating_sub(version.provisioned_target());
        for slot in &mut self.slots {
            if let State::Idle { version, provisioned: true, until, .. } = &mut slot.state
                && *version == id
                && surplus > 0
            {
                *until = Some(now);
                surplus -= 1;
            }
        }
        self.note(now, Reason::Idle);
    }

    fn retired(
        &mut self,
        now: Instant,
        id: VersionId,
        successor: Option<VersionId>,
        actions: &mut Actions,
    ) {
        let version = self.known_mut(id);
        let (target, missing) = (version.provisioned_target(), version.missing());
        version.retired = true;
        let (function, reserved) = (version.settings.function, version.settings.reserved);
        self.missing -= missing;
        // The successor was configured first, so its reservation is the one that counts.
        let reserved = successor.map_or(reserved, |s| self.known(s).settings.reserved);
        self.shares.configure(function, reserved, (target, 0));
        let mut at = None;
        while let Some(ticket) = self.line.after(at) {
            at = Some(ticket);
            if self.line.get(ticket).version == id {
                self.move_waiter(now, ticket, successor);
            }
        }
        for slot in &mut self.slots {
            match &mut slot.state {
                State::Idle { version, until, .. } if *version == id => *until = Some(now),
                State::Starting { version, until, .. } if *version == id => *until = now,
                State::Free
                | State::Idle { .. }
                | State::Starting { .. }
                | State::Busy { .. }
                | State::Stopping { .. } => {}
            }
        }
        self.note(now, Reason::Idle);
        self.forget(id, actions);
    }

    /// Gives a waiter of a retired version to its successor, or lets it run out at once.
    fn move_waiter(&mut self, now: Instant, ticket: Ticket, successor: Option<VersionId>) {
        self.unbind(ticket);
        let old = self.line.get(ticket).version;
        let waiter = self.line.get_mut(ticket);
        match successor {
            Some(new) => {
                (waiter.version, waiter.failed, waiter.patient) = (new, 0, true);
                self.known_mut(old).waiting -= 1;
                self.known_mut(new).waiting += 1;
            }
            None => waiter.until = now,
        }
        self.note(self.line.get(ticket).until, Reason::Wait);
    }

    fn drain_started(&mut self, now: Instant, cut_off: Instant) {
        self.drain = Some(cut_off);
        for slot in &mut self.slots {
            match &mut slot.state {
                State::Idle { until, .. } => *until = Some(now),
                State::Starting { until, waiter: None, .. } => *until = now,
                State::Starting { until, .. } | State::Busy { until, .. } => {
                    *until = cut_off.min(*until);
                }
                State::Free | State::Stopping { .. } => {}
            }
        }
        let mut at = None;
        while let Some(ticket) = self.line.after(at) {
            at = Some(ticket);
            self.line.get_mut(ticket).until = now;
        }
        self.note(now, Reason::Idle);
    }

    fn invoked(
        &mut self,
        now: Instant,
        invocation: InvocationId,
        id: VersionId,
        actions: &mut Actions,
    ) {
        let version = self.known_mut(id);
        version.lift(now);
        let version = *version;
        let refuse = |refusal| Action::Settle { invocation, outcome: Outcome::Rejected(refusal) };
        if self.drain.is_some() {
            push(actions, refuse(Refusal::Draining));
            return;
        }
        if version.settings.reserved == Some(0) {
            push(actions, refuse(Refusal::Reserved));
            return;
        }
        if version.waiting == 0
            && let Some(slot) = self.usable_idle(id, false)
        {
            self.dispatch(now, slot, invocation, actions);
            return;
        }
        if version.is_failing() {
            push(actions, Action::Settle { invocation, outcome: Outcome::InitFailed });
            return;
        }
        // Who wants no wait is given one as long as that takes nobody else's place.
        let least_ms = if self.line.len() < WAITING_MAX / 2 { QUEUE_WAIT_MS_MIN } else { 0 };
        let until = now.after_ms(version.settings.queue_wait_ms.max(least_ms));
        let waiter = Waiter {
            invocation,
            version: id,
            bound: Bound::Loose,
            until,
            failed: 0,
            patient: true,
        };
        if self.line.push(waiter).is_none() {
            push(actions, refuse(Refusal::LineFull));
            return;
        }
        self.known_mut(id).waiting += 1;
        self.note(until, Reason::Wait);
        if let Some(until) = version.hold_until() {
            self.note(until, Reason::Backoff);
        }
    }

    fn cancelled(&mut self, invocation: InvocationId, actions: &mut Actions) {
        let found = self.line.iter().find(|(_, w)| w.invocation == invocation).map(|(t, _)| t);
        if let Some(ticket) = found {
            self.settle_waiter(ticket, Outcome::Cancelled, actions);
        }
    }

    /// Takes a waiter out of the line and tells its caller.
    fn settle_waiter(&mut self, ticket: Ticket, outcome: Outcome, actions: &mut Actions) {
        self.unbind(ticket);
        let waiter = self.line.remove(ticket);
        self.known_mut(waiter.version).waiting -= 1;
        push(actions, Action::Settle { invocation: waiter.invocation, outcome });
        self.forget(waiter.version, actions);
    }

    fn replied(&mut self, slot: u16, ok: bool, actions: &mut Actions) {
        if let State::Busy { version, invocation, settled: settled @ false, .. } =
            &mut self.slot(slot).state
        {
            *settled = true;
            let (version, invocation) = (*version, *invocation);
            let outcome = if ok { Outcome::Done } else { Outcome::Failed };
            push(actions, Action::Settle { invocation, outcome });
            let version = self.known_mut(version);
            version.failures = 0;
            if let Hold::Failing(_) = version.hold {
                version.hold = Hold::None;
            }
        }
    }

    /// A worker cannot go on: it is told to go, and what it ran is lost.
    fn failed(&mut self, now: Instant, slot: u16, actions: &mut Actions) {
        match self.slot(slot).state {
            State::Free | State::Stopping { .. } => {}
            State::Starting { .. } => self.start_failed(now, slot, Outcome::InitFailed, actions),
            State::Idle { version, served, .. } => {
                self.idle_lost(now, version, served);
                self.stop(now, slot, actions);
            }
            State::Busy { invocation, settled, waiter, .. } => {
                if let Some(ticket) = waiter {
                    self.unbind(ticket);
                }
                if !settled {
                    push(actions, Action::Settle { invocation, outcome: Outcome::Crashed });
                }
                self.stop(now, slot, actions);
            }
        }
    }

    /// Ready and gone without ever serving: as bad as failing to start.
    fn idle_lost(&mut self, now: Instant, version: VersionId, served: u32) {
        if served == 0 && !self.known(version).retired {
            self.hold(version, |version| version.start_failed(now));
        }
    }

    fn exited(&mut self, now: Instant, slot: u16, cause: Cause, actions: &mut Actions) {
        match self.slot(slot).state {
            State::Free => {}
            State::Starting { .. } => self.start_gone(now, slot, cause, actions),
            State::Idle { version, served, .. } => {
                self.idle_lost(now, version, served);
                self.free(slot, actions);
            }
            State::Busy { version, invocation, settled, waiter, .. } => {
                if let Some(ticket) = waiter {
                    self.unbind(ticket);
                }
                if !settled {
                    let outcome = self.lost(now, version, cause);
                    push(actions, Action::Settle { invocation, outcome });
                }
                self.free(slot, actions);
            }
            State::Stopping { version, waiter, .. } => {
                let wanted = waiter.map(|ticket| (ticket, self.line.get(ticket).version));
                if let Some((ticket, wanted)) = wanted
                    && self.known(wanted).may_start()
                {
                    self.set(slot, State::Free);
                    self.start(now, slot, wanted, false, Some(ticket), actions);
                    self.forget(version, actions);
                } else {
                    if let Some((ticket, _)) = wanted {
                        self.unbind(ticket);
                    }
                    self.free(slot, actions);
                }
            }
        }
    }

    /// The process of a running invocation is gone before it replied.
    fn lost(&mut self, now: Instant, version: VersionId, cause: Cause) -> Outcome {
        match cause {
            Cause::Reaped => Outcome::Crashed,
            Cause::HandlerFault => {
                self.hold(version, |version| version.start_failed(now));
                Outcome::InitFailed
            }
            Cause::SystemFault => {
                self.hold(version, |version| version.start_refused(now));
                Outcome::Rejected(Refusal::NoProcess)
            }
        }
    }

    /// Forgets a retired version once nothing refers to it.
    fn forget(&mut self, id: VersionId, actions: &mut Actions) {
        let version = self.known(id);
        if version.retired && version.slots() == 0 && version.waiting == 0 {
            self.shares.leave(version.settings.function);
            self.versions[usize::from(id.0)] = None;
            push(actions, Action::Forget { version: id });
        }
    }
}

fn push(actions: &mut Actions, action: Action) {
    assert!(actions.push(action).is_ok(), "ACTIONS_MAX holds what one event can ask");
}

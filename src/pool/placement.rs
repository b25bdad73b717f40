//! Who gets which worker: dispatch, start, wait a moment, or evict.
//!
//! Order of preference for an invocation: an idle worker (provisioned before on-demand, most
//! recently used first), a worker that is about to ask for more, a start that nobody needs any
//! more, a free slot, a slot whose worker is on its way out, and last the place of the idle worker
//! that was not used for the longest time.

use super::event::{Action, Cause, InvocationId, Outcome, Reason, VersionId};
use super::line::{Bound, Ticket, Waiter};
use super::slot::State;
use super::time::Instant;
use super::{Actions, Pool, push};
use crate::limits::{PATIENCE_MS, PLACEMENT_ACTIONS, STARTS_MAX};

impl Pool {
    /// Makes all placements that are possible, as far as `actions` has room for them; if it has
    /// not, asks to be called again at once.
    pub(super) fn place(&mut self, now: Instant, actions: &mut Actions) {
        self.recheck = false;
        while !self.line.is_empty() || self.missing > 0 {
            if actions.len() + PLACEMENT_ACTIONS > actions.capacity() {
                self.recheck = true;
                return;
            }
            if !self.place_one(now, actions) {
                return;
            }
        }
    }

    /// Makes one placement, and before it all bindings that come earlier in the line.
    fn place_one(&mut self, now: Instant, actions: &mut Actions) -> bool {
        let mut at = None;
        while let Some(ticket) = self.line.after(at) {
            let waiter = *self.line.get(ticket);
            if self.place_waiter(now, ticket, waiter, actions) {
                return true;
            }
            if waiter.bound == Bound::Loose && self.drain.is_none() {
                self.bind_waiter(now, ticket, waiter);
                if self.line.get(ticket).bound == Bound::Loose && self.ends_at(waiter) {
                    break;
                }
            }
            at = Some(ticket);
        }
        self.missing > 0 && self.drain.is_none() && self.provision(now, actions)
    }

    /// True if there is nothing for anybody behind this waiter either, who is loose and stays it: all
    /// wait for the same version, and what only those get who have a place already is not there. A
    /// long line costs no more than a short one.
    fn ends_at(&self, waiter: Waiter) -> bool {
        let alone = usize::from(self.known(waiter.version).waiting) == self.line.len();
        alone
            && self.usable_idle(waiter.version, true).is_none()
            && self.find(|state| matches!(state, State::Stopping { waiter: Some(_), .. })).is_none()
    }

    /// True if this waiter left the line or got a start or an eviction of its own.
    fn place_waiter(
        &mut self,
        now: Instant,
        ticket: Ticket,
        waiter: Waiter,
        actions: &mut Actions,
    ) -> bool {
        let charged = matches!(waiter.bound, Bound::Start(_) | Bound::Stop(_));
        if let Some(slot) = self.usable_idle(waiter.version, charged) {
            self.unbind(ticket);
            self.line.remove(ticket);
            self.known_mut(waiter.version).waiting -= 1;
            self.dispatch(now, slot, waiter.invocation, actions);
            return true;
        }
        let version = self.known(waiter.version);
        let function = version.settings.function;
        let loose = match waiter.bound {
            Bound::Loose => true,
            Bound::Stop(_) => false,
            Bound::Start(_) | Bound::Soon(..) => return false,
        };
        if loose && version.is_failing() {
            self.settle_waiter(ticket, Outcome::InitFailed, actions);
            return true;
        }
        if !version.may_start()
            || (loose && (self.drain.is_some() || !self.shares.may_take(function)))
        {
            return false;
        }
        if loose && (self.soon(waiter).is_some() || self.spare(waiter.version).is_some()) {
            return false;
        }
        if let Some(slot) = self.free_slot() {
            self.unbind(ticket);
            self.shares.take(function);
            self.start(now, slot, waiter.version, false, Some(ticket), actions);
            return true;
        }
        if loose
            && self.unclaimed_stop().is_none()
            && let Some(slot) = self.eviction_victim()
        {
            self.stop(now, slot, actions);
            self.bind(ticket, Bound::Stop(slot));
            return true;
        }
        false
    }

    /// Binds a loose waiter to what will serve it soon, if there is such a thing.
    fn bind_waiter(&mut self, now: Instant, ticket: Ticket, waiter: Waiter) {
        if let Some(slot) = self.soon(waiter) {
            let until = now.after_ms(PATIENCE_MS);
            self.bind(ticket, Bound::Soon(slot, until));
            self.note(until, Reason::Wait);
        } else if !self.shares.may_take(self.known(waiter.version).settings.function) {
            // At its limit: it stays loose until somebody's use ends.
        } else if let Some(slot) = self.spare(waiter.version) {
            self.bind(ticket, Bound::Start(slot));
        } else if self.known(waiter.version).may_start()
            && let Some(slot) = self.unclaimed_stop()
        {
            self.bind(ticket, Bound::Stop(slot));
        }
    }

    fn bind(&mut self, ticket: Ticket, bound: Bound) {
        let slot = bound.slot().expect("bound to a slot");
        self.slot(slot).set_waiter(Some(ticket));
        let waiter = self.line.get_mut(ticket);
        waiter.bound = bound;
        let version = waiter.version;
        if matches!(bound, Bound::Start(_) | Bound::Stop(_)) {
            self.shares.take(self.known(version).settings.function);
        }
    }

    /// Makes a waiter loose again: its queue wait counts from here on.
    pub(super) fn unbind(&mut self, ticket: Ticket) {
        let waiter = self.line.get_mut(ticket);
        let (bound, version, until) = (waiter.bound, waiter.version, waiter.until);
        waiter.bound = Bound::Loose;
        if let Some(slot) = bound.slot() {
            self.slot(slot).set_waiter(None);
            self.note(until, Reason::Wait);
        }
        if matches!(bound, Bound::Start(_) | Bound::Stop(_)) {
            self.shares.give(self.known(version).settings.function);
        }
    }

    /// An idle worker of this version that one more invocation may use.
    pub(super) fn usable_idle(&self, id: VersionId, charged: bool) -> Option<u16> {
        let version = self.known(id);
        let on_demand = || {
            version.newest[0].filter(|_| charged || self.shares.may_take(version.settings.function))
        };
        version.newest[1].or_else(on_demand)
    }

    /// A worker of the waiter's version that has replied and is about to ask for more.
    fn soon(&self, waiter: Waiter) -> Option<u16> {
        let version = self.known(waiter.version);
        if !waiter.patient || version.busy == 0 || version.settings.one_shot {
            return None;
        }
        self.find(|state| {
            matches!(state, State::Busy { version, settled: true, waiter: None, .. }
                if *version == waiter.version)
        })
    }

    /// A starting worker of this version whose invocation found another worker.
    fn spare(&self, id: VersionId) -> Option<u16> {
        if self.known(id).starting == 0 {
            return None;
        }
        self.find(|state| {
            matches!(state, State::Starting { version, provisioned: false, waiter: None, .. }
                if *version == id)
        })
    }

    fn free_slot(&self) -> Option<u16> {
        self.find(|state| matches!(state, State::Free))
    }

    fn unclaimed_stop(&self) -> Option<u16> {
        self.find(|state| matches!(state, State::Stopping { waiter: None, .. }))
    }

    fn find(&self, wanted: impl Fn(&State) -> bool) -> Option<u16> {
        let found = self.slots.iter().position(|slot| wanted(&slot.state))?;
        Some(u16::try_from(found).expect("SLOTS_MAX fits a slot number"))
    }

    /// The idle worker that was not used for the longest time, or else a start that nobody waits
    /// for any more; never a provisioned one.
    fn eviction_victim(&self) -> Option<u16> {
        let idle = (0u16..).zip(&self.slots).filter_map(|(slot, s)| match s.state {
            State::Idle { provisioned: false, since, .. } => Some((since, slot)),
            State::Free
            | State::Idle { .. }
            | State::Starting { .. }
            | State::Busy { .. }
            | State::Stopping { .. } => None,
        });
        idle.min().map(|(_, slot)| slot).or_else(|| {
            self.find(|state| {
                matches!(state, State::Starting { provisioned: false, waiter: None, .. })
            })
        })
    }

    /// Starts one provisioned worker that is missing, or makes room for it.
    fn provision(&mut self, now: Instant, actions: &mut Actions) -> bool {
        let missing = self
            .versions
            .iter()
            .position(|v| v.as_ref().is_some_and(|v| v.missing() > 0 && v.may_start()));
        let Some(index) = missing else { return false };
        let version = VersionId(u16::try_from(index).expect("VERSIONS_MAX fits a VersionId"));
        if let Some(slot) = self.free_slot() {
            self.start(now, slot, version, true, None, actions);
            return true;
        }
        // One eviction at a time: the slot that comes free is used before the next is asked for.
        if self.unclaimed_stop().is_none()
            && let Some(slot) = self.eviction_victim()
        {
            self.stop(now, slot, actions);
            return true;
        }
        false
    }

    pub(super) fn dispatch(
        &mut self,
        now: Instant,
        slot: u16,
        invocation: InvocationId,
        actions: &mut Actions,
    ) {
        let State::Idle { version, provisioned, served, .. } = self.slot(slot).state else {
            unreachable!("only idle workers are dispatched to");
        };
        self.run(now, slot, version, provisioned, served + 1, invocation);
        push(actions, Action::Dispatch { worker: self.worker(slot), invocation });
    }

    /// `until`, or when drain cuts off what still runs.
    fn in_time(&self, until: Instant) -> Instant {
        self.drain.map_or(until, |cut_off| cut_off.min(until))
    }

    fn run(
        &mut self,
        now: Instant,
        slot: u16,
        version: VersionId,
        provisioned: bool,
        served: u32,
        invocation: InvocationId,
    ) {
        let until = self.in_time(now.after_ms(self.known(version).settings.timeout_ms));
        self.set(
            slot,
            State::Busy {
                version,
                provisioned,
                served,
                invocation,
                until,
                settled: false,
                waiter: None,
            },
        );
        self.note(until, Reason::Timeout);
    }

    /// Starts a worker in a free slot. A waiter is charged for it already.
    pub(super) fn start(
        &mut self,
        now: Instant,
        slot: u16,
        id: VersionId,
        provisioned: bool,
        waiter: Option<Ticket>,
        actions: &mut Actions,
    ) {
        let place = self.slot(slot);
        assert!(place.is_free(), "a slot is free only when its process is reaped");
        place.generation = place.generation.wrapping_add(1);
        let settings = self.known(id).settings;
        let mut invocation = None;
        let again = waiter.is_some_and(|ticket| self.line.get(ticket).failed > 0);
        if settings.one_shot {
            let ticket = waiter.expect("one-shot workers are started for an invocation");
            let waiter = self.line.remove(ticket);
            self.known_mut(id).waiting -= 1;
            self.shares.give(settings.function);
            self.run(now, slot, id, false, 1, waiter.invocation);
            invocation = Some(waiter.invocation);
        } else {
            // The second start happens inside the invocation, so the function's timeout limits it.
            let first = settings.start_limit_ms(provisioned);
            let limit = match waiter.map(|ticket| self.line.get_mut(ticket)) {
                None => first,
                Some(waiter) => {
                    waiter.bound = Bound::Start(slot);
                    if again { settings.timeout_ms } else { first }
                }
            };
            let until = self.in_time(now.after_ms(limit));
            self.set(slot, State::Starting { version: id, provisioned, until, waiter });
            self.note(until, Reason::Init);
        }
        let worker = self.worker(slot);
        push(actions, Action::Spawn { worker, version: id, provisioned, invocation, again });
    }

    /// A starting worker's process is gone, or never came to be.
    pub(super) fn start_gone(
        &mut self,
        now: Instant,
        slot: u16,
        cause: Cause,
        actions: &mut Actions,
    ) {
        let State::Starting { version, waiter, .. } = self.slot(slot).state else {
            unreachable!("called for starting workers");
        };
        if cause == Cause::SystemFault {
            if let Some(ticket) = waiter {
                self.unbind(ticket);
            }
            self.hold(version, |version| version.start_refused(now));
            self.free(slot, actions);
            return;
        }
        let retry = waiter.filter(|ticket| self.count_failure(*ticket));
        if let Some(ticket) = retry {
            self.set(slot, State::Free);
            self.start(now, slot, version, false, Some(ticket), actions);
            return;
        }
        if let Some(ticket) = waiter {
            self.settle_waiter(ticket, Outcome::InitFailed, actions);
        }
        if !self.known(version).retired {
            self.hold(version, |version| version.start_failed(now));
        }
        self.free(slot, actions);
    }

    /// A starting worker has failed, but its process is still there: stop it.
    pub(super) fn start_failed(
        &mut self,
        now: Instant,
        slot: u16,
        outcome: Outcome,
        actions: &mut Actions,
    ) {
        let State::Starting { version, waiter, .. } = self.slot(slot).state else {
            unreachable!("called for starting workers");
        };
        let retry = waiter.filter(|ticket| self.count_failure(*ticket));
        let draining = self.drain.is_some();
        let unwanted = draining && (waiter.is_none() || outcome == Outcome::Cancelled);
        match (retry, waiter) {
            (Some(ticket), _) => {
                // Its charge stays: it waits for the same slot.
                self.line.get_mut(ticket).bound = Bound::Stop(slot);
            }
            (None, Some(ticket)) => self.settle_waiter(ticket, outcome, actions),
            (None, None) => {}
        }
        if retry.is_none() && !unwanted && !self.known(version).retired {
            self.hold(version, |version| version.start_failed(now));
        }
        self.stop(now, slot, actions);
        self.slot(slot).set_waiter(retry);
    }

    /// Counts a failed start for a waiter; true if it may try once more.
    fn count_failure(&mut self, ticket: Ticket) -> bool {
        let draining = self.drain.is_some();
        let waiter = self.line.get_mut(ticket);
        waiter.failed += 1;
        waiter.failed < STARTS_MAX && !draining
    }

    pub(super) fn hold(&mut self, id: VersionId, why: impl Fn(&mut super::Version)) {
        let version = self.known_mut(id);
        why(version);
        if let Some(until) = version.hold_until() {
            self.note(until, Reason::Backoff);
        }
    }

    /// A worker asks for work: give it rest, and let the line take it if it is wanted.
    pub(super) fn ready(&mut self, now: Instant, slot: u16, actions: &mut Actions) {
        let (version, provisioned, served) = match self.slot(slot).state {
            State::Starting { version, provisioned, .. } => (version, provisioned, 0),
            State::Busy { version, provisioned, served, settled: true, .. } => {
                (version, provisioned, served)
            }
            State::Free | State::Idle { .. } | State::Busy { .. } | State::Stopping { .. } => {
                return;
            }
        };
        if let Some(ticket) = self.slot(slot).waiter() {
            self.unbind(ticket);
        }
        let known = self.known(version);
        let settings = known.settings;
        if settings.max_invocations > 0 && served >= settings.max_invocations {
            self.stop(now, slot, actions);
            return;
        }
        let surplus = provisioned && known.provisioned > known.provisioned_target();
        let until = if self.drain.is_some() || known.retired || surplus {
            Some(now)
        } else if provisioned {
            None
        } else {
            Some(now.after_ms(self.jittered(slot, settings.idle_timeout_ms)))
        };
        let next = known.newest[usize::from(provisioned)];
        self.set(slot, State::Idle { version, provisioned, served, since: now, until, next });
        if let Some(until) = until {
            self.note(until, Reason::Idle);
        }
    }

    /// Spreads idle timeouts by a tenth either way, so that workers of one burst do not all go at
    /// the same instant. Taken from the worker's id, so that the same run gives the same times.
    fn jittered(&self, slot: u16, ms: u32) -> u32 {
        let worker = self.worker(slot);
        let mixed = (u32::from(worker.slot) << 16 ^ worker.generation).wrapping_mul(0x9E37_79B1);
        let fifth = u64::from(ms) / 5;
        let ms = u64::from(ms) - fifth / 2 + fifth * u64::from(mixed >> 16) / 0xFFFF;
        u32::try_from(ms).unwrap_or(u32::MAX)
    }

    /// Tells a worker to go. What waited for it is bound to its slot by the caller, or loose.
    pub(super) fn stop(&mut self, now: Instant, slot: u16, actions: &mut Actions) {
        let version = self.slots[usize::from(slot)].version().expect("a live worker is stopped");
        let until = now.after_ms(self.known(version).settings.grace_ms);
        self.set(slot, State::Stopping { version, until: Some(until), waiter: None });
        self.note(until, Reason::Kill);
        push(actions, Action::Stop { worker: self.worker(slot) });
    }

    /// The process of this slot is gone for good.
    pub(super) fn free(&mut self, slot: u16, actions: &mut Actions) {
        let version = self.slots[usize::from(slot)].version().expect("it held a worker");
        self.set(slot, State::Free);
        self.forget(version, actions);
    }
}

//! Deadlines: finding the nearest one and handling exactly that one.

use super::event::{Action, Outcome, Reason, Refusal, VersionId};
use super::line::{Bound, Ticket};
use super::slot::State;
use super::time::Instant;
use super::version::Hold;
use super::{Actions, Pool, push};

/// Whose deadline it is.
#[derive(Clone, Copy)]
enum Due {
    Slot(u16),
    Waiter(Ticket),
    Version(VersionId),
}

type Deadline = (Instant, Reason, Due);

impl Pool {
    pub(super) fn deadline_passed(&mut self, now: Instant, actions: &mut Actions) {
        if self.recheck {
            // The placement that every event ends with is what was asked for.
            return;
        }
        let [first, second] = self.nearest();
        let exact = |deadline: Option<Deadline>| deadline.map(|(at, reason, _)| (at, reason));
        match first {
            Some((at, _, due)) if at <= now => {
                // What handling it brings about is noted, as with every other event.
                self.next = exact(second);
                match due {
                    Due::Slot(slot) => self.slot_due(now, slot, actions),
                    Due::Waiter(ticket) => self.waiter_due(ticket, actions),
                    Due::Version(version) => self.known_mut(version).hold = Hold::None,
                }
            }
            _ => self.next = exact(first),
        }
    }

    /// The nearest deadline of all and the one behind it: of equal ones a slot's first, then a
    /// waiter's.
    fn nearest(&self) -> [Option<Deadline>; 2] {
        let mut nearest: [Option<Deadline>; 2] = [None; 2];
        let mut offer = |at: Option<Instant>, reason, due| {
            let Some(at) = at else { return };
            let before = |other: Option<Deadline>| other.is_none_or(|(least, ..)| at < least);
            if before(nearest[0]) {
                nearest = [Some((at, reason, due)), nearest[0]];
            } else if before(nearest[1]) {
                nearest[1] = Some((at, reason, due));
            }
        };
        for (index, slot) in (0u16..).zip(&self.slots) {
            let reason = match slot.state {
                State::Free => continue,
                State::Starting { .. } => Reason::Init,
                State::Idle { .. } => Reason::Idle,
                State::Busy { .. } => Reason::Timeout,
                State::Stopping { .. } => Reason::Kill,
            };
            offer(slot.deadline(), reason, Due::Slot(index));
        }
        for (ticket, waiter) in self.line.iter() {
            let at = match waiter.bound {
                Bound::Loose => Some(waiter.until),
                Bound::Soon(_, until) => Some(until),
                Bound::Start(_) | Bound::Stop(_) => None,
            };
            offer(at, Reason::Wait, Due::Waiter(ticket));
        }
        for (index, version) in (0u16..).zip(&self.versions) {
            if let Some(version) = version
                && (version.waiting > 0 || version.missing() > 0)
            {
                offer(version.hold_until(), Reason::Backoff, Due::Version(VersionId(index)));
            }
        }
        nearest
    }

    fn slot_due(&mut self, now: Instant, slot: u16, actions: &mut Actions) {
        match self.slot(slot).state {
            State::Free => unreachable!("a free slot has no deadline"),
            State::Starting { waiter, until, .. } => {
                let cut_off = self.drain == Some(until);
                // A second start runs inside the invocation: running out of time is its timeout.
                let second = waiter.is_some_and(|ticket| self.line.get(ticket).failed > 0);
                let outcome = match (cut_off, second) {
                    (true, _) => Outcome::Cancelled,
                    (false, true) => Outcome::TimedOut,
                    (false, false) => Outcome::InitFailed,
                };
                self.start_failed(now, slot, outcome, actions);
            }
            State::Idle { .. } => self.stop(now, slot, actions),
            State::Busy { invocation, settled, until, waiter, .. } => {
                if let Some(ticket) = waiter {
                    self.unbind(ticket);
                }
                if !settled {
                    let cut_off = self.drain.is_some_and(|cut_off| until == cut_off);
                    let outcome = if cut_off { Outcome::Cancelled } else { Outcome::TimedOut };
                    push(actions, Action::Settle { invocation, outcome });
                }
                self.stop(now, slot, actions);
            }
            State::Stopping { version, waiter, .. } => {
                self.set(slot, State::Stopping { version, until: None, waiter });
                push(actions, Action::Kill { worker: self.worker(slot) });
            }
        }
    }

    fn waiter_due(&mut self, ticket: Ticket, actions: &mut Actions) {
        let waiter = *self.line.get(ticket);
        if let Bound::Soon(..) = waiter.bound {
            self.unbind(ticket);
            self.line.get_mut(ticket).patient = false;
            return;
        }
        let version = self.known(waiter.version);
        let outcome = if self.drain.is_some() {
            Outcome::Rejected(Refusal::Draining)
        } else if version.retired {
            Outcome::Cancelled
        } else if let Hold::NoProcess(_) = version.hold {
            Outcome::Rejected(Refusal::NoProcess)
        } else {
            Outcome::Rejected(self.shares.refusal(version.settings.function))
        };
        self.settle_waiter(ticket, outcome, actions);
    }
}

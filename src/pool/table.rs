//! Changing a slot's state, with everything that is counted from states kept in step.

use super::event::VersionId;
use super::slot::State;
use super::{Pool, Version};

impl Pool {
    /// Replaces the state of a slot. A waiter tied to the old state is the caller's affair.
    pub(super) fn set(&mut self, slot: u16, state: State) {
        if let State::Idle { version, provisioned, .. } = self.slot(slot).state {
            self.unlink(slot, version, provisioned);
        }
        let old = core::mem::replace(&mut self.slot(slot).state, state);
        self.count(old, false);
        self.count(state, true);
        if let State::Idle { version, provisioned, .. } = state {
            self.known_mut(version).newest[usize::from(provisioned)] = Some(slot);
        }
    }

    fn count(&mut self, state: State, enters: bool) {
        let (version, provisioned, busy): (VersionId, bool, bool) = match state {
            State::Free => return,
            State::Starting { version, provisioned, .. }
            | State::Idle { version, provisioned, .. } => (version, provisioned, false),
            State::Busy { version, provisioned, .. } => (version, provisioned, true),
            State::Stopping { version, .. } => (version, false, false),
        };
        let step = |count: &mut u16| if enters { *count += 1 } else { *count -= 1 };
        let known = self.known_mut(version);
        let function = known.settings.function;
        step(of_state(known, state));
        if provisioned {
            let before = known.missing();
            step(&mut known.provisioned);
            let after = known.missing();
            self.missing = self.missing + after - before;
        } else if busy && enters {
            self.shares.take(function);
        } else if busy {
            self.shares.give(function);
        }
    }

    /// Takes an idle worker out of its version's list of idle workers, newest first.
    fn unlink(&mut self, slot: u16, id: VersionId, provisioned: bool) {
        let next_of = |pool: &Pool, slot: u16| match pool.slots[usize::from(slot)].state {
            State::Idle { next, .. } => next,
            State::Free | State::Starting { .. } | State::Busy { .. } | State::Stopping { .. } => {
                unreachable!("only idle workers are linked")
            }
        };
        let behind = next_of(self, slot);
        let newest = &mut self.known_mut(id).newest[usize::from(provisioned)];
        if *newest == Some(slot) {
            *newest = behind;
            return;
        }
        let mut at = newest.expect("an idle worker is linked");
        loop {
            let next = next_of(self, at).expect("an idle worker is linked");
            if next == slot {
                break;
            }
            at = next;
        }
        if let State::Idle { next, .. } = &mut self.slot(at).state {
            *next = behind;
        }
    }
}

fn of_state(version: &mut Version, state: State) -> &mut u16 {
    match state {
        State::Free => unreachable!("free slots belong to no version"),
        State::Starting { .. } => &mut version.starting,
        State::Idle { .. } => &mut version.idle,
        State::Busy { .. } => &mut version.busy,
        State::Stopping { .. } => &mut version.stopping,
    }
}

//! Who may run how much: reserved, provisioned and unreserved concurrency out of one table.
//!
//! As on Lambda: a reservation is a guarantee and a ceiling for the whole function; provisioned
//! workers count inside the function's reservation, or inside what nobody reserved; everything
//! else shares the rest. Only *on-demand* use is counted here: invocations that run on a worker
//! which is not provisioned, or that hold a slot for such a worker.

use heapless::Vec;

use super::event::{FunctionId, Refusal};
use crate::limits::FUNCTIONS_MAX;

/// One function's part of the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Guarantee and ceiling; `None`: takes from the common rest.
    pub reserved: Option<u16>,
    /// Provisioned workers over all its versions.
    pub provisioned: u16,
    /// On-demand use right now.
    pub on_demand: u16,
    /// Versions the pool knows of it.
    pub versions: u16,
}

/// The table as shared between functions.
pub struct Shares {
    functions: Vec<Share, FUNCTIONS_MAX>,
    slots_limit: u16,
    /// What on-demand use of functions without a reservation may reach.
    common: u16,
    /// On-demand use of functions without a reservation.
    common_used: u16,
}

impl Shares {
    pub(super) const fn new(slots_limit: u16) -> Shares {
        Shares { functions: Vec::new(), slots_limit, common: slots_limit, common_used: 0 }
    }

    /// One function's share.
    pub fn get(&self, function: FunctionId) -> &Share {
        &self.functions[usize::from(function.0)]
    }

    /// What functions without a reservation may use together, on demand.
    pub fn common(&self) -> u16 {
        self.common
    }

    /// What they use.
    pub fn common_used(&self) -> u16 {
        self.common_used
    }

    fn get_mut(&mut self, function: FunctionId) -> &mut Share {
        &mut self.functions[usize::from(function.0)]
    }

    /// A version of `function` appeared.
    pub(super) fn join(&mut self, function: FunctionId) {
        while self.functions.len() <= usize::from(function.0) {
            assert!(self.functions.push(Share::default()).is_ok(), "FunctionId < FUNCTIONS_MAX");
        }
        self.get_mut(function).versions += 1;
    }

    /// A version of `function` is forgotten. A function without versions reserves nothing.
    pub(super) fn leave(&mut self, function: FunctionId) {
        let share = self.get_mut(function);
        share.versions -= 1;
        if share.versions == 0 {
            assert!(share.on_demand == 0 && share.provisioned == 0, "it has no workers");
            share.reserved = None;
            self.recount();
        }
    }

    /// Sets a function's reservation and changes its number of provisioned workers.
    pub(super) fn configure(
        &mut self,
        function: FunctionId,
        reserved: Option<u16>,
        (before, after): (u16, u16),
    ) {
        let share = self.get_mut(function);
        share.reserved = reserved;
        share.provisioned = share.provisioned + after - before;
        self.recount();
    }

    fn recount(&mut self) {
        let mut taken = 0u16;
        self.common_used = 0;
        for share in &self.functions {
            match share.reserved {
                Some(reserved) => taken = taken.saturating_add(reserved),
                None => {
                    taken = taken.saturating_add(share.provisioned);
                    self.common_used += share.on_demand;
                }
            }
        }
        self.common = self.slots_limit.saturating_sub(taken);
    }

    /// True if `function` may use one more worker on demand.
    pub(super) fn may_take(&self, function: FunctionId) -> bool {
        let share = self.get(function);
        match share.reserved {
            Some(reserved) => share.on_demand < reserved.saturating_sub(share.provisioned),
            None => self.common_used < self.common,
        }
    }

    pub(super) fn take(&mut self, function: FunctionId) {
        let share = self.get_mut(function);
        share.on_demand += 1;
        if share.reserved.is_none() {
            self.common_used += 1;
        }
    }

    pub(super) fn give(&mut self, function: FunctionId) {
        let share = self.get_mut(function);
        share.on_demand -= 1;
        if share.reserved.is_none() {
            self.common_used -= 1;
        }
    }

    /// Which limit it was that an invocation of `function` waited for in vain.
    pub(super) fn refusal(&self, function: FunctionId) -> Refusal {
        if self.get(function).reserved.is_some() && !self.may_take(function) {
            Refusal::Reserved
        } else {
            Refusal::Unreserved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FunctionId = FunctionId(0);
    const B: FunctionId = FunctionId(1);
    const C: FunctionId = FunctionId(2);

    fn shares(slots: u16) -> Shares {
        let mut shares = Shares::new(slots);
        for function in [A, B, C] {
            shares.join(function);
        }
        shares
    }

    #[test]
    fn a_reservation_is_guarantee_and_ceiling() {
        let mut shares = shares(4);
        shares.configure(A, Some(1), (0, 0));
        for _ in 0..3 {
            assert!(shares.may_take(B));
            shares.take(B);
        }
        assert!(!shares.may_take(B), "the fourth slot is A's");
        assert!(shares.may_take(A));
        shares.take(A);
        assert!(!shares.may_take(A), "one is A's ceiling too");
        assert_eq!(shares.refusal(A), Refusal::Reserved);
        assert_eq!(shares.refusal(B), Refusal::Unreserved);
    }

    #[test]
    fn provisioned_workers_come_out_of_the_reservation_or_the_common_rest() {
        let mut shares = shares(5);
        shares.configure(A, Some(2), (0, 2));
        assert!(!shares.may_take(A), "all that A reserved is provisioned");
        shares.configure(B, None, (0, 1));
        assert_eq!(shares.common(), 2);
        shares.configure(B, None, (1, 0));
        assert_eq!(shares.common(), 3);
    }

    #[test]
    fn a_change_of_reservation_moves_what_is_in_use() {
        let mut shares = shares(4);
        shares.take(A);
        shares.take(B);
        assert_eq!(shares.common_used(), 2);
        shares.configure(A, Some(2), (0, 0));
        assert_eq!((shares.common(), shares.common_used()), (2, 1));
        shares.give(A);
        assert_eq!(shares.common_used(), 1);
        shares.configure(A, None, (0, 0));
        assert_eq!((shares.common(), shares.common_used()), (4, 1));
    }

    #[test]
    fn a_table_reserved_beyond_its_size_leaves_nothing_in_common() {
        let mut shares = shares(2);
        shares.configure(A, Some(3), (0, 0));
        assert!(!shares.may_take(B));
    }
}

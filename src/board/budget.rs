//! The memory budget: what a server and its workers need at the least, and what is left.
//!
//! The sum is of what is certain: the server, its connections, its buffers, and the smallest worker
//! in every slot. What handlers take beyond that is theirs to say (`memory_mb`); it counts where
//! workers are kept ready, and a single worker must find room.

use std::fmt;

use crate::limits::{
    BUFFERS_BUDGET_PART, BUFFERS_BYTES_MAX, CONNECTION_KIB, CONNECTIONS_MAX, SERVER_KIB, SLOTS_MAX,
    WORKER_KIB_MIN,
};

const KIB_PER_MB: u32 = 1024;

/// A budget, and what is planned with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// All of it, in MB.
    pub whole_mb: u32,
    /// Workers at one time.
    pub slots: u16,
}

impl Budget {
    /// So much for so many slots.
    pub fn of(whole_mb: u32, slots: u16) -> Budget {
        Budget { whole_mb, slots }
    }

    /// Most slots that fit into a budget; one at least, which may then not fit.
    pub fn slots_max(whole_mb: u32) -> u16 {
        let workers = Budget::of(whole_mb, 0).workers_kib() / WORKER_KIB_MIN;
        let most = u16::try_from(SLOTS_MAX).unwrap_or(u16::MAX);
        u16::try_from(workers).unwrap_or(most).clamp(1, most)
    }

    /// Bytes of all buffers together.
    pub fn buffers_bytes(self) -> usize {
        usize::try_from(self.buffers_kib()).unwrap_or(usize::MAX).saturating_mul(1024)
    }

    fn buffers_kib(self) -> u32 {
        let most = u32::try_from(BUFFERS_BYTES_MAX / 1024).unwrap_or(u32::MAX);
        (self.whole_kib() / BUFFERS_BUDGET_PART).min(most)
    }

    fn whole_kib(self) -> u32 {
        self.whole_mb.saturating_mul(KIB_PER_MB)
    }

    fn connections_kib() -> u32 {
        u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX).saturating_mul(CONNECTION_KIB)
    }

    fn server_kib(self) -> u32 {
        SERVER_KIB + Budget::connections_kib() + self.buffers_kib()
    }

    fn slots_kib(self) -> u32 {
        u32::from(self.slots) * WORKER_KIB_MIN
    }

    /// What workers have together.
    fn workers_kib(self) -> u32 {
        self.whole_kib().saturating_sub(self.server_kib())
    }

    /// The same in MB: the most that one worker may say that it needs.
    pub fn workers_mb(self) -> u32 {
        self.workers_kib() / KIB_PER_MB
    }

    /// What workers that are kept ready may need beyond the smallest, in MB.
    pub fn ready_mb(self) -> u32 {
        self.workers_kib().saturating_sub(self.slots_kib()) / KIB_PER_MB
    }

    /// True if the sum is within the budget.
    pub fn fits(self) -> bool {
        self.server_kib() + self.slots_kib() <= self.whole_kib()
    }
}

/// The sum.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |kib: u32| format!("{}.{}", kib / KIB_PER_MB, kib % KIB_PER_MB * 10 / KIB_PER_MB);
        write!(
            f,
            "server {} MB + {CONNECTIONS_MAX} connections {} + buffers {} + {} slots {} = {} of {} MB",
            mb(SERVER_KIB),
            mb(Budget::connections_kib()),
            mb(self.buffers_kib()),
            self.slots,
            mb(self.slots_kib()),
            mb(self.server_kib() + self.slots_kib()),
            self.whole_mb
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_shown_and_its_parts_are_its_parts() {
        let budget = Budget::of(12, 4);
        let sum = "server 2.5 MB + 512 connections 1.0 + buffers 3.0 + 4 slots 0.7 = 7.2 of 12 MB";
        assert_eq!(budget.to_string(), sum);
        assert!(budget.fits());
        assert_eq!((budget.workers_mb(), budget.ready_mb()), (5, 4));
        assert_eq!(budget.buffers_bytes(), 3 * 1024 * 1024);
        assert!(!Budget::of(12, 64).fits() && !Budget::of(1, 1).fits());
        assert_eq!(Budget::of(1, 1).workers_mb(), 0);
    }

    #[test]
    fn most_slots_are_those_that_fit() {
        for whole_mb in [8, 12, 31, 256, 100_000] {
            let most = Budget::slots_max(whole_mb);
            assert!(Budget::of(whole_mb, most).fits(), "{whole_mb} MB");
            let more = Budget::of(whole_mb, most + 1);
            assert!(!more.fits() || usize::from(most) == SLOTS_MAX, "{whole_mb} MB");
        }
        let large = Budget::of(u32::MAX, u16::MAX);
        assert_eq!(large.buffers_bytes(), BUFFERS_BYTES_MAX);
    }
}

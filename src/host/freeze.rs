//! Freezing: a worker that has been idle for a while is stopped with its whole group and gets no
//! processor time at all, as on Lambda; it goes on before it gets its next event, or SIGTERM.
//!
//! By signals: a cgroup for each worker would freeze descendants too that left the group, but costs
//! more at the start of a worker than all its freezing saves.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::Host;
use super::worker::Worker;
use crate::pool::{Instant, State};

/// When to look for idle workers.
#[derive(Default)]
pub struct Freezer {
    look: Cell<Option<Instant>>,
    waker: Cell<Option<std::task::Waker>>,
}

impl Host {
    /// A worker may be idle from now on.
    pub(super) fn freeze_later(&self, now: Instant) {
        let after_ms = self.defaults.get().freeze_ms;
        if after_ms > 0 && self.freezer.look.get().is_none() {
            self.freezer.look.set(Some(now.after_ms(after_ms)));
            if let Some(waker) = self.freezer.waker.take() {
                waker.wake();
            }
        }
    }

    /// Freezes idle workers, for ever.
    pub(super) async fn keep_freezing(self: &Rc<Self>) {
        loop {
            let at = poll_fn(|cx| match self.freezer.look.get() {
                Some(at) => Poll::Ready(at),
                None => {
                    self.freezer.waker.set(Some(cx.waker().clone()));
                    Poll::Pending
                }
            });
            let at = at.await;
            self.reactor.sleep_until(at).await;
            self.freezer.look.set(self.freeze_idle());
        }
    }

    /// Freezes those that are idle for long enough; when the next one will be.
    fn freeze_idle(&self) -> Option<Instant> {
        let after_ms = self.defaults.get().freeze_ms;
        let now = self.reactor.now();
        let mut next: Option<Instant> = None;
        for worker in self.workers().into_iter().filter(|worker| !worker.frozen.get()) {
            let slot = usize::from(worker.id.slot);
            let idle = self.look(|pool| matches!(pool.view()[slot].state, State::Idle { .. }));
            let at = worker.used.get().after_ms(after_ms);
            if !idle || worker.stopping.get() {
                continue;
            }
            if at <= now && after_ms > 0 {
                worker.frozen.set(true);
                worker.process.freeze();
                if let Some(crew) = &worker.crew {
                    crew.freeze();
                }
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        next.filter(|_| after_ms > 0)
    }
}

impl Worker {
    /// Lets it go on, if it was frozen.
    pub(super) fn thaw(&self) {
        if self.frozen.replace(false) {
            self.process.thaw();
            if let Some(crew) = &self.crew {
                crew.thaw();
            }
        }
    }
}

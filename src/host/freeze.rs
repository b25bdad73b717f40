//! Freezing: a worker that has been idle for a while is stopped with its whole group and gets no
//! processor time at all, as on Lambda; it goes on before it gets its next event, or SIGTERM.
//!
//! By a control group for each worker where the server may make some, which holds descendants too
//! that have left the process group; otherwise by signals to that group. Where nothing is to be
//! frozen nobody has a control group.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::Host;
use super::catalog::Version;
use super::cgroup::{Cgroup, Cgroups};
use super::worker::Worker;
use crate::function::config::Runtime;
use crate::pool::{Instant, State};

/// When to look for idle workers, and how they are frozen.
pub struct Freezer {
    cgroups_wanted: bool,
    look: Cell<Option<Instant>>,
    waker: Cell<Option<std::task::Waker>>,
    /// Looked for when the first worker may be frozen.
    cgroups: OnceCell<Option<Rc<Cgroups>>>,
}

/// Whether a worker gets processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// It does.
    No,
    /// Its control group does not.
    Group,
    /// Its process group, and those of its extensions, were sent SIGSTOP.
    Stopped,
}

impl Freezer {
    /// Nobody is frozen. By control groups where that is possible if they are `wanted`.
    pub fn new(cgroups_wanted: bool) -> Freezer {
        Freezer {
            cgroups_wanted,
            look: Cell::default(),
            waker: Cell::default(),
            cgroups: OnceCell::new(),
        }
    }

    /// Removes the control groups of workers that are gone.
    pub fn tidy(&self) {
        if let Some(Some(cgroups)) = self.cgroups.get() {
            cgroups.tidy();
        }
    }
}

impl Host {
    /// A control group for a worker of `version`, if it may be frozen and there is a way.
    pub(super) fn cgroup(&self, version: &Version) -> Option<Rc<Cgroup>> {
        let defaults = self.defaults.get();
        if defaults.freeze_ms == 0 || version.config.runtime == Runtime::Exec {
            return None;
        }
        let detect = || {
            let found = match self.freezer.cgroups_wanted {
                true => Cgroups::detect(),
                false => Err("freezer = \"signals\"".to_owned()),
            };
            found.inspect_err(|why| log::info!("workers are frozen by signals: {why}")).ok()
        };
        let cgroup = self.freezer.cgroups.get_or_init(detect).as_ref()?.make();
        cgroup.inspect_err(|error| log::debug!("make a control group: {error}")).ok().map(Rc::new)
    }

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
        for worker in self.workers().into_iter().filter(|worker| worker.frozen.get() == Frozen::No)
        {
            let slot = usize::from(worker.id.slot);
            let idle = self.look(|pool| matches!(pool.view()[slot].state, State::Idle { .. }));
            let at = worker.used.get().after_ms(after_ms);
            if !idle || worker.stopping.get() {
                continue;
            }
            if at <= now && after_ms > 0 {
                worker.freeze();
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        next.filter(|_| after_ms > 0)
    }
}

impl Worker {
    fn freeze(&self) {
        let group = self.cgroup.as_ref().filter(|group| group.is_entered());
        if group.is_some_and(|group| group.set_frozen(true).is_ok()) {
            return self.frozen.set(Frozen::Group);
        }
        self.frozen.set(Frozen::Stopped);
        self.process.freeze();
        if let Some(crew) = &self.crew {
            crew.freeze();
        }
    }

    /// Lets it go on, if it was frozen.
    pub(super) fn thaw(&self) {
        match (self.frozen.replace(Frozen::No), &self.cgroup) {
            (Frozen::No, _) | (Frozen::Group, None) => {}
            (Frozen::Group, Some(group)) => {
                if let Err(error) = group.set_frozen(false) {
                    // Its invocation will time out.
                    log::error!("thaw process {}: {error}", self.process.pid());
                }
            }
            (Frozen::Stopped, _) => {
                self.process.thaw();
                if let Some(crew) = &self.crew {
                    crew.thaw();
                }
            }
        }
    }
}

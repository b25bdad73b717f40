//! Spares: workers that are made before they are wanted, one for each function whose workers are
//! wanted again and again. A spare takes no slot until it is taken, is ready by then, and goes
//! when nobody wants it for a while.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::Host;
use super::catalog::Version;
use super::cgroup::Cgroup;
use super::output::Output;
use super::process::Process;
use super::spawn::Seat;
use super::start::Birth;
use crate::function::config::{Runtime, Zygote as Wish};
use crate::limits::{SPARE_AFTER_MS, SPARE_IDLE_MS, SPARE_STARTS_MIN, SPARE_STARTS_MS};
use crate::pool::{Instant, VersionId};
use crate::runtime::native;

/// A worker that serves nobody yet.
pub struct Spare {
    /// Its process.
    pub process: Process,
    /// What it writes.
    pub output: Output,
    /// How it is spoken to.
    pub talk: native::Talk,
    /// Its control group, if it may be frozen one day.
    pub cgroup: Option<Rc<Cgroup>>,
}

/// The spares of all functions.
pub struct Spares {
    allowed: bool,
    hot: RefCell<Vec<Rc<Hot>>>,
    /// Processes that are not reaped yet and are no workers.
    processes: Cell<u32>,
}

/// A version of which a worker was wanted lately.
struct Hot {
    version: VersionId,
    /// When the latest workers were wanted, the last one first.
    starts: Cell<[Option<Instant>; SPARE_STARTS_MIN]>,
    spare: RefCell<Option<Spare>>,
    /// What makes one and keeps it, until it is taken or gone.
    keeper: RefCell<Option<smol::Task<()>>>,
    /// A worker was wanted while the keeper had none.
    missed: Cell<bool>,
    dismissed: Cell<bool>,
    grace_ms: u32,
}

impl Version {
    /// True if a worker made beforehand saves more than it costs: where it starts slowly.
    fn takes_spares(&self) -> bool {
        if !self.extensions.is_empty() {
            // They belong to a worker that is there for somebody.
            return false;
        }
        match (&self.config.runtime, self.config.zygote) {
            (Runtime::Python(_) | Runtime::Node(_), Wish::Auto | Wish::On)
            | (Runtime::Native, Wish::On) => true,
            (Runtime::Python(_) | Runtime::Node(_), Wish::Off)
            | (Runtime::Native, Wish::Auto | Wish::Off)
            | (Runtime::Exec | Runtime::Provided(_), _) => false,
        }
    }
}

impl Spares {
    /// None yet; and none ever unless `allowed`.
    pub fn new(allowed: bool) -> Spares {
        Spares { allowed, hot: RefCell::default(), processes: Cell::default() }
    }

    fn of(&self, version: VersionId) -> Option<Rc<Hot>> {
        self.hot.borrow().iter().find(|hot| hot.version == version).cloned()
    }

    /// The process that waits to be a version's next worker.
    pub fn pid(&self, version: VersionId) -> Option<i32> {
        self.of(version)?.spare.borrow().as_ref().map(|spare| spare.process.pid())
    }

    /// True while any of them has a process.
    pub fn are_there(&self) -> bool {
        self.processes.get() > 0
    }
}

impl Host {
    /// A worker that was made beforehand, if there is one.
    pub(super) fn take_spare(&self, version: &Version) -> Option<Spare> {
        let hot = self.spares.of(version.id)?;
        let spare = hot.spare.take()?;
        // Its new owner waits for its end.
        drop(hot.keeper.take());
        self.spares.processes.set(self.spares.processes.get() - 1);
        Some(spare)
    }

    /// Ends the spares of a version that is not served any more, or all of them.
    pub(super) fn dismiss_spares(self: &Rc<Self>, version: Option<VersionId>) {
        let all = self.spares.hot.take();
        let (gone, kept) =
            all.into_iter().partition(|hot| version.is_none_or(|v| hot.version == v));
        *self.spares.hot.borrow_mut() = kept;
        let gone: Vec<Rc<Hot>> = gone;
        for hot in gone {
            hot.dismissed.set(true);
            if let Some(spare) = hot.spare.take() {
                drop(hot.keeper.take());
                let host = Rc::clone(self);
                self.executor
                    .spawn(async move { host.end_spare(spare, hot.grace_ms).await })
                    .detach();
            }
        }
    }

    /// Lets a spare clean up, as every worker, and reaps it.
    async fn end_spare(&self, spare: Spare, grace_ms: u32) {
        let exited = || poll_fn(|cx| spare.process.poll_exited(cx));
        spare.process.stop();
        spare.talk.hang_up();
        if self.reactor.by(self.reactor.now().after_ms(grace_ms), exited()).await.is_none() {
            spare.process.kill();
            exited().await;
        }
        self.processes.end(spare.cgroup.iter().flat_map(|cgroup| cgroup.members()));
        self.spares.processes.set(self.spares.processes.get() - 1);
    }

    /// Takes note that a worker of this version was wanted; if that happens often, the next one is
    /// made beforehand.
    pub(super) fn worker_wanted(self: &Rc<Self>, version: &Rc<Version>) {
        if !self.spares.allowed || !version.takes_spares() || self.is_draining() {
            return;
        }
        let now = self.reactor.now();
        let hot = self.spares.of(version.id).unwrap_or_else(|| {
            let hot = Rc::new(Hot {
                version: version.id,
                starts: Cell::default(),
                spare: RefCell::default(),
                keeper: RefCell::default(),
                missed: Cell::default(),
                dismissed: Cell::new(false),
                grace_ms: version.settings(self.defaults.get()).grace_ms,
            });
            self.spares.hot.borrow_mut().push(Rc::clone(&hot));
            hot
        });
        let mut starts = hot.starts.get();
        starts.rotate_right(1);
        starts[0] = Some(now);
        hot.starts.set(starts);
        let often = |at: &Option<Instant>| at.is_some_and(|at| now < at.after_ms(SPARE_STARTS_MS));
        let kept = hot.keeper.borrow().as_ref().is_some_and(|keeper| !keeper.is_finished());
        hot.missed.set(kept);
        if starts.iter().all(often) && !kept {
            let (host, version, own) = (Rc::clone(self), Rc::clone(version), Rc::clone(&hot));
            // One that came to nothing is followed by another if it was missed meanwhile.
            let task = async move {
                loop {
                    host.keep_spare(&version, &own).await;
                    if !own.missed.take() || own.dismissed.get() {
                        break;
                    }
                }
            };
            *hot.keeper.borrow_mut() = Some(self.executor.spawn(task));
        }
    }

    /// Makes a spare, and ends it unless it is taken in time.
    async fn keep_spare(self: &Rc<Self>, version: &Rc<Version>, hot: &Hot) {
        // The worker that is wanted now goes first.
        self.reactor.sleep_ms(SPARE_AFTER_MS).await;
        match self.make_spare(version).await {
            Ok(Some(spare)) if hot.dismissed.get() => {
                return self.end_spare(spare, hot.grace_ms).await;
            }
            Ok(Some(spare)) => *hot.spare.borrow_mut() = Some(spare),
            Ok(None) => return,
            Err(error) => {
                return log::debug!("make a spare worker of {}: {error}", version.name);
            }
        }
        let until = self.reactor.now().after_ms(SPARE_IDLE_MS);
        let exited = poll_fn(|cx| match &*hot.spare.borrow() {
            Some(spare) => spare.process.poll_exited(cx).map(drop),
            None => Poll::Ready(()),
        });
        self.reactor.by(until, exited).await;
        if let Some(spare) = hot.spare.take() {
            self.end_spare(spare, hot.grace_ms).await;
        }
    }

    async fn make_spare(self: &Rc<Self>, version: &Rc<Version>) -> std::io::Result<Option<Spare>> {
        let (output, log) = self.log_pipe()?;
        let (talk, wire) = native::Talk::open(&self.reactor, &version.config.runtime)?;
        let environment = self.own_environment(version, false);
        let cgroup = self.cgroup(version);
        let mut birth = Birth { wire, log, environment, cgroup: cgroup.clone() };
        let process = if version.forks(self.reactor.now()) {
            if matches!(version.config.runtime, Runtime::Python(_)) {
                // It has time for the page copies that its first invocation would wait for.
                birth.environment.push(CString::from(c"HOB_SPARE=1"));
            }
            let process = self.processes.expect();
            let Some(zygote) = self.zygotes.of(version.id) else {
                process.never_came(super::zygote::UNWANTED);
                return Ok(None);
            };
            match self.fork_spare(&zygote, &process, &birth).await {
                Some(pid) => process.arrived(pid),
                None => {
                    process.never_came(super::zygote::UNWANTED);
                    return Ok(None);
                }
            }
            process
        } else {
            let spawn = |seat: &Seat<'_>| self.processes.spawn(&version.launch, seat);
            let started = birth.seated(version, None, spawn);
            started.map_err(|error| std::io::Error::other(error.to_string()))?
        };
        self.spares.processes.set(self.spares.processes.get() + 1);
        self.counters.borrow_mut().spawned += 1;
        Ok(Some(Spare { process, output, talk, cgroup }))
    }
}

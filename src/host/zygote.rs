//! Zygotes: for a version that can have one, a process that has started the runtime and imported
//! the handler, and forks the version's workers from there.
//!
//! It is started with the first worker that needs it, is no worker itself and takes no slot, and
//! goes when it has had no worker for the idle timeout. Its initialisation is that of the workers
//! that wait for it: if it fails, theirs has failed. One that may not fork becomes the worker that
//! it was started for; one that crashes is done without for a while, and workers start plainly.

mod talk;

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Poll;

use super::Host;
use super::catalog::{Unforkable, Version};
use super::output::Output;
use super::process::Process;
use super::spawn::{Exit, NotStarted, Seat};
use super::start::Birth;
use super::worker::Worker;
use crate::function::config::{Runtime, Zygote as Wish};
use crate::limits::{FORK_MS, ZYGOTE_AGAIN_MS, ZYGOTE_IDLE_MS_MIN};
use crate::pool::{Instant, VersionId};
use crate::runtime::native;
use talk::{Answer, Talk};

/// All zygotes that are alive.
#[derive(Default)]
pub struct Zygotes {
    live: RefCell<Vec<Rc<Zygote>>>,
    /// Processes of zygotes that are not reaped yet.
    processes: Cell<u32>,
}

/// The zygote of one version.
pub struct Zygote {
    /// Whose workers it forks.
    pub version: Rc<Version>,
    /// Its process.
    pub process: Process,
    /// When it was started.
    pub started: Instant,
    /// Workers and spares that it has forked.
    pub forks: Cell<u32>,
    output: Output,
    talk: Talk,
    /// When a worker last came from it.
    used: Cell<Instant>,
    /// It was told to go.
    dismissed: Cell<bool>,
}

/// How a wait for a fork ended.
enum Born {
    /// There it is.
    Worker(i32),
    /// The zygote could not initialise, and says why.
    InitError(Vec<u8>),
    /// The zygote ended while it initialised, or the worker before it was known.
    Ended(Exit),
    /// The worker is not wanted any more.
    Unwanted,
    /// No zygote will do it.
    Plainly,
}

impl Version {
    /// True if its workers are forked from a zygote.
    pub fn forks(&self, now: Instant) -> bool {
        let can = match (&self.config.runtime, self.config.zygote) {
            (Runtime::Python(_), Wish::Auto | Wish::On) | (Runtime::Native, Wish::On) => true,
            (Runtime::Python(_) | Runtime::Native, Wish::Off | Wish::Auto)
            | (Runtime::Exec | Runtime::Provided(_) | Runtime::Node(_), _) => false,
        };
        // Who insists is refused in words, at the start.
        let for_ever = self.config.zygote != Wish::On;
        let refused = |unforkable: &Unforkable| unforkable.until.map_or(for_ever, |at| now < at);
        can && !self.unforkable.borrow().as_ref().is_some_and(refused)
    }

    /// True if its workers have external extensions, and so are started with them.
    pub fn has_crew(&self, now: Instant) -> bool {
        !self.extensions.is_empty() && !self.forks(now)
    }

    /// The error of a function that insists on a zygote and cannot have one.
    fn insists_in_vain(&self) -> Option<Born> {
        let unforkable = self.unforkable.borrow();
        let Unforkable { why, until: None } = unforkable.as_ref()? else { return None };
        let error = serde_json::json!({
            "errorType": "Runtime.Unforkable",
            "errorMessage": format!("zygote = \"on\", but it must not fork: {why}"),
        });
        let json = error.to_string().into_bytes();
        (self.config.zygote == Wish::On).then_some(Born::InitError(json))
    }

    /// Takes note that extensions belong to each worker, if it has any: what is forked has none.
    pub(super) fn is_unforkable_with_extensions(&self) {
        let asks = self.config.runtime.can_fork() && self.config.zygote != Wish::Off;
        if asks && !self.extensions.is_empty() {
            self.is_unforkable("its layers have external extensions".to_owned(), None);
        }
    }

    /// Takes note of why its workers are not forked, for ever or until some time.
    fn is_unforkable(&self, why: String, until: Option<Instant>) {
        log::warn!("function {}: workers are not forked: {why}", self.name);
        *self.unforkable.borrow_mut() = Some(Unforkable { why, until });
    }
}

impl Zygotes {
    /// The zygote of a version, if it has one that stays.
    pub fn of(&self, version: VersionId) -> Option<Rc<Zygote>> {
        let is = |zygote: &&Rc<Zygote>| zygote.version.id == version && !zygote.dismissed.get();
        self.live.borrow().iter().find(is).cloned()
    }

    /// True while any of their processes is there.
    pub fn are_there(&self) -> bool {
        self.processes.get() > 0
    }

    /// Ends the zygote of a version that is not served any more.
    pub fn dismiss(&self, version: VersionId) {
        if let Some(zygote) = self.of(version) {
            zygote.dismiss();
        }
    }

    /// Ends all of them.
    pub fn dismiss_all(&self) {
        let all = self.live.borrow().clone();
        all.iter().for_each(|zygote| zygote.dismiss());
    }

    fn count(&self, by: i32) {
        self.processes.set(self.processes.get().saturating_add_signed(by));
    }
}

impl Zygote {
    fn dismiss(&self) {
        self.dismissed.set(true);
        self.process.kill();
    }
}

impl Host {
    /// Has a worker's process made: forked if that is possible, else started plainly. The worker
    /// lives, or its end is known, when this returns.
    pub(super) async fn bear(
        self: &Rc<Self>,
        worker: &Worker,
        birth: Birth,
    ) -> Result<(), NotStarted> {
        let version = &worker.version;
        match self.fork(worker, &birth).await {
            Born::Worker(pid) => worker.process.arrived(pid),
            Born::InitError(json) => {
                let error_type = native::error_type(&json);
                self.init_failed(worker, json, &error_type);
                worker.process.never_came(FAILED);
            }
            Born::Ended(exit) => worker.process.never_came(exit),
            Born::Unwanted => worker.process.never_came(UNWANTED),
            Born::Plainly => {
                let started =
                    birth.seated(version, None, |seat| worker.process.start(&version.launch, seat));
                started.inspect_err(|_| worker.process.never_came(FAILED))?;
            }
        }
        Ok(())
    }

    async fn fork(self: &Rc<Self>, worker: &Worker, birth: &Birth) -> Born {
        let version = &worker.version;
        if let Some(refused) = version.insists_in_vain() {
            return refused;
        }
        let zygote = match self.zygotes.of(version.id) {
            Some(zygote) => zygote,
            // That may have changed since this worker was wanted.
            None if !version.forks(self.reactor.now()) => return Born::Plainly,
            None => match self.start_zygote(version) {
                Ok(zygote) => zygote,
                Err(error) => {
                    // What is wrong shows once more, and is told, at the plain start.
                    log::debug!("start the zygote of {}: {error}", version.name);
                    return Born::Plainly;
                }
            },
        };
        let _wait = zygote.talk.join();
        let answer = poll_fn(|cx| match worker.process.poll_unwanted(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => zygote.talk.poll_ready(cx).map(Some),
        });
        match answer.await {
            None => {
                // If it was for this one alone that it takes so long, it need not go on.
                if zygote.talk.waiting() == 1 && !zygote.talk.is_ready() {
                    zygote.dismiss();
                }
                return Born::Unwanted;
            }
            Some(Answer::Ready) => {}
            Some(Answer::Unforkable(why)) => {
                version.is_unforkable(why, None);
                if let Some(refused) = version.insists_in_vain() {
                    zygote.dismiss();
                    return refused;
                }
            }
            Some(Answer::InitError(json)) => return Born::InitError(json),
            Some(Answer::Ended(exit)) => return Born::Ended(exit),
            Some(Answer::Gone) => {
                return version.insists_in_vain().unwrap_or(Born::Plainly);
            }
        }
        self.fork_from(&zygote, &worker.process, birth).await
    }

    /// Asks a zygote that is ready for one process.
    async fn fork_from(
        self: &Rc<Self>,
        zygote: &Rc<Zygote>,
        process: &Process,
        birth: &Birth,
    ) -> Born {
        let mut gifts = vec![birth.wire.socket.as_fd(), birth.log.as_fd()];
        gifts.extend(birth.wire.events.as_ref().map(AsFd::as_fd));
        // What the zygote has as well is left out: a variable less is pages less for the worker to copy.
        let own = birth.environment.iter().filter(|pair| pair.as_c_str() != USUAL);
        let mut pairs: Vec<_> = own.map(|pair| pair.to_string_lossy()).collect();
        if let Some(cgroup) = &birth.cgroup {
            pairs.push(format!("HOB_CGROUP={}", cgroup.door().display()).into());
        }
        let environment = pairs.join("\0");
        let asked = self.reactor.now();
        let serial = match zygote.talk.ask(&environment, &gifts) {
            Ok(serial) => serial,
            Err(error) => {
                zygote.version.is_unforkable(
                    format!("speak to the zygote: {error}"),
                    Some(self.reactor.now().after_ms(ZYGOTE_AGAIN_MS)),
                );
                zygote.dismiss();
                return Born::Plainly;
            }
        };
        let answer = loop {
            let answer = poll_fn(|cx| match process.poll_unwanted(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => zygote.talk.poll_forked(cx, serial).map(Some),
            });
            if let Some(answer) =
                self.reactor.by(self.reactor.now().after_ms(FORK_MS), answer).await
            {
                break answer;
            }
            // It may be the new process that answers. One that was killed before does not.
            if let Some(exit) = self.processes.ended_untold(asked) {
                return Born::Ended(exit);
            }
        };
        match answer {
            // A fork takes no such time: it hangs. What it may have forked reads the end of its
            // stream, since nobody else has our end.
            None => {
                zygote.version.is_unforkable(
                    "the zygote does not answer".to_owned(),
                    Some(self.reactor.now().after_ms(ZYGOTE_AGAIN_MS)),
                );
                zygote.dismiss();
                Born::Unwanted
            }
            Some(Some(pid)) => {
                zygote.forks.set(zygote.forks.get() + 1);
                zygote.used.set(self.reactor.now());
                if pid == zygote.process.pid() {
                    zygote.talk.became_worker();
                }
                Born::Worker(pid)
            }
            Some(None) => Born::Plainly,
        }
    }

    /// Forks a process that nobody has asked for yet.
    pub(super) async fn fork_spare(
        self: &Rc<Self>,
        zygote: &Rc<Zygote>,
        process: &Process,
        birth: &Birth,
    ) -> Option<i32> {
        if !poll_fn(|cx| zygote.talk.poll_known(cx)).await || zygote.dismissed.get() {
            return None;
        }
        match self.fork_from(zygote, process, birth).await {
            Born::Worker(pid) => Some(pid),
            Born::InitError(_) | Born::Ended(_) | Born::Unwanted | Born::Plainly => None,
        }
    }

    fn start_zygote(
        self: &Rc<Self>,
        version: &Rc<Version>,
    ) -> Result<Rc<Zygote>, super::start::Refused> {
        let now = self.reactor.now();
        let (output, log) = self.log_pipe()?;
        let (talk, wire) = Talk::open(&self.reactor)?;
        let mut environment = self.own_environment(version, false);
        environment.push(CString::from(c"HOB_ZYGOTE=1"));
        let stdio = [wire.as_fd(), log.as_fd(), log.as_fd()];
        let seat = Seat { environment: &environment, stdio: &stdio, join: None, cgroup: None };
        let process = self.processes.spawn(&version.launch, &seat)?;
        let zygote = Rc::new(Zygote {
            version: Rc::clone(version),
            process,
            started: now,
            forks: Cell::new(0),
            output,
            talk,
            used: Cell::new(now),
            dismissed: Cell::new(false),
        });
        self.zygotes.live.borrow_mut().push(Rc::clone(&zygote));
        self.zygotes.count(1);
        self.counters.borrow_mut().spawned += 1;
        let (host, own) = (Rc::clone(self), Rc::clone(&zygote));
        self.executor.spawn(async move { host.keep_zygote(&own).await }).detach();
        Ok(zygote)
    }

    /// Listens to a zygote until it is gone.
    async fn keep_zygote(self: &Rc<Self>, zygote: &Rc<Zygote>) {
        let name = &zygote.version.name;
        let said = |line: &[u8]| self.note_outside(name, line);
        let (mut heard, mut spoken) = (false, false);
        let exit = loop {
            let listen = poll_fn(|cx| {
                heard = heard || zygote.output.poll(cx, said).is_ready();
                if !spoken && let Poll::Ready(end) = zygote.talk.poll(cx) {
                    spoken = true;
                    if let Err(broken) = end {
                        let why = format!("the handler is no zygote: {broken}");
                        zygote.version.is_unforkable(why, None);
                        zygote.dismiss();
                    }
                }
                if zygote.talk.is_worker() {
                    return Poll::Ready(None);
                }
                zygote.process.poll_exited(cx).map(Some)
            });
            if zygote.dismissed.get() {
                break listen.await;
            }
            if let Some(exit) = self.reactor.by(self.next_look(zygote), listen).await {
                break exit;
            }
            self.look_at(zygote);
        };
        zygote.output.finish(said);
        self.zygotes.live.borrow_mut().retain(|other| !Rc::ptr_eq(other, zygote));
        self.zygotes.count(-1);
        let Some(exit) = exit else { return };
        if zygote.talk.is_ready() && !zygote.dismissed.get() {
            let why = format!("the zygote ended: {}", super::catalog::exit_message(exit));
            let until = self.reactor.now().after_ms(ZYGOTE_AGAIN_MS);
            zygote.version.is_unforkable(why, Some(until));
        }
        zygote.talk.ended(exit);
    }

    fn idle_ms(&self, version: &Version) -> u32 {
        version.settings(self.defaults.get()).idle_timeout_ms.max(ZYGOTE_IDLE_MS_MIN)
    }

    /// When to look whether a zygote is still needed.
    fn next_look(&self, zygote: &Zygote) -> Instant {
        zygote.used.get().after_ms(self.idle_ms(&zygote.version))
    }

    fn look_at(self: &Rc<Self>, zygote: &Zygote) {
        let now = self.reactor.now();
        if self.next_look(zygote) > now {
            return;
        }
        let has_workers = {
            let workers = self.workers.borrow();
            workers.iter().flatten().any(|worker| worker.version.id == zygote.version.id)
        };
        if has_workers {
            zygote.used.set(now);
        } else {
            zygote.dismiss();
        }
    }
}

/// The end of a process that was not wanted before it was there.
pub(super) const UNWANTED: Exit = Exit { status: None, signal: Some(9), rss_kib_max: 0 };
/// The end of a process that could not come to be.
pub(super) const FAILED: Exit = Exit { status: Some(1), signal: None, rss_kib_max: 0 };
/// What a zygote has in its environment, as have most workers.
const USUAL: &std::ffi::CStr = c"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand";

//! Processes of workers: asked to stop, killed, and reaped, always as a whole group.
//!
//! Two ways to learn of an exit, chosen at start: a pidfd for each worker (Linux 5.4 and later),
//! or SIGCHLD. Either way the same sweep reaps. Children that are not workers, the orphans that a
//! worker left behind, are ours too (we are their subreaper) and are reaped with them.
//!
//! The server must not start children by any other way than this: the sweep takes them all.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use litemap::LiteMap;
use rustix::process::{Pid, Signal as Sent};

use super::spawn::{self, Exit, Launch, NotStarted, Seat, Spawner, Started, Step};
use crate::io::reactor::Interest;
use crate::io::signal::{Signal, Signals};
use crate::io::{Io, Reactor};
use crate::limits::{STRAY_MS, STRAY_SWEEP_MS};
use crate::pool::Instant;

/// How exits become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaper {
    /// One descriptor for each process.
    Pidfd,
    /// A signal for all of them.
    Sigchld,
}

impl Reaper {
    /// The better one that this kernel has.
    pub fn detect() -> Reaper {
        let own = rustix::process::getpid();
        let flags = rustix::process::PidfdFlags::empty();
        match rustix::process::pidfd_open(own, flags) {
            Ok(_) => Reaper::Pidfd,
            Err(_) => Reaper::Sigchld,
        }
    }
}

/// All processes that the server started and has not reaped.
pub struct Processes {
    reactor: Rc<Reactor>,
    /// SIGCHLD, if that is how exits become known.
    signals: Option<Signals>,
    spawner: RefCell<Spawner>,
    live: RefCell<LiteMap<i32, Rc<Life>>>,
    /// Processes that others make for us and that are not here yet.
    expected: Cell<u32>,
    /// Ends of children that we did not know; while some are expected, it may have been theirs.
    early: RefCell<Vec<Early>>,
    /// What is still dying although its worker is reaped, and until when it may.
    strays: RefCell<Vec<(Stray, Instant)>>,
    /// Who sweeps them up, while there are none.
    sweeper: RefCell<Option<Waker>>,
}

/// A child that ended before anybody had told us of it.
struct Early {
    pid: i32,
    exit: Exit,
    at: Instant,
}

/// What a worker leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stray {
    /// Members of its process group.
    Group(Pid),
    /// One that was found elsewhere.
    Alone(Pid),
    /// Itself: it has ended, and a debugger has not let go of it yet.
    Held(Pid),
}

#[derive(Default)]
struct Life {
    /// Our own memory when it was started, in KiB; 0 if it was forked from another process.
    ours_kib: Cell<u64>,
    exit: Cell<Option<Exit>>,
    waker: RefCell<Option<Waker>>,
}

/// A worker's process, the leader of its group.
pub struct Process {
    /// Its number, once it is there.
    pid: Cell<Option<Pid>>,
    /// It is to go as soon as it is there.
    unwanted: Cell<bool>,
    life: Rc<Life>,
    pidfd: OnceCell<Io<OwnedFd>>,
    all: Rc<Processes>,
}

impl Processes {
    /// No processes yet. Made once the server's signal handlers are set.
    pub fn new(reactor: &Rc<Reactor>, reaper: Reaper) -> io::Result<Rc<Processes>> {
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            log::warn!("become the reaper of orphans: {error}");
        }
        let signals = match reaper {
            Reaper::Pidfd => None,
            Reaper::Sigchld => Some(Signals::new(reactor, &[Signal::Child])?),
        };
        Ok(Rc::new(Processes {
            reactor: Rc::clone(reactor),
            signals,
            spawner: RefCell::new(Spawner::new(reaper == Reaper::Pidfd)),
            live: RefCell::default(),
            expected: Cell::default(),
            early: RefCell::default(),
            strays: RefCell::default(),
            sweeper: RefCell::default(),
        }))
    }

    /// Starts a worker's process.
    pub fn spawn(self: &Rc<Self>, launch: &Launch, seat: &Seat<'_>) -> Result<Process, NotStarted> {
        let process = self.expect();
        match process.start(launch, seat) {
            Ok(()) => Ok(process),
            Err(error) => {
                self.expect_no_more();
                Err(error)
            }
        }
    }

    /// Starts our successor, which is no worker: nothing here ends it but [`Process::kill`], and it
    /// does not end with us.
    pub fn spawn_heir(
        self: &Rc<Self>,
        launch: &Launch,
        seat: &Seat<'_>,
    ) -> Result<Process, NotStarted> {
        let process = self.expect();
        let started = self.spawner.borrow_mut().spawn_heir(launch, seat);
        match started.and_then(|started| process.started(started)) {
            Ok(()) => Ok(process),
            Err(error) => {
                self.expect_no_more();
                Err(error)
            }
        }
    }

    /// A process that somebody will make: [`Process::start`], [`Process::arrived`] or
    /// [`Process::never_came`] say how that ended.
    pub fn expect(self: &Rc<Self>) -> Process {
        self.expected.set(self.expected.get() + 1);
        Process {
            pid: Cell::new(None),
            unwanted: Cell::new(false),
            life: Rc::default(),
            pidfd: OnceCell::new(),
            all: Rc::clone(self),
        }
    }

    fn expect_no_more(&self) {
        self.expected.set(self.expected.get() - 1);
        if self.expected.get() == 0 {
            self.early.borrow_mut().clear();
        }
    }

    fn pidfd(&self, pid: Pid) -> io::Result<Option<Io<OwnedFd>>> {
        if self.signals.is_some() {
            return Ok(None);
        }
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        Ok(Some(Io::new(&self.reactor, pidfd)?))
    }

    /// Reaps a child that has ended. One that a debugger holds is ours to reap once that lets it go.
    fn bury(&self, pid: i32) {
        let life = self.live.borrow().get(&pid).map(Rc::clone);
        let Some(life) = life else {
            let exit = spawn::reap(pid, false);
            if self.expected.get() > 0 {
                let at = self.reactor.now();
                self.early.borrow_mut().extend(exit.map(|exit| Early { pid, exit, at }));
            }
            return;
        };
        // The leader is still a zombie, so the group's id cannot be anybody else's yet.
        let group = Pid::from_raw(pid).expect("a child's pid is positive");
        let _ = rustix::process::kill_process_group(group, Sent::KILL);
        let Some(exit) = spawn::reap(pid, false) else { return };
        self.live.borrow_mut().remove(&pid);
        life.exit.set(Some(exit));
        if rustix::process::test_kill_process_group(group).is_ok() {
            self.stray(Stray::Group(group));
        }
        if let Some(waker) = life.waker.take() {
            waker.wake();
        }
    }

    /// Reaps every child that has ended.
    pub fn sweep(&self) {
        while let Some(pid) = spawn::ended_child() {
            self.bury(pid);
        }
        let now = self.reactor.now();
        self.strays.borrow_mut().retain(|(stray, until)| {
            let (there, pid) = match *stray {
                // Once more: one of them may have been forking.
                Stray::Group(group) => {
                    (rustix::process::kill_process_group(group, Sent::KILL).is_ok(), group)
                }
                // Its number may be somebody else's by now.
                Stray::Alone(pid) => (rustix::process::test_kill_process(pid).is_ok(), pid),
                Stray::Held(pid) => {
                    (self.live.borrow().contains_key(&pid.as_raw_nonzero().get()), pid)
                }
            };
            if there && *until <= now {
                // Its own parent does not reap it, or the kernel does not let it go.
                log::warn!("process or group {} does not go", pid.as_raw_nonzero());
            }
            there && *until > now
        });
    }

    /// How a child has ended, of which nobody has told us, since this time: it will not be told of
    /// any more.
    pub fn ended_untold(&self, since: Instant) -> Option<Exit> {
        self.sweep();
        let mut early = self.early.borrow_mut();
        let at = early.iter().position(|early| early.at >= since)?;
        Some(early.swap_remove(at).exit)
    }

    /// Makes these go, wherever they are: a worker that is gone has started them.
    pub fn end(&self, started: impl Iterator<Item = Pid>) {
        for pid in started {
            if rustix::process::kill_process(pid, Sent::KILL).is_ok() {
                self.stray(Stray::Alone(pid));
            }
        }
    }

    /// Looks again and again for a child that has ended and cannot be reaped: not every kernel says
    /// when it can.
    fn hold(&self, pid: Pid) {
        let is_known = |(stray, _): &(Stray, Instant)| *stray == Stray::Held(pid);
        if !self.strays.borrow().iter().any(is_known) {
            self.stray(Stray::Held(pid));
        }
    }

    fn stray(&self, stray: Stray) {
        let until = match stray {
            Stray::Group(_) | Stray::Alone(_) => self.reactor.now().after_ms(STRAY_MS),
            Stray::Held(_) => Instant::NEVER,
        };
        self.strays.borrow_mut().push((stray, until));
        if let Some(waker) = self.sweeper.take() {
            waker.wake();
        }
    }

    /// True while something that was killed is still to be reaped.
    pub fn has_strays(&self) -> bool {
        !self.strays.borrow().is_empty()
    }

    /// Reaps what the workers' own tasks do not, for ever.
    pub async fn keep_reaping(&self) {
        let told = async {
            match &self.signals {
                Some(signals) => loop {
                    signals.next().await;
                    self.sweep();
                },
                None => std::future::pending().await,
            }
        };
        smol::future::or(told, self.sweep_strays()).await;
    }

    /// Reaps what dies late.
    async fn sweep_strays(&self) {
        loop {
            poll_fn(|cx| {
                if self.has_strays() {
                    return Poll::Ready(());
                }
                *self.sweeper.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            self.reactor.sleep_ms(STRAY_SWEEP_MS).await;
            self.sweep();
        }
    }
}

impl Process {
    /// Makes it, in place of whoever was to. It is still expected if this fails.
    pub fn start(&self, launch: &Launch, seat: &Seat<'_>) -> Result<(), NotStarted> {
        let started = self.all.spawner.borrow_mut().spawn(launch, seat)?;
        self.started(started)
    }

    fn started(&self, started: Started) -> Result<(), NotStarted> {
        self.life.ours_kib.set(spawn::own_rss_kib_max());
        let pid = Pid::from_raw(started.pid).expect("a child's pid is positive");
        let pidfd = match started.pidfd {
            Some(fd) => Io::new(&self.all.reactor, fd).map(Some),
            None => self.all.pidfd(pid),
        };
        let pidfd = pidfd.map_err(|error| {
            // Its end would go unnoticed.
            let _ = rustix::process::kill_process(pid, Sent::KILL);
            spawn::reap(started.pid, true);
            NotStarted { step: Step::Clone, errno: error.raw_os_error().unwrap_or_default() }
        })?;
        self.is_there(pid, pidfd);
        Ok(())
    }

    /// Somebody has made it: the child of ours with this number, which may have ended already.
    pub fn arrived(&self, pid: i32) {
        let number = Pid::from_raw(pid).expect("a child's pid is positive");
        let mut early = self.all.early.borrow_mut();
        if let Some(at) = early.iter().position(|early| early.pid == pid) {
            let Early { exit, .. } = early.swap_remove(at);
            drop(early);
            return self.never_came(exit);
        }
        drop(early);
        match self.all.pidfd(number) {
            Ok(pidfd) => self.is_there(number, pidfd),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                let gone = Exit { status: None, signal: Some(9), rss_kib_max: 0 };
                self.never_came(gone);
            }
            Err(error) => {
                log::warn!("watch process {pid}: {error}");
                // Its end would go unnoticed.
                let _ = rustix::process::kill_process(number, Sent::KILL);
                let gone = Exit { status: None, signal: Some(9), rss_kib_max: 0 };
                self.never_came(spawn::reap(pid, true).unwrap_or(gone));
            }
        }
    }

    fn is_there(&self, pid: Pid, pidfd: Option<Io<OwnedFd>>) {
        // It may have lived under another name here, as the zygote that it was.
        self.all.live.borrow_mut().insert(pid.as_raw_nonzero().get(), Rc::clone(&self.life));
        self.all.expect_no_more();
        self.pid.set(Some(pid));
        if let Some(pidfd) = pidfd {
            assert!(self.pidfd.set(pidfd).is_ok(), "a process comes once");
        }
        if self.unwanted.get() {
            self.kill();
        }
        self.wake();
    }

    /// It will not come, or has gone already: this is said of its end.
    pub fn never_came(&self, exit: Exit) {
        self.all.expect_no_more();
        self.life.exit.set(Some(exit));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.life.waker.take() {
            waker.wake();
        }
    }

    /// Its id; 0 before it is there.
    pub fn pid(&self) -> i32 {
        self.pid.get().map_or(0, |pid| pid.as_raw_nonzero().get())
    }

    /// True once its number may be somebody else's.
    pub fn is_reaped(&self) -> bool {
        self.life.exit.get().is_some()
    }

    /// Asks the whole group to go.
    pub fn stop(&self) {
        self.signal(Sent::TERM);
    }

    /// Takes all processor time from the whole group.
    pub fn freeze(&self) {
        self.signal(Sent::STOP);
    }

    /// Lets the whole group go on.
    pub fn thaw(&self) {
        self.signal(Sent::CONT);
    }

    /// Makes the whole group go, and its leader, which may have left it.
    pub fn kill(&self) {
        self.signal(Sent::KILL);
        if let Some(pid) = self.pid.get().filter(|_| !self.is_reaped()) {
            let _ = rustix::process::kill_process(pid, Sent::KILL);
        }
    }

    fn signal(&self, signal: Sent) {
        let Some(pid) = self.pid.get() else {
            self.unwanted.set(true);
            return self.wake();
        };
        if !self.is_reaped()
            && let Err(error) = rustix::process::kill_process_group(pid, signal)
        {
            log::debug!("signal process group {}: {error}", self.pid());
        }
    }

    /// Waits until a process that is not there yet is not wanted any more.
    pub fn poll_unwanted(&self, cx: &Context<'_>) -> Poll<()> {
        if self.unwanted.get() {
            return Poll::Ready(());
        }
        self.wait(cx);
        Poll::Pending
    }

    /// Waits for its end. The group is gone then, and the process reaped.
    pub fn poll_exited(&self, cx: &Context<'_>) -> Poll<Exit> {
        if self.life.exit.get().is_none()
            && let Some(pidfd) = self.pidfd.get()
            && pidfd.poll_ready(cx, Interest::Read).is_ready()
        {
            // The kernel looks through all children for the rest: for this one it need not.
            self.all.bury(self.pid());
            self.all.sweep();
            if let Some(pid) = self.pid.get().filter(|_| !self.is_reaped()) {
                self.all.hold(pid);
            }
        }
        if let Some(exit) = self.life.exit.get() {
            return Poll::Ready(exit);
        }
        self.wait(cx);
        Poll::Pending
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.life.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The most memory it had, in KiB, as the kernel counts it: if that was more than we had when it
    /// was started.
    pub fn memory_kib(&self, rss_kib_max: u64) -> Option<u64> {
        Some(rss_kib_max).filter(|kib| *kib > self.life.ours_kib.get())
    }
}

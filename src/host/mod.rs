//! The host does: it performs what the pool decides, and tells the pool what happened.
//!
//! One thread, one executor. The pool is borrowed only inside [`Host::step`], which never waits;
//! performing an action may make further events, and these take their turn in the same step.

mod built_in;
pub mod catalog;
pub mod cgroup;
mod crew;
mod freeze;
mod helper;
pub mod invocation;
mod life;
pub mod load;
pub mod logs;
mod memory;
pub mod output;
pub mod process;
mod published;
pub mod settle;
mod spare;
pub mod spawn;
mod start;
pub mod stream;
pub mod trace;
pub mod worker;
pub mod zygote;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use smol::LocalExecutor;

use crate::io::{Buffer, Buffers, Reactor, Text};
use crate::pool::{Action, Event, Instant, InvocationId, Outcome, Pool};
use crate::pool::{VersionId, WorkerId};
use crate::runtime::launch::Facts;
use crate::runtime::provided;
use catalog::{Catalog, Defaults, Function, Version};
use freeze::Freezer;
use invocation::{Call, Invocation, Invocations, RequestId, Settled};
use logs::{Entry, Logs, Record};
use process::{Processes, Reaper};
use spare::Spares;
use trace::Trace;
use worker::Worker;
use zygote::Zygotes;

/// What the host is told at start.
pub struct Setup {
    /// Slots of the table.
    pub slots: u16,
    /// Limits that hold where a function says nothing.
    pub defaults: Defaults,
    /// How exits become known.
    pub reaper: Reaper,
    /// Hot functions get a worker made beforehand.
    pub spares: bool,
    /// Workers that may be frozen get a control group where that is possible.
    pub cgroups: bool,
    /// What workers are told about the server.
    pub facts: Facts,
    /// Randomness for request ids.
    pub seed: u64,
}

/// The shell around the pool.
pub struct Host {
    /// What it waits with.
    pub reactor: Rc<Reactor>,
    /// What its tasks run on.
    pub executor: Rc<LocalExecutor<'static>>,
    /// Where payloads are.
    pub buffers: Rc<Buffers>,
    /// What workers are told about the server.
    pub facts: Facts,
    /// Where the header of a message to a worker is put together.
    pub header: RefCell<Box<[u8]>>,
    /// And the texts in it.
    pub texts: RefCell<Text>,
    /// The log of all functions.
    pub logs: Logs,
    /// Limits that hold where a function says nothing.
    pub defaults: Cell<Defaults>,
    /// The functions.
    pub catalog: RefCell<Catalog>,
    /// Counts of what happened.
    pub counters: RefCell<Counters>,
    /// The processes.
    pub processes: Rc<Processes>,
    /// Held by whoever changes functions: by one push or one look at the folders at a time. The
    /// numbers that a change has chosen, and what it read, are its own until it is in force.
    pub changes: smol::lock::Mutex<()>,
    /// What is kept of functions is the successor's to change.
    pub is_succeeded: Cell<bool>,
    /// The server before this one still runs functions, from code that nothing here may name.
    pub has_predecessor: Cell<bool>,
    pool: RefCell<Pool>,
    workers: RefCell<Vec<Option<Rc<Worker>>>>,
    invocations: RefCell<Invocations>,
    events: RefCell<VecDeque<Event>>,
    stepping: Cell<bool>,
    draining: Cell<bool>,
    drained: RefCell<Option<Waker>>,
    /// Functions are still being read for the first time; who waits for that.
    loading: RefCell<Option<Vec<Waker>>>,
    /// There may be code that nothing runs any more.
    unused: Cell<bool>,
    /// What takes the processor from idle workers.
    pub freezer: Freezer,
    /// What workers are forked from.
    pub zygotes: Zygotes,
    /// Workers that are there before they are wanted.
    pub spares: Spares,
    /// The server that `provided` workers poll; it starts with the first of them.
    pub(crate) runtime_api: provided::Api,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Invocations that were settled.
    pub settled: u64,
    /// Processes that were started.
    pub spawned: u64,
}

impl Host {
    /// A host without functions. Not a part of its caller, whose frame lasts as long as the server:
    /// the pool is made on the stack.
    #[inline(never)]
    pub fn new(
        reactor: &Rc<Reactor>,
        executor: &Rc<LocalExecutor<'static>>,
        buffers: &Rc<Buffers>,
        setup: Setup,
    ) -> std::io::Result<Rc<Host>> {
        let host = Rc::new(Host {
            reactor: Rc::clone(reactor),
            executor: Rc::clone(executor),
            buffers: Rc::clone(buffers),
            facts: setup.facts,
            header: RefCell::new(vec![0; crate::wire::HEADER_MAX].into_boxed_slice()),
            texts: RefCell::default(),
            logs: Logs::default(),
            defaults: Cell::new(setup.defaults),
            catalog: RefCell::default(),
            counters: RefCell::default(),
            processes: Processes::new(reactor, setup.reaper)?,
            changes: smol::lock::Mutex::new(()),
            is_succeeded: Cell::default(),
            has_predecessor: Cell::default(),
            pool: RefCell::new(Pool::new(setup.slots)),
            workers: RefCell::new(vec![None; usize::from(setup.slots)]),
            invocations: RefCell::new(Invocations::new(setup.seed)),
            events: RefCell::default(),
            stepping: Cell::new(false),
            draining: Cell::new(false),
            drained: RefCell::default(),
            loading: RefCell::new(Some(Vec::new())),
            unused: Cell::default(),
            freezer: Freezer::new(setup.cgroups),
            zygotes: Zygotes::default(),
            spares: Spares::new(setup.spares),
            runtime_api: provided::Api::default(),
        });
        let deadlines = Rc::clone(&host);
        executor.spawn(async move { deadlines.keep_deadlines().await }).detach();
        let freezing = Rc::clone(&host);
        executor.spawn(async move { freezing.keep_freezing().await }).detach();
        let processes = Rc::clone(&host.processes);
        executor.spawn(async move { processes.keep_reaping().await }).detach();
        Ok(host)
    }

    /// Tells the pool what happened and does what it asks, and so on until nothing is left.
    pub fn step(self: &Rc<Self>, event: Event) {
        self.events.borrow_mut().push_back(event);
        if self.stepping.replace(true) {
            // Called from within an action: the step that performs it goes on with this event.
            return;
        }
        loop {
            let Some(event) = self.events.borrow_mut().pop_front() else { break };
            let now = self.reactor.now();
            let actions = self.pool.borrow_mut().on_event(now, event);
            for action in &actions {
                self.perform(now, *action);
            }
        }
        self.stepping.set(false);
        let pool = self.pool.borrow();
        self.reactor.set_alarm(pool.next_deadline().map(|(at, _)| at));
        if self.draining.get()
            && pool.is_drained()
            && let Some(waker) = self.drained.take()
        {
            waker.wake();
        }
    }

    /// Hands the pool its deadlines, for ever.
    async fn keep_deadlines(self: &Rc<Self>) {
        loop {
            let next = self.pool.borrow().next_deadline();
            match next {
                Some((at, _)) if at <= self.reactor.now() => self.step(Event::DeadlinePassed),
                Some((at, _)) => {
                    self.reactor.set_alarm(Some(at));
                    self.reactor.alarm().await;
                }
                None => self.reactor.alarm().await,
            }
        }
    }

    fn perform(self: &Rc<Self>, now: Instant, action: Action) {
        match action {
            Action::Spawn { worker, version, provisioned, invocation, again } => {
                self.spawn(now, worker, version, (provisioned, again), invocation);
            }
            Action::Dispatch { worker, invocation } => self.dispatch(now, worker, invocation),
            Action::Settle { invocation, outcome } => self.settle(now, invocation, outcome),
            Action::Stop { worker } => self.stop(worker),
            Action::Kill { worker } => {
                if let Some(worker) = self.worker(worker) {
                    worker.kill();
                }
            }
            Action::Forget { version } => {
                self.catalog.borrow_mut().forget(version);
                self.unused.set(true);
            }
        }
    }

    /// The worker, if it is still that one.
    pub fn worker(&self, id: WorkerId) -> Option<Rc<Worker>> {
        let workers = self.workers.borrow();
        workers[usize::from(id.slot)].as_ref().filter(|worker| worker.id == id).cloned()
    }

    /// All workers, by slot.
    pub fn workers(&self) -> Vec<Rc<Worker>> {
        self.workers.borrow().iter().flatten().cloned().collect()
    }

    /// Looks at the pool.
    pub fn look<R>(&self, look: impl FnOnce(&Pool) -> R) -> R {
        look(&self.pool.borrow())
    }

    /// An invocation that is in flight.
    pub fn with_invocation<R>(
        &self,
        id: InvocationId,
        with: impl FnOnce(&mut Invocation) -> R,
    ) -> R {
        with(self.invocations.borrow_mut().get(id))
    }

    /// An invocation that may have ended meanwhile.
    pub fn with_running<R>(
        &self,
        id: InvocationId,
        with: impl FnOnce(&mut Invocation) -> R,
    ) -> Option<R> {
        self.invocations.borrow_mut().find(id).map(with)
    }

    /// Random bits, for names that must not repeat.
    pub fn random(&self) -> u128 {
        self.invocations.borrow_mut().random()
    }

    /// A random number from 0 up to but not 1.
    pub fn chance(&self) -> f64 {
        self.invocations.borrow_mut().chance()
    }

    /// An id for a request that becomes no invocation.
    pub fn request_id(&self) -> RequestId {
        self.invocations.borrow_mut().request_id()
    }

    /// Invocations in flight.
    pub fn in_flight(&self) -> usize {
        self.invocations.borrow().count()
    }

    /// Runs a function once.
    pub fn invoke(self: &Rc<Self>, call: Call) -> Claim<'_> {
        let version = call.version;
        let known = Rc::clone(self.catalog.borrow().version(version));
        let (now, unix_ms) = (self.reactor.now(), self.reactor.unix_ms());
        let id = self.invocations.borrow_mut().add(call, known, (now, unix_ms));
        let claim = Claim { host: self, id, done: false };
        self.step(Event::Invoked { invocation: id, version });
        claim
    }

    /// Writes an entry to the log, and to the tail of the invocation that it belongs to.
    fn note(&self, function: &str, request: [u8; 16], id: Option<InvocationId>, entry: Entry<'_>) {
        let record = Record { at_ms: self.reactor.unix_ms(), function, request, entry };
        self.logs.push(&record);
        if let Some(id) = id {
            self.with_running(id, |invocation| invocation.add_to_tail(&record));
        }
    }

    /// Writes a line to the log that belongs to no invocation.
    pub fn note_outside(&self, function: &str, line: &[u8]) {
        self.note(function, [0; 16], None, Entry::Output(line));
    }

    /// Writes a worker's line to the log.
    pub fn note_output(&self, worker: &Worker, line: &[u8]) {
        let id = worker.running.get();
        let request = id.and_then(|id| self.with_running(id, |invocation| invocation.request.0));
        let request = request.unwrap_or_default();
        self.note(&worker.version.name, request, id, Entry::Output(line));
    }

    /// Puts a function in, or replaces it as a whole: new invocations run the new version, the
    /// running ones finish on the old.
    pub fn put(self: &Rc<Self>, mut function: Function) {
        function.name_urls(&self.facts.home);
        let new = function.state.as_ref().ok().cloned();
        let old = self.catalog.borrow_mut().put(function);
        if let Some(version) = &new {
            self.configured(version);
        }
        if let Some(old) = old {
            if let Some(new) = &new {
                self.invocations.borrow_mut().move_waiting(old.id, new);
            }
            self.dismiss_helpers_of(old.id);
            let successor = new.map(|version| version.id);
            self.step(Event::Retired { version: old.id, successor });
        }
    }

    /// Ends what makes workers of a version that is not served any more.
    fn dismiss_helpers_of(self: &Rc<Self>, version: VersionId) {
        self.dismiss_spares(Some(version));
        self.zygotes.dismiss(version);
    }

    /// Takes a function out. False if there is none of that name.
    pub fn remove(self: &Rc<Self>, name: &str) -> bool {
        let Some(function) = self.catalog.borrow_mut().remove(name) else { return false };
        for version in function.serving() {
            self.retire(version);
        }
        true
    }

    /// Tells the pool new defaults, for all functions that say nothing themselves.
    pub fn set_defaults(self: &Rc<Self>, defaults: Defaults) {
        self.defaults.set(defaults);
        let serving: Vec<Rc<Version>> = {
            let catalog = self.catalog.borrow();
            catalog.functions().iter().flat_map(Function::serving).cloned().collect()
        };
        for version in serving {
            self.configured(&version);
        }
    }

    /// Refuses new invocations, lets the running ones finish within `limit_ms`, stops every
    /// worker, and returns when the last process is reaped.
    pub async fn drain(self: &Rc<Self>, limit_ms: u32) {
        self.draining.set(true);
        let until = self.reactor.now().after_ms(limit_ms);
        self.step(Event::DrainStarted { until });
        std::future::poll_fn(|cx| {
            if self.pool.borrow().is_drained() {
                return Poll::Ready(());
            }
            *self.drained.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.dismiss_spares(None);
        self.zygotes.dismiss_all();
        let busy =
            || self.processes.has_strays() || self.zygotes.are_there() || self.spares.are_there();
        while busy() {
            self.reactor.sleep_ms(1).await;
        }
        self.freezer.tidy();
    }

    /// True once draining.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }
}

/// A caller's claim to the end of its invocation. If it is dropped before, an invocation that still
/// waits is withdrawn; one that runs, runs on.
pub struct Claim<'a> {
    host: &'a Rc<Host>,
    id: InvocationId,
    done: bool,
}

impl Claim<'_> {
    /// True once a worker has the invocation, or it has ended.
    pub fn has_begun(&self) -> bool {
        let begun = |invocation: &mut Invocation| invocation.dispatched.is_some();
        self.host.with_running(self.id, begun).unwrap_or(true)
    }

    /// Waits for the next piece of a reply; `None` once there are no more and the end is there.
    pub fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Option<Buffer>> {
        self.host.invocations.borrow_mut().poll_piece(cx, self.id)
    }

    /// The request id and the trace header of an invocation that has not ended.
    pub fn names(&self) -> (RequestId, Trace) {
        self.host
            .with_invocation(self.id, |invocation| (invocation.request, invocation.trace.clone()))
    }

    /// The type of the content of a reply in pieces, as its runtime says it; `None` if there are
    /// no pieces.
    pub fn content_type(&self) -> Option<String> {
        self.host.with_invocation(self.id, |invocation| invocation.content_type())
    }

    /// Waits for the end, which comes once.
    pub fn poll_settled(&mut self, cx: &Context<'_>) -> Poll<Settled> {
        let settled = self.host.invocations.borrow_mut().poll_settled(cx, self.id);
        self.done = settled.is_ready();
        settled
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.done && self.host.invocations.borrow_mut().abandon(self.id) {
            self.host.step(Event::Cancelled { invocation: self.id });
        }
    }
}

/// True for outcomes of invocations that a worker began, or was started for.
fn counts_as_run(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Done
        | Outcome::Failed
        | Outcome::Crashed
        | Outcome::TimedOut
        | Outcome::InitFailed => true,
        Outcome::Rejected(_) | Outcome::Cancelled => false,
    }
}

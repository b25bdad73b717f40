//! Crews: the external extensions of a worker, programs of its layers that run beside its runtime
//! and belong to it. They start first, and in one namespace with it; a worker starts, serves, stops
//! and is reaped as a whole, and cannot go on without any of them.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Host;
use super::invocation::Mishap;
use super::logs::Entry;
use super::process::Process;
use super::spawn::{Exit, Seat, namespace_of};
use super::start::Birth;
use super::start::note_refusal;
use super::worker::{Talk, Worker, read_high_water_kib};
use super::zygote::{FAILED, UNWANTED};
use crate::limits::{
    EXTENSIONS_MAX, RUNTIME_SHARE_INTERNAL_MS_MAX, RUNTIME_SHARE_MS_MAX, RUNTIME_SHARE_PERCENT,
};
use crate::pool::{Cause, Instant};
use crate::runtime::extensions::is_for_extensions;
use crate::runtime::provided;

/// The external extensions of one worker.
pub struct Crew {
    /// Where they register, if the runtime has no seat of its own.
    pub seat: Option<Box<provided::Seat>>,
    members: RefCell<Vec<Member>>,
    /// When what the worker does must be done: its start, or an invocation.
    until: Cell<Option<Instant>>,
    /// The worker goes because it cannot go on.
    failed: Cell<bool>,
    /// What they are told when it goes.
    farewell: RefCell<Option<Rc<str>>>,
    /// They were told, or killed.
    parted: Cell<bool>,
    /// How the runtime's process ended.
    runtime: Cell<Option<Exit>>,
    /// Why there is no worker in the end.
    cause: Cell<Cause>,
}

struct Member {
    process: Process,
    gone: Cell<bool>,
}

impl Crew {
    /// The crew of a worker that starts, and must be ready in time. `seat`: a runtime on the wire
    /// has none.
    pub fn new(until: Instant, seat: Option<Box<provided::Seat>>) -> Crew {
        Crew {
            seat,
            members: RefCell::default(),
            until: Cell::new(Some(until)),
            failed: Cell::new(false),
            farewell: RefCell::default(),
            parted: Cell::new(false),
            runtime: Cell::new(None),
            cause: Cell::new(Cause::Reaped),
        }
    }

    /// The worker begins an invocation, or has done with it.
    pub fn is_due(&self, until: Option<Instant>) {
        self.until.set(until);
    }

    /// The worker cannot go on.
    pub fn failed(&self) {
        self.failed.set(true);
    }

    /// True once the runtime's process is gone.
    pub fn is_without_runtime(&self) -> bool {
        self.runtime.get().is_some()
    }

    fn each(&self, act: impl Fn(&Process)) {
        self.members.borrow().iter().for_each(|member| act(&member.process));
    }

    /// Takes all processor time from them.
    pub fn freeze(&self) {
        self.each(Process::freeze);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.each(Process::thaw);
    }

    /// Makes them go.
    pub fn kill(&self) {
        self.each(Process::kill);
    }

    /// The most memory that they were seen with, in KiB.
    pub fn memory_kib(&self) -> u64 {
        let members = self.members.borrow();
        members.iter().filter_map(|member| read_high_water_kib(member.process.pid())).sum()
    }

    /// Their processes, in the order of the version's list; fewer while they start.
    pub fn pids(&self) -> Vec<i32> {
        self.members.borrow().iter().map(|member| member.process.pid()).collect()
    }

    /// The runtime is gone, and the worker goes: those that want to know are told, the others are
    /// killed.
    fn part(&self, seat: &provided::Seat) {
        if self.parted.replace(true) {
            return;
        }
        let event = self.farewell.borrow().clone();
        let told = event.map(|event| seat.part(&event)).unwrap_or_default();
        for (index, member) in self.members.borrow().iter().enumerate() {
            if !told.contains(&index) {
                member.process.kill();
            }
        }
    }

    /// Who has ended since the last look.
    fn poll_ended(&self, cx: &Context<'_>) -> Option<(usize, Exit)> {
        let members = self.members.borrow();
        let alive = members.iter().enumerate().filter(|(_, member)| !member.gone.get());
        for (index, member) in alive {
            if let Poll::Ready(exit) = member.process.poll_exited(cx) {
                member.gone.set(true);
                return Some((index, exit));
            }
        }
        None
    }

    fn is_gone(&self) -> bool {
        self.members.borrow().iter().all(|member| member.gone.get())
    }
}

impl Host {
    /// Starts a worker with its crew, and listens to it until every process of it is reaped.
    pub(super) async fn live_with_crew(self: &Rc<Self>, worker: &Worker, birth: Birth) -> Cause {
        let crew = worker.crew.as_deref().expect("only for workers with a crew");
        let seat = worker.seat().expect("extensions have a seat");
        let mut start = Some(Box::pin(self.start_with_crew(worker, crew, birth)));
        let (mut spoken, mut heard) = (matches!(worker.talk, Talk::Provided(_)), false);
        poll_fn(|cx| {
            if start.as_mut().is_some_and(|start| start.as_mut().poll(cx).is_ready()) {
                start = None;
            }
            if let (Talk::Native(talk), false) = (&worker.talk, spoken) {
                spoken = talk.poll(cx, self, worker).is_ready();
            }
            heard = heard || worker.output.poll(cx, |line| worker.said(self, line)).is_ready();
            if !crew.is_without_runtime()
                && let Poll::Ready(exit) = worker.process.poll_exited(cx)
            {
                crew.runtime.set(Some(exit));
                worker.hear_last(cx, self, spoken);
                spoken = true;
                if !worker.stopping.get() {
                    self.lost(worker, exit);
                    self.fail(worker);
                }
            }
            while let Some((index, exit)) = crew.poll_ended(cx) {
                let name = &worker.version.extensions[index].name;
                log::debug!("function {}: extension {name} ended", worker.version.name);
                self.extension_failed(worker, "Extension.Crash", exit_words(exit));
            }
            if worker.stopping.get() && crew.is_without_runtime() {
                crew.part(seat);
            }
            let gone = start.is_none() && crew.is_without_runtime() && crew.is_gone();
            if gone { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        worker.output.finish(|line| worker.said(self, line));
        crew.cause.get()
    }

    /// Starts the extensions, waits until all have registered, and starts the runtime; or sees to
    /// it that this worker's end is known.
    async fn start_with_crew(self: &Rc<Self>, worker: &Worker, crew: &Crew, birth: Birth) {
        let give_up = |cause| {
            crew.cause.set(cause);
            worker.stopping.set(true);
            crew.kill();
            worker.process.never_came(FAILED);
        };
        let namespace = match self.start_extensions(worker, crew, &birth) {
            Ok(namespace) => namespace,
            Err(cause) => return give_up(cause),
        };
        let programs = worker.version.extensions.len();
        let seat = worker.seat().expect("extensions have a seat");
        let unwanted = async {
            poll_fn(|cx| worker.process.poll_unwanted(cx)).await;
            false
        };
        if !smol::future::or(unwanted, seat.all_registered(programs)).await {
            return worker.process.never_came(UNWANTED);
        }
        let join = namespace.as_ref().map(File::as_fd);
        let version = &worker.version;
        let start = |seat: &Seat<'_>| worker.process.start(&version.launch, seat);
        let started = birth.seated(version, join, start);
        if let Err(error) = started {
            give_up(note_refusal(&worker.version, &error.into()));
        }
    }

    /// Starts the extensions one after the other; the namespace that they are in, if they have one
    /// of their own.
    fn start_extensions(
        self: &Rc<Self>,
        worker: &Worker,
        crew: &Crew,
        birth: &Birth,
    ) -> Result<Option<File>, Cause> {
        let version = &worker.version;
        let refused = |error_type, message| {
            log::warn!("start function {}: {message}", version.name);
            version.start_failed(error_type, message);
            self.note_init(worker, "error", error_type);
            Cause::HandlerFault
        };
        let count = version.extensions.len();
        if count > EXTENSIONS_MAX {
            let message = format!("{count} extensions, {EXTENSIONS_MAX} are allowed");
            return Err(refused("Extension.LaunchError", message));
        }
        let system = |error: std::io::Error| note_refusal(version, &error.into());
        let null = File::open("/dev/null").map_err(system)?;
        let log = birth.log.as_fd();
        let environment: Vec<CString> =
            birth.environment.iter().filter(|pair| is_for_extensions(pair)).cloned().collect();
        let mut namespace: Option<File> = None;
        for program in &version.extensions {
            let join = namespace.as_ref().map(File::as_fd);
            let stdio = [null.as_fd(), log, log];
            let door = birth.door();
            let cgroup = door.as_ref().map(File::as_fd);
            let seat = Seat { environment: &environment, stdio: &stdio, join, cgroup };
            let process = match self.processes.spawn(&program.launch, &seat) {
                Ok(process) => process,
                Err(error) if error.is_handlers_fault() => {
                    let error = std::io::Error::from_raw_os_error(error.errno);
                    let message = format!("extension {}: {error}", program.name);
                    return Err(refused("Extension.LaunchError", message));
                }
                Err(error) => return Err(note_refusal(version, &error.into())),
            };
            self.counters.borrow_mut().spawned += 1;
            let pid = process.pid();
            crew.members.borrow_mut().push(Member { process, gone: Cell::new(false) });
            if program.launch.namespace.is_some() && namespace.is_none() {
                namespace = namespace_of(pid).map_err(system)?;
                if namespace.is_none() {
                    // It has ended, which is the end of the others too.
                    break;
                }
            }
        }
        Ok(namespace)
    }

    /// An extension is gone, or says that it cannot go on: neither can its worker. Ignored if that
    /// goes anyway.
    pub fn extension_failed(
        self: &Rc<Self>,
        worker: &Worker,
        error_type: &'static str,
        message: String,
    ) {
        if worker.stopping.get() {
            return;
        }
        let version = &worker.version;
        log::warn!("function {}: {error_type}: {message}", version.name);
        if let Some(id) = worker.running.get() {
            let memory = worker.memory_kib(self.reactor.now());
            let mut invocations = self.invocations.borrow_mut();
            let invocation = invocations.get(id);
            invocation.memory_kib = invocation.memory_kib.max(memory);
            invocation.mishap.get_or_insert(Mishap::Extension(error_type, message));
        } else if worker.served.get() == 0 {
            version.start_failed(error_type, message);
            if worker.ready.get().is_none() {
                self.note_init(worker, "error", error_type);
            }
        }
        self.fail(worker);
    }

    /// A worker with a crew is told to go: what its extensions will hear of it, and how much of the
    /// time that it has is the runtime's, in milliseconds.
    pub(super) fn prepare_farewell(&self, worker: &Worker, crew: &Crew) -> u32 {
        let grace_ms = worker.version.settings(self.defaults.get()).grace_ms;
        let now = self.reactor.now();
        let reason = match crew.until.get() {
            _ if crew.failed.get() => "failure",
            Some(until) if now >= until => "timeout",
            Some(_) | None => "spindown",
        };
        let deadline_ms = self.reactor.unix_ms() + u64::from(grace_ms);
        let event = format!(
            "{{\"eventType\":\"SHUTDOWN\",\"deadlineMs\":{deadline_ms},\
             \"shutdownReason\":\"{reason}\"}}"
        );
        *crew.farewell.borrow_mut() = Some(event.into());
        let most_ms = match worker.seat().is_some_and(provided::Seat::has_internal) {
            true => RUNTIME_SHARE_INTERNAL_MS_MAX,
            false => RUNTIME_SHARE_MS_MAX,
        };
        most_ms.min(grace_ms * RUNTIME_SHARE_PERCENT / 100)
    }

    /// Says in the log which extensions take part.
    pub(super) fn note_crew(&self, worker: &Worker) {
        let Some(seat) = worker.seat() else { return };
        let version = &worker.version;
        for (index, program) in version.extensions.iter().enumerate() {
            let (name, events) = (&program.name, seat.events(index));
            let line = format!("EXTENSION\tName: {name}\tState: Ready\tEvents: [{events}]");
            self.note(&version.name, [0; 16], None, Entry::Platform(&line));
        }
    }
}

/// How an extension ended, in Lambda's words.
fn exit_words(exit: Exit) -> String {
    match exit.status {
        Some(0) => "exit code 0".to_owned(),
        _ => {
            let message = super::catalog::exit_message(exit);
            message.strip_prefix("Runtime exited with error: ").unwrap_or(&message).to_owned()
        }
    }
}

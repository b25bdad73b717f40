//! Starting workers.

use std::ffi::CString;
use std::fs::File;
use std::io::PipeWriter;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::Host;
use super::catalog::Version;
use super::cgroup::Cgroup;
use super::crew::Crew;
use super::invocation::hex;
use super::output::Output;
use super::spare::Spare;
use super::spawn::{NotStarted, Seat};
use super::worker::{Talk, Worker};
use crate::function::config::Runtime;
use crate::function::name::Arn;
use crate::io::clock::CivilTime;
use crate::io::{Io, Put, Text};
use crate::pool::{Cause, Event, Instant, InvocationId, VersionId, WorkerId};
use crate::runtime::{exec, native};

/// Why a process was not started.
pub(super) enum Refused {
    /// By the kernel.
    Process(NotStarted),
    /// For want of descriptors or the like.
    System(std::io::Error),
}

impl From<NotStarted> for Refused {
    fn from(error: NotStarted) -> Refused {
        Refused::Process(error)
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Refused {
        Refused::System(error)
    }
}

impl From<rustix::io::Errno> for Refused {
    fn from(error: rustix::io::Errno) -> Refused {
        Refused::System(error.into())
    }
}

/// What a worker on the wire is started with, or forked.
pub(super) struct Birth {
    /// Its ends of the wire, or what it reads in place of one.
    pub wire: native::Ends,
    /// Its end of its log.
    pub log: PipeWriter,
    /// What its environment has besides its version's.
    pub environment: Vec<CString>,
    /// The control group that it enters.
    pub cgroup: Option<Rc<Cgroup>>,
}

impl Birth {
    /// The way into its control group.
    pub fn door(&self) -> Option<File> {
        self.cgroup.as_ref()?.open_door().ok()
    }

    /// Calls `start` with the seat of a process of its own, which joins the namespace `join` if
    /// there is one already.
    pub fn seated<T>(
        &self,
        version: &Version,
        join: Option<BorrowedFd<'_>>,
        start: impl FnOnce(&Seat<'_>) -> T,
    ) -> T {
        let (socket, log) = (self.wire.socket.as_fd(), self.log.as_fd());
        let environment = &self.environment;
        let door = self.door();
        let cgroup = door.as_ref().map(File::as_fd);
        // Node cannot move the wire out of the way of the programs that a handler starts, nor make
        // it not block before its event loop is loaded.
        if matches!(version.config.runtime, Runtime::Node(_))
            && let Ok(null) = File::open("/dev/null")
            && rustix::io::ioctl_fionbio(socket, true).is_ok()
        {
            let stdio = &[null.as_fd(), log, log, socket];
            return start(&Seat { environment, stdio, join, cgroup });
        }
        let events = self.wire.events.as_ref().map_or(log, |events| events.as_fd());
        let stdio = &[socket, log, log, events];
        let count = if self.wire.events.is_some() { 4 } else { 3 };
        start(&Seat { environment, stdio: &stdio[..count], join, cgroup })
    }
}

impl Host {
    /// Performs a spawn; a failure is the pool's next event.
    pub(super) fn spawn(
        self: &Rc<Self>,
        now: Instant,
        id: WorkerId,
        version: VersionId,
        (provisioned, again): (bool, bool),
        invocation: Option<InvocationId>,
    ) {
        let version = Rc::clone(self.catalog.borrow().version(version));
        if invocation.is_none() {
            *version.init_error.borrow_mut() = None;
        }
        let started = self.start(now, id, &version, provisioned, invocation);
        let (worker, birth) = match started {
            Ok((mut worker, birth)) => {
                worker.again = again;
                worker.crew = self.crew(&worker, now);
                (Rc::new(worker), birth)
            }
            Err(refused) => {
                let cause = note_refusal(&version, &refused);
                return self.step(Event::Exited { worker: id, cause });
            }
        };
        self.counters.borrow_mut().spawned += 1;
        self.workers.borrow_mut()[usize::from(id.slot)] = Some(Rc::clone(&worker));
        if let Some(invocation) = invocation {
            self.begin(now, &worker, invocation);
        }
        let Some(birth) = birth else { return self.let_live(worker) };
        let host = Rc::clone(self);
        let task = async move {
            let cause = if worker.crew.is_some() {
                Some(host.live_with_crew(&worker, *birth).await)
            } else {
                let borne = host.bear(&worker, *birth).await;
                borne.err().map(|error| note_refusal(&worker.version, &error.into()))
            };
            match cause {
                Some(cause) => host.vanished(&worker, cause),
                None => host.let_live(worker),
            }
        };
        self.executor.spawn(task).detach();
    }

    /// Listens to a worker for as long as it has a process. With a task of its own, since it lasts:
    /// nothing of the worker's birth is kept in it.
    fn let_live(self: &Rc<Self>, worker: Rc<Worker>) {
        self.executor.spawn(worker.live(Rc::clone(self))).detach();
    }

    /// The crew of a worker that starts, if it has external extensions.
    fn crew(&self, worker: &Worker, now: Instant) -> Option<Box<Crew>> {
        let version = &worker.version;
        if !version.has_crew(now) {
            return None;
        }
        let settings = version.settings(self.defaults.get());
        let limit_ms = match worker.again {
            true => settings.timeout_ms,
            false => settings.start_limit_ms(worker.provisioned),
        };
        let seat = match worker.talk {
            Talk::Exec(_) | Talk::Native(_) => Some(Box::default()),
            Talk::Provided(_) => None,
        };
        Some(Box::new(Crew::new(now.after_ms(limit_ms), seat)))
    }

    fn start(
        self: &Rc<Self>,
        now: Instant,
        id: WorkerId,
        version: &Rc<Version>,
        provisioned: bool,
        invocation: Option<InvocationId>,
    ) -> Result<(Worker, Option<Box<Birth>>), Refused> {
        let made = |process, heard, cgroup| {
            let version = Rc::clone(version);
            let mut worker = Worker::new(id, version, provisioned, process, heard, now);
            worker.cgroup = cgroup;
            worker
        };
        if !provisioned {
            let spare = self.take_spare(version);
            self.worker_wanted(version);
            if let Some(Spare { process, output, talk, cgroup }) = spare {
                return Ok((made(process, (output, Talk::Native(talk)), cgroup), None));
            }
        }
        let mut environment = self.own_environment(version, provisioned);
        let (output, log_end) = self.log_pipe()?;
        let cgroup = self.cgroup(version);
        let (process, talk) = match &version.config.runtime {
            Runtime::Exec => {
                let invocation = invocation.expect("one-shot workers are started for one");
                environment.extend(self.invocation_environment(version, invocation));
                let (talk, ends) = exec::Talk::open(&self.reactor)?;
                let stdio = [ends.stdin.as_fd(), ends.stdout.as_fd(), log_end.as_fd()];
                let seat =
                    Seat { environment: &environment, stdio: &stdio, join: None, cgroup: None };
                (self.processes.spawn(&version.launch, &seat)?, Talk::Exec(Box::new(talk)))
            }
            Runtime::Native | Runtime::Python(_) | Runtime::Node(_) => {
                let (talk, wire) = native::Talk::open(&self.reactor, &version.config.runtime)?;
                if version.has_crew(now) {
                    let address = self.runtime_api.address(self, id)?;
                    environment.push(variable("AWS_LAMBDA_RUNTIME_API", &*address.to_string()));
                }
                let birth = Birth { wire, log: log_end, environment, cgroup: cgroup.clone() };
                if version.forks(now) || version.has_crew(now) {
                    let worker =
                        made(self.processes.expect(), (output, Talk::Native(talk)), cgroup);
                    return Ok((worker, Some(Box::new(birth))));
                }
                let spawn = |seat: &Seat<'_>| self.processes.spawn(&version.launch, seat);
                (birth.seated(version, None, spawn)?, Talk::Native(talk))
            }
            Runtime::Provided(_) => {
                let address = self.runtime_api.address(self, id)?;
                environment.push(variable("AWS_LAMBDA_RUNTIME_API", &*address.to_string()));
                let socket = File::open("/dev/null")?.into();
                let wire = native::Ends { socket, events: None };
                let talk = Talk::Provided(Box::default());
                let birth = Birth { wire, log: log_end, environment, cgroup: cgroup.clone() };
                if version.has_crew(now) {
                    let worker = made(self.processes.expect(), (output, talk), cgroup);
                    return Ok((worker, Some(Box::new(birth))));
                }
                let spawn = |seat: &Seat<'_>| self.processes.spawn(&version.launch, seat);
                (birth.seated(version, None, spawn)?, talk)
            }
        };
        Ok((made(process, (output, talk), cgroup), None))
    }

    /// What a process writes, and where it writes that.
    pub(super) fn log_pipe(&self) -> std::io::Result<(Output, PipeWriter)> {
        // Ours is read by the reactor, the worker's blocks as programs expect it.
        let (log, end) = std::io::pipe()?;
        rustix::io::ioctl_fionbio(&log, true)?;
        Ok((Output::new(Io::new(&self.reactor, log)?), end))
    }

    /// What differs from worker to worker in every runtime.
    pub(super) fn own_environment(&self, version: &Version, provisioned: bool) -> Vec<CString> {
        let kind = if provisioned { "provisioned-concurrency" } else { "on-demand" };
        let stream = LogStream {
            begun: CivilTime::from_unix_ms(self.reactor.unix_ms()),
            label: &version.label,
            number: self.invocations.borrow_mut().random(),
        };
        vec![
            variable("AWS_LAMBDA_INITIALIZATION_TYPE", kind),
            variable("AWS_LAMBDA_LOG_STREAM_NAME", stream),
        ]
    }

    /// The context of an invocation, for a process that gets only this one.
    fn invocation_environment(&self, version: &Version, id: InvocationId) -> Vec<CString> {
        let deadline = self.reactor.unix_ms() + u64::from(version.config.timeout_s) * 1000;
        let mut invocations = self.invocations.borrow_mut();
        let invocation = invocations.get(id);
        let arn = Arn::of(&version.arn, invocation.qualifier.as_deref());
        let mut list = vec![
            variable("HOB_REQUEST_ID", invocation.request),
            variable("HOB_DEADLINE_MS", deadline),
            variable("HOB_FUNCTION_ARN", arn),
            variable("_X_AMZN_TRACE_ID", &invocation.trace),
        ];
        if let Some(context) = &invocation.client_context {
            list.push(variable("HOB_CLIENT_CONTEXT", &**context));
        }
        list
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::Process(error) => error.fmt(f),
            Refused::System(error) => error.fmt(f),
        }
    }
}

/// `NAME=value`, without what an environment cannot hold.
fn variable(name: &str, value: impl Put) -> CString {
    let mut text = Text::default();
    text.put(name);
    text.put_few(b"=");
    text.put(value);
    CString::new(text.bytes()).unwrap_or_else(|bad| {
        let mut bytes = bad.into_vec();
        bytes.retain(|byte| *byte != 0);
        CString::new(bytes).expect("NUL characters were taken out")
    })
}

/// What Lambda calls a worker's log: `2026/11/30/[$LATEST]` and a random number.
struct LogStream<'a> {
    begun: CivilTime,
    label: &'a str,
    number: u128,
}

impl Put for LogStream<'_> {
    fn put_into(&self, text: &mut Text) {
        text.put(self.begun.year);
        for part in [self.begun.month, self.begun.day] {
            text.put_few(b"/");
            text.put(part / 10);
            text.put(part % 10);
        }
        text.put_few(b"/[");
        text.put(self.label);
        text.put_few(b"]");
        let mut digits = [0; 32];
        hex(&mut digits, &self.number.to_be_bytes());
        text.put_ascii(&digits);
    }
}

/// Says who is to blame for a worker that was not started, and remembers why.
pub(super) fn note_refusal(version: &Version, refused: &Refused) -> Cause {
    let name = &version.name;
    match refused {
        Refused::Process(error) if error.is_handlers_fault() => {
            log::warn!("start function {name}: {error}");
            version.start_failed("Runtime.InvalidEntrypoint", format!("Cannot {error}"));
            Cause::HandlerFault
        }
        Refused::Process(error) => {
            log::warn!("start function {name}: {error}");
            Cause::SystemFault
        }
        Refused::System(error) => {
            log::warn!("start function {name}: {error}");
            Cause::SystemFault
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_what_an_environment_can_hold() {
        let begun = CivilTime::from_unix_ms(1_772_582_399_000);
        let stream = LogStream { begun, label: "$LATEST", number: 0xAB };
        let text = "S=2026/03/03/[$LATEST]000000000000000000000000000000ab";
        assert_eq!(variable("S", stream).to_str(), Ok(text));
        assert_eq!(variable("N", "a\0b\0").to_str(), Ok("N=ab"));
        let long = "x".repeat(3000);
        assert_eq!(variable("L", &*long).as_bytes().len(), 3002);
    }
}

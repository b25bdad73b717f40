//! The end of an invocation: what the caller learns and what the log says.

use std::rc::Rc;

use super::Host;
use super::catalog::{InitError, exit_message};
use super::invocation::{Answer, Invocation, Mishap, Payload, RequestId, Settled};
use super::logs::{Entry, Record, Report};
use super::spawn::Exit;
use super::worker::{Talk, Worker};
use crate::io::Clock;
use crate::io::clock::CivilTime;
use crate::limits::{PIPE_BYTES, REPLY_MAX, TAIL_MAX};
use crate::pool::{Event, Instant, InvocationId, Outcome};
use crate::runtime::exec;

/// What a worker says about the invocation that it runs.
pub enum Reply {
    /// The handler's reply.
    Done(Payload),
    /// The handler's reply came in pieces, and that was all of them.
    Streamed,
    /// The handler's error, as JSON.
    Error(Payload),
    /// No answer of the handler's.
    Mishap(Mishap),
}

impl Host {
    /// A worker answered. Ignored if it runs nothing (a late answer).
    pub fn replied(self: &Rc<Self>, worker: &Worker, reply: Reply) {
        let Some(id) = worker.running.get() else { return };
        // What it wrote before its answer belongs to this invocation.
        worker.output.drain(PIPE_BYTES, |line| worker.said(self, line));
        let now = self.reactor.now();
        let memory = worker.memory_kib(now);
        let ok = matches!(reply, Reply::Done(_) | Reply::Streamed);
        {
            let mut invocations = self.invocations.borrow_mut();
            let invocation = invocations.get(id);
            invocation.memory_kib = invocation.memory_kib.max(memory);
            match reply {
                Reply::Done(payload) if payload.len() > REPLY_MAX => {
                    invocation.mishap = Some(Mishap::ReplyTooLarge);
                }
                Reply::Streamed => invocation.end_stream(&self.buffers),
                Reply::Done(payload) => invocation.answer = Some(Answer { ok: true, payload }),
                Reply::Error(payload) => invocation.answer = Some(Answer { ok: false, payload }),
                Reply::Mishap(mishap) => invocation.mishap = Some(mishap),
            }
        }
        let ok = ok && self.invocations.borrow_mut().get(id).mishap.is_none();
        self.step(Event::Replied { worker: worker.id, ok });
        worker.running.set(None);
        worker.used.set(now);
    }

    /// A worker reported that it cannot initialise.
    pub fn init_failed(self: &Rc<Self>, worker: &Worker, json: Vec<u8>, error_type: &str) {
        self.note_init(worker, "error", error_type);
        if json.trim_ascii().is_empty() {
            worker.version.start_failed("Runtime.Unknown", "Runtime failed to start".into());
        } else {
            let error_type = error_type.to_owned();
            *worker.version.init_error.borrow_mut() = Some(InitError::Posted { json, error_type });
        }
        self.fail(worker);
    }

    /// A worker is stopped before it was ready: it took too long, or is not wanted any more.
    pub(super) fn init_stopped(&self, worker: &Worker) {
        let settings = worker.version.settings(self.defaults.get());
        let limit_ms = settings.start_limit_ms(worker.provisioned);
        if self.reactor.now() >= worker.spawned.after_ms(limit_ms) {
            let limit_s = limit_ms / 1000;
            let message = format!("Init timed out after {limit_s}.00 seconds");
            worker.version.start_failed("Sandbox.Timedout", message);
            self.note_init(worker, "timeout", "");
        }
    }

    pub(super) fn note_init(&self, worker: &Worker, status: &str, error_type: &str) {
        let duration_us = self.reactor.now().micros_since(worker.spawned);
        // The second start is a part of its invocation.
        let phase = if worker.again { "invoke" } else { "init" };
        let entry = Entry::InitReport { duration_us, phase, status, error_type };
        self.note(&worker.version.name, [0; 16], None, entry);
    }

    /// Looks how much memory the worker has whose invocation ends without its doing.
    fn note_memory(&self, now: Instant, id: InvocationId) {
        let mut workers = self.workers().into_iter();
        if let Some(worker) = workers.find(|worker| worker.running.get() == Some(id)) {
            let memory = worker.memory_kib(now);
            self.with_invocation(id, |invocation| {
                invocation.memory_kib = invocation.memory_kib.max(memory);
            });
        }
    }

    /// A worker's process is gone: what becomes of what it ran, or of its start.
    pub(super) fn lost(self: &Rc<Self>, worker: &Worker, exit: Exit) {
        if let Some(id) = worker.running.get() {
            if let Talk::Exec(talk) = &worker.talk {
                let reply = exec::answer(talk, &self.buffers, exit);
                self.invocations.borrow_mut().get(id).memory_kib =
                    worker.memory_kib_in_the_end(exit);
                self.replied(worker, reply);
            } else {
                let mut invocations = self.invocations.borrow_mut();
                let invocation = invocations.get(id);
                invocation.memory_kib = worker.memory_kib_in_the_end(exit);
                invocation.mishap.get_or_insert(Mishap::Exited(exit));
            }
        } else if worker.served.get() == 0
            && worker.ready.get().is_none()
            && !worker.stopping.get()
            && worker.version.init_error.borrow().is_none()
        {
            worker.version.start_failed("Runtime.ExitError", exit_message(exit));
            self.note_init(worker, "error", "Runtime.ExitError");
        }
    }

    /// Ends an invocation: its caller is told, and the log says how it went.
    pub(super) fn settle(self: &Rc<Self>, now: Instant, id: InvocationId, outcome: Outcome) {
        self.counters.borrow_mut().settled += 1;
        if outcome == Outcome::TimedOut {
            self.note_memory(now, id);
        }
        let mut invocations = self.invocations.borrow_mut();
        let invocation = invocations.get(id);
        let version = Rc::clone(&invocation.version);
        let request = invocation.request;
        let failure = failure(invocation, outcome, &version);
        version.goes_well(outcome, failure.as_ref().map(|failure| failure.error_type()));
        if super::counts_as_run(outcome) {
            let dispatched = invocation.dispatched;
            // One whose worker did not start ran in vain, but it ran.
            let begun = dispatched.unwrap_or(invocation.accepted);
            let report = Report {
                duration_us: now.micros_since(begun),
                init_us: invocation.init_us,
                memory_mb: version.config.memory_mb,
                memory_used_mb: u32::try_from(invocation.memory_kib.div_ceil(1024))
                    .unwrap_or(u32::MAX),
                status: match (outcome, &failure) {
                    (Outcome::TimedOut, _) => "timeout",
                    (Outcome::Crashed, _) | (_, Some(_)) => "error",
                    (_, None) => "",
                },
                error_type: match (outcome, &failure) {
                    (Outcome::TimedOut, _) | (_, None) => "",
                    (_, Some(failure)) => failure.error_type(),
                },
            };
            drop(invocations);
            if dispatched.is_none() {
                let entry = Entry::Start { version: &version.label };
                self.note(&version.name, request.0, Some(id), entry);
            }
            if let Some(lines) = failure.as_ref().and_then(|failure| failure.log_lines(request)) {
                self.note(&version.name, request.0, Some(id), Entry::Platform(&lines));
            }
            self.note(&version.name, request.0, Some(id), Entry::Report(report));
            invocations = self.invocations.borrow_mut();
        }
        let invocation = invocations.get(id);
        let settled = Settled {
            outcome,
            answer: invocation.answer.take(),
            error: failure.map(|failure| failure.json(request)),
            tail: invocation.tail.take(),
            request,
            trace: invocation.trace.clone(),
        };
        invocations.settle(id, settled);
    }
}

impl super::catalog::Version {
    /// Tells the operator that workers begin to fail, once, until one does not.
    fn goes_well(&self, outcome: Outcome, error_type: Option<&str>) {
        match outcome {
            Outcome::Done | Outcome::Failed => self.troubled.set(false),
            Outcome::Crashed | Outcome::TimedOut | Outcome::InitFailed => {
                if !self.troubled.replace(true) {
                    let kind = error_type.unwrap_or("Runtime.Unknown");
                    log::warn!("function {}: fails with {kind}; see hob logs {0}", self.name);
                }
            }
            Outcome::Rejected(_) | Outcome::Cancelled => {}
        }
    }
}

/// Lambda's error type of an invocation that took too long.
const TIMED_OUT: &str = "Sandbox.Timedout";

/// Why there is no answer of the handler.
enum Failure {
    /// In the platform's words; `bare` messages stand without the request id.
    Platform { error_type: &'static str, message: String, bare: bool },
    /// As the runtime reported it when it started.
    Posted { json: Vec<u8>, error_type: String },
}

fn failure(
    invocation: &Invocation,
    outcome: Outcome,
    version: &super::catalog::Version,
) -> Option<Failure> {
    let platform =
        |error_type, message: String| Some(Failure::Platform { error_type, message, bare: false });
    match outcome {
        Outcome::Done | Outcome::Rejected(_) | Outcome::Cancelled => None,
        Outcome::Failed | Outcome::Crashed => match invocation.mishap.clone()? {
            Mishap::Exited(exit) => platform("Runtime.ExitError", exit_message(exit)),
            Mishap::ReplyTooLarge => Some(Failure::Platform {
                error_type: "Function.ResponseSizeTooLarge",
                message: format!(
                    "Response payload size exceeded maximum allowed payload size ({} bytes).",
                    invocation.reply_max()
                ),
                bare: true,
            }),
            Mishap::Truncated => {
                platform("Runtime.TruncatedResponse", "Response was cut off".into())
            }
            Mishap::Extension(error_type, message) => platform(error_type, message),
            Mishap::BadMode => {
                platform("Runtime.InvalidResponseModeHeader", "Invalid response mode header".into())
            }
        },
        Outcome::TimedOut => {
            let seconds = version.config.timeout_s;
            platform(TIMED_OUT, format!("Task timed out after {seconds}.00 seconds"))
        }
        Outcome::InitFailed => match version.init_error.borrow().clone() {
            Some(InitError::Posted { json, error_type }) => {
                Some(Failure::Posted { json, error_type })
            }
            Some(InitError::Platform { error_type, message }) => platform(error_type, message),
            None => platform("Runtime.Unknown", "Runtime failed to start".into()),
        },
    }
}

impl Failure {
    fn error_type(&self) -> &str {
        match self {
            Failure::Platform { error_type, .. } => error_type,
            Failure::Posted { error_type, .. } => error_type,
        }
    }

    /// What the log says of it; what a runtime posted, it has logged itself.
    fn log_lines(&self, request: RequestId) -> Option<String> {
        match self {
            Failure::Platform { error_type: TIMED_OUT, message, .. } => {
                let now = CivilTime::from_unix_ms(Clock::unix_ms()).to_iso();
                Some(format!("{now} {request} {message}\n"))
            }
            Failure::Platform { message, bare: true, .. } => Some(message.clone()),
            Failure::Platform { error_type, message, .. } => {
                Some(format!("RequestId: {request} Error: {message}\n{error_type}"))
            }
            Failure::Posted { .. } => None,
        }
    }

    /// The error as the caller gets it.
    fn json(&self, request: RequestId) -> String {
        match self {
            Failure::Posted { json, .. } => String::from_utf8_lossy(json).into_owned(),
            Failure::Platform { error_type, message, bare } => {
                let message = match bare {
                    true => message.clone(),
                    false => format!("RequestId: {request} Error: {message}"),
                };
                serde_json::json!({ "errorType": error_type, "errorMessage": message }).to_string()
            }
        }
    }
}

impl Invocation {
    /// Keeps the end of its log, if its caller wants it.
    pub(super) fn add_to_tail(&mut self, record: &Record<'_>) {
        if let Some(tail) = &mut self.tail {
            record.print(tail);
            let surplus = tail.len().saturating_sub(TAIL_MAX);
            tail.drain(..surplus);
        }
    }
}

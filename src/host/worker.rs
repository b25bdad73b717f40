//! A worker as the host holds it: its process, its output, and how it is spoken to.

use std::cell::Cell;
use std::fmt::Write;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, OFlags};

use super::Host;
use super::catalog::Version;
use super::cgroup::Cgroup;
use super::crew::Crew;
use super::freeze::Frozen;
use super::output::Output;
use super::process::Process;
use super::spawn::Exit;
use crate::limits::MEMORY_READ_MS;
use crate::pool::{Instant, InvocationId, WorkerId};
use crate::runtime::{exec, native, provided};

/// A process that serves a function.
pub struct Worker {
    /// Its slot and generation.
    pub id: WorkerId,
    /// What it serves.
    pub version: Rc<Version>,
    /// It is kept on purpose.
    pub provisioned: bool,
    /// The start before it failed, for the same invocation.
    pub again: bool,
    /// Its process.
    pub process: Process,
    /// What it writes besides replies.
    pub output: Output,
    /// How it is spoken to.
    pub talk: Talk,
    /// When it was started.
    pub spawned: Instant,
    /// When it was first ready.
    pub ready: Cell<Option<Instant>>,
    /// When it was last given or done with work.
    pub used: Cell<Instant>,
    /// What it runs.
    pub running: Cell<Option<InvocationId>>,
    /// Invocations so far.
    pub served: Cell<u32>,
    /// It was told to go.
    pub stopping: Cell<bool>,
    /// Its external extensions, if it has any. On the heap: most workers have none.
    pub crew: Option<Box<Crew>>,
    /// The control group that it and what it starts are in, if it may be frozen.
    pub cgroup: Option<Rc<Cgroup>>,
    /// Whether it gets processor time.
    pub frozen: Cell<Frozen>,
    /// The most memory it was seen with, and when that was looked at.
    memory: Cell<(u64, Instant)>,
}

/// How a worker is spoken to.
pub enum Talk {
    /// Event on stdin, reply on stdout.
    Exec(Box<exec::Talk>),
    /// The wire.
    Native(native::Talk),
    /// The Lambda Runtime API.
    Provided(Box<provided::Seat>),
}

impl Worker {
    /// A worker whose process was just started.
    pub fn new(
        id: WorkerId,
        version: Rc<Version>,
        provisioned: bool,
        process: Process,
        (output, talk): (Output, Talk),
        now: Instant,
    ) -> Worker {
        Worker {
            id,
            version,
            provisioned,
            again: false,
            process,
            output,
            talk,
            spawned: now,
            ready: Cell::new(None),
            used: Cell::new(now),
            running: Cell::new(None),
            served: Cell::new(0),
            stopping: Cell::new(false),
            crew: None,
            cgroup: None,
            frozen: Cell::new(Frozen::No),
            memory: Cell::new((0, Instant::ZERO)),
        }
    }

    /// Talks, listens and waits until the process is gone and has been heard to its end, and tells the
    /// host. By hand, because a task that awaits each of these is twice as large, and workers are many.
    pub fn live(self: Rc<Self>, host: Rc<Host>) -> impl Future<Output = ()> {
        // On the heap, since most workers are not of this kind and their tasks last.
        let mut exec = matches!(self.talk, Talk::Exec(_))
            .then(|| Box::pin(Rc::clone(&self).run(Rc::clone(&host))));
        let (mut spoken, mut heard) = (false, false);
        poll_fn(move |cx| {
            spoken = spoken
                || match (&self.talk, &mut exec) {
                    (Talk::Native(talk), _) => talk.poll(cx, &host, &self).is_ready(),
                    (_, Some(exec)) => exec.as_mut().poll(cx).is_ready(),
                    // Its connections have tasks of their own.
                    (Talk::Exec(_) | Talk::Provided(_), None) => true,
                };
            heard = heard || self.output.poll(cx, |line| self.said(&host, line)).is_ready();
            let exit = ready!(self.process.poll_exited(cx));
            self.hear_last(cx, &host, spoken);
            host.exited(&self, exit);
            Poll::Ready(())
        })
    }

    async fn run(self: Rc<Self>, host: Rc<Host>) {
        if let Talk::Exec(talk) = &self.talk {
            talk.run(&host, &self).await;
        }
    }

    /// Hears what a process that is gone said last.
    pub fn hear_last(&self, cx: &Context<'_>, host: &Rc<Host>, spoken: bool) {
        if let (Talk::Native(talk), false) = (&self.talk, spoken) {
            talk.look_again();
            let _ = talk.poll(cx, host, self);
        }
        self.output.finish(|line| self.said(host, line));
    }

    /// Where it, or its extensions, poll the Runtime API.
    pub fn seat(&self) -> Option<&provided::Seat> {
        match &self.talk {
            Talk::Provided(seat) => Some(seat),
            Talk::Exec(_) | Talk::Native(_) => self.crew.as_ref()?.seat.as_deref(),
        }
    }

    /// Makes all of it go.
    pub fn kill(&self) {
        self.process.kill();
        if let Some(crew) = &self.crew {
            crew.kill();
        }
    }

    /// Takes note of a line of output.
    pub fn said(&self, host: &Host, line: &[u8]) {
        if let Talk::Exec(talk) = &self.talk {
            talk.remember_error(line);
        }
        host.note_output(self, line);
    }

    /// Ends the conversation, so that a runtime which waits for work sees that none will come.
    pub fn hang_up(&self) {
        match &self.talk {
            Talk::Exec(_) => {}
            Talk::Native(talk) => talk.hang_up(),
            Talk::Provided(seat) => seat.hang_up(),
        }
        if let Some(seat) = self.crew.as_ref().and_then(|crew| crew.seat.as_ref()) {
            seat.hang_up();
        }
    }

    /// The most memory that the process had, in KiB, once it is gone.
    pub fn memory_kib_in_the_end(&self, exit: Exit) -> u64 {
        let (seen, _) = self.memory.get();
        match self.process.memory_kib(exit.rss_kib_max) {
            Some(kib) => kib.max(seen),
            None if seen > 0 => seen,
            None => exit.rss_kib_max,
        }
    }

    /// Takes the process at its word that it had `kib` at the most. That spares a look.
    pub fn tells_memory(&self, kib: u64, now: Instant) {
        let believable = self.process.memory_kib(kib).filter(|_| self.crew.is_none());
        if let Some(kib) = believable {
            let (seen, _) = self.memory.get();
            self.memory.set((kib.max(seen), now));
        }
    }

    /// The most memory that the process was seen with, in KiB. Looked at again when the last look
    /// is old, since it costs more than a whole warm invocation.
    pub fn memory_kib(&self, now: Instant) -> u64 {
        let (kib, at) = self.memory.get();
        // Once it is reaped, its number may be somebody else's.
        if self.process.is_reaped() || (kib > 0 && now < at.after_ms(MEMORY_READ_MS)) {
            return kib;
        }
        let crew = self.crew.as_ref().map_or(0, |crew| crew.memory_kib());
        let kib = kib.max(read_high_water_kib(self.process.pid()).unwrap_or(0) + crew);
        self.memory.set((kib, now));
        kib
    }
}

/// The most memory that a process had, in KiB, while it is there.
pub(super) fn read_high_water_kib(pid: i32) -> Option<u64> {
    // Without the heap: it is read while warm invocations run.
    let mut path = heapless::String::<32>::new();
    write!(path, "/proc/{pid}/status").expect("a number has at most 11 characters");
    let mut bytes = [0; 2048];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let status = rustix::fs::open(path.as_str(), flags, Mode::empty()).ok()?;
    let length = rustix::io::read(&status, &mut bytes).ok()?;
    // Through lines of text it takes five times as long.
    let mut lines = bytes[..length].split(|byte| *byte == b'\n');
    let amount = lines.find_map(|line| line.strip_prefix(b"VmHWM:"))?;
    std::str::from_utf8(amount.strip_suffix(b"kB")?.trim_ascii()).ok()?.parse().ok()
}

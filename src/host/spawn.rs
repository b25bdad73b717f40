//! What is asked of the kernel without a safe wrapper, in one audited place, this file and those
//! below `spawn/`: starting and reaping processes, the directories that a process sees, and giving
//! back the memory of this one's program and of its stack.
//!
//! A worker is started with `clone(CLONE_VM | CLONE_VFORK)`: the child runs on our memory, on a
//! stack of its own, while we are suspended, until it execs. So the cost does not grow with the
//! server's memory, the child can be hardened step by step before the handler's first
//! instruction, and a step that fails is reported here with its name and error number.
//!
//! Rules for code that runs in the child: system calls only. No allocation, no locks, no
//! formatting, no panics, no destructors; everything it needs was prepared before.

#![allow(unsafe_code, reason = "process creation; no other place may have any")]

mod namespace;
mod own;
mod stack;
mod text;

pub use namespace::{Mount, Namespace, namespace_of};
pub use own::{inherited, keep_inherited_descriptors, own_rss_kib_max};
pub use stack::give_back_stack;
pub use text::Text;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;

use crate::limits::{WORKER_FILES_MAX, WORKER_STACK};
use own::altered_signals;

/// What to start, and as what. The strings live as long as the function's version.
#[derive(Debug)]
pub struct Launch {
    /// The file to execute.
    pub program: CString,
    /// `argv`, the name included.
    pub arguments: Vec<CString>,
    /// `NAME=value` pairs that are the same for each worker.
    pub environment: Vec<CString>,
    /// The working directory.
    pub directory: CString,
    /// What it sees in place of the machine's directories; `None`: nothing else than the server.
    /// Shared by all that a function's workers consist of.
    pub namespace: Option<Rc<Namespace>>,
}

impl Launch {
    /// True if this variable is set for every worker.
    pub fn has_variable(&self, name: &str) -> bool {
        let is = |pair: &CString| {
            pair.to_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
        };
        self.environment.iter().any(is)
    }
}

/// What differs from one worker to the next.
pub struct Seat<'a> {
    /// `NAME=value` pairs in addition to the launch's.
    pub environment: &'a [CString],
    /// The child's descriptors from 0 on, three or four; here all of them are above 2, or have their
    /// numbers already.
    pub stdio: &'a [BorrowedFd<'a>],
    /// The namespace that it joins instead of making one as its launch says: [`namespace_of`]
    /// somebody who has.
    pub join: Option<BorrowedFd<'a>>,
    /// The open door of a control group that it enters, if it can.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// A started process.
#[derive(Debug)]
pub struct Started {
    /// Its id, which is also the id of its process group.
    pub pid: i32,
    /// Readable once it has exited; `None` if `clone` does not hand it out here (before Linux 5.2,
    /// and in emulations of Linux), or if it was not asked for.
    pub pidfd: Option<OwnedFd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// By itself, with this status ...
    pub status: Option<i32>,
    /// ... or by this signal.
    pub signal: Option<i32>,
    /// Most memory it had at one time, but not less than we had when it was started: until its
    /// exec it ran on our memory.
    pub rss_kib_max: u64,
}

/// The steps from the clone to the handler's first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creating the process.
    Clone,
    /// Its own process group.
    Group,
    /// Its resource limits.
    Limits,
    /// Dying with the server.
    Tie,
    /// Its standard descriptors.
    Stdio,
    /// Its own view of the machine's directories.
    Namespace,
    /// Its working directory.
    Directory,
    /// Signals as a new process expects them.
    Signals,
    /// Executing the handler.
    Exec,
}

/// A process that did not come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// The step that failed.
    pub step: Step,
    /// Its error number.
    pub errno: i32,
}

impl NotStarted {
    /// True if another handler would have started: the machine is not to blame.
    pub fn is_handlers_fault(&self) -> bool {
        let machine =
            [libc::EAGAIN, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EINTR, libc::EIO];
        matches!(self.step, Step::Exec | Step::Directory) && !machine.contains(&self.errno)
    }
}

impl std::fmt::Display for NotStarted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = match self.step {
            Step::Clone => "create a process",
            Step::Group => "make a process group",
            Step::Limits => "set resource limits",
            Step::Tie => "tie the process to the server",
            Step::Stdio => "set standard descriptors",
            Step::Namespace => "give the process directories of its own",
            Step::Directory => "enter the function's directory",
            Step::Signals => "reset signals",
            Step::Exec => "execute the handler",
        };
        write!(f, "{step}: {}", std::io::Error::from_raw_os_error(self.errno))
    }
}

/// Starts processes, one at a time.
pub struct Spawner {
    /// The child's stack between clone and exec. One is enough: we are suspended meanwhile.
    stack: Vec<u128>,
    pidfd: bool,
    /// Descriptors that a worker may have open.
    files: u64,
    /// Signals that this process handles or ignores, and a new one must not.
    altered: Vec<c_int>,
}

/// What the child reads, and where it leaves word of a failure.
struct Child {
    program: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    directory: *const c_char,
    namespace: *const Namespace,
    /// A namespace to join instead; -1: none.
    join: c_int,
    /// The door of a control group; -1: none.
    cgroup: c_int,
    /// -1: none.
    stdio: [c_int; 4],
    signals: libc::sigset_t,
    files: libc::rlim_t,
    altered: *const [c_int],
    parent: libc::pid_t,
    /// It is to outlive us, with all that we have ourselves.
    is_heir: bool,
    failed: Option<NotStarted>,
}

impl Spawner {
    /// A spawner that asks for pidfds if `pidfd`. Made once the server's signal handlers are set.
    pub fn new(pidfd: bool) -> Spawner {
        let stack = vec![0; WORKER_STACK / size_of::<u128>()];
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        // Nobody but root may have more than what is there.
        let files = own.maximum.map_or(WORKER_FILES_MAX, |own| own.min(WORKER_FILES_MAX));
        Spawner { stack, pidfd, files, altered: altered_signals() }
    }

    /// Starts a process in a process group of its own. Returns once it executes the handler.
    pub fn spawn(&mut self, launch: &Launch, seat: &Seat<'_>) -> Result<Started, NotStarted> {
        self.start(launch, seat, launch.program.as_ptr(), false)
    }

    /// Starts a process in our own group and with our limits, that does not die with us.
    pub fn spawn_heir(&mut self, launch: &Launch, seat: &Seat<'_>) -> Result<Started, NotStarted> {
        self.start(launch, seat, launch.program.as_ptr(), true)
    }

    /// Takes every step of such a start but the last one, and leaves no process.
    pub fn rehearse(&mut self, launch: &Launch, seat: &Seat<'_>) -> Result<(), NotStarted> {
        let started = self.start(launch, seat, ptr::null(), false)?;
        reap(started.pid, true);
        Ok(())
    }

    /// With `program` in place of the launch's.
    fn start(
        &mut self,
        launch: &Launch,
        seat: &Seat<'_>,
        program: *const c_char,
        is_heir: bool,
    ) -> Result<Started, NotStarted> {
        let arguments = pointers(launch.arguments.iter().map(CString::as_c_str));
        let all = launch.environment.iter().chain(seat.environment);
        let environment = pointers(all.map(CString::as_c_str));
        let mut child = Child {
            program,
            arguments: arguments.as_ptr(),
            environment: environment.as_ptr(),
            directory: launch.directory.as_ptr(),
            namespace: launch.namespace.as_deref().map_or(ptr::null(), ptr::from_ref),
            join: seat.join.map_or(-1, |fd| fd.as_raw_fd()),
            cgroup: seat.cgroup.map_or(-1, |fd| fd.as_raw_fd()),
            stdio: std::array::from_fn(|n| seat.stdio.get(n).map_or(-1, AsRawFd::as_raw_fd)),
            signals: every_signal(),
            files: self.files,
            altered: &raw const *self.altered,
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            is_heir,
            failed: None,
        };
        let mut pidfd: c_int = -1;
        let mut pid = self.clone(&mut child, &mut pidfd);
        if pid < 0 && self.pidfd && errno() == libc::EINVAL {
            self.pidfd = false;
            pid = self.clone(&mut child, &mut pidfd);
        }
        if pid < 0 {
            return Err(NotStarted { step: Step::Clone, errno: errno() });
        }
        // SAFETY: the kernel put a new descriptor there that nobody else knows of.
        let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
        if let Some(failed) = child.failed {
            // It has exited already; nothing is left of it but this.
            reap(pid, true);
            return Err(failed);
        }
        Ok(Started { pid, pidfd })
    }

    /// Runs `child` up to its exec or exit; its number, or a negative one and `errno`.
    fn clone(&mut self, child: &mut Child, pidfd: &mut c_int) -> c_int {
        let ask = if self.pidfd { libc::CLONE_PIDFD } else { 0 };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | ask;
        // SAFETY: `top` is one past the end of a live allocation, aligned to 16 bytes. With
        // CLONE_VFORK we stay suspended until the child has exec'd or exited, so `child`, the
        // pointers in it and the stack outlive its use of them, and nobody else touches them.
        // `run` obeys the rules at the head of this file. All signals are blocked around the
        // call, so no handler of ours runs on the shared memory. `pidfd` is written before the
        // call returns, if at all.
        unsafe {
            let top = self.stack.as_mut_ptr_range().end;
            let mut before = every_signal();
            libc::pthread_sigmask(libc::SIG_SETMASK, &every_signal(), &mut before);
            child.signals = before;
            let argument = ptr::from_mut(child).cast::<c_void>();
            let parent_tid = ptr::from_mut(pidfd);
            let pid = libc::clone(run, top.cast::<c_void>(), flags, argument, parent_tid);
            let error = *libc::__errno_location();
            libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
            *libc::__errno_location() = error;
            pid
        }
    }
}

/// The child's life until exec. Runs on the parent's memory.
extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: `argument` is the `Child` that `spawn` made, alive and ours alone while the parent
    // is suspended. Everything below is system calls on values prepared by the parent.
    unsafe {
        let child = &mut *argument.cast::<Child>();
        let step = harden(child);
        child.failed = Some(NotStarted { step, errno: errno() });
        libc::_exit(127)
    }
}

/// Executes the handler, or returns the step that failed.
///
/// # Safety
/// Only in the child of `spawn`, with its `Child`.
unsafe fn harden(child: &Child) -> Step {
    // SAFETY: system calls on plain values and on strings that the parent keeps alive; the
    // caller vouches for the rest.
    unsafe {
        if !child.is_heir
            && let Some(step) = bind(child)
        {
            return step;
        }
        for (source, target) in child.stdio.iter().zip(0..) {
            // The fourth may be in its place already, but not yet for the program.
            let done = match *source {
                -1 => true,
                there if there == target => libc::fcntl(there, libc::F_SETFD, 0) == 0,
                elsewhere => libc::dup2(elsewhere, target) == target,
            };
            if !done {
                return Step::Stdio;
            }
        }
        if child.join >= 0 {
            if libc::setns(child.join, libc::CLONE_NEWNS) != 0 {
                return Step::Namespace;
            }
        } else if let Some(namespace) = child.namespace.as_ref()
            && !namespace::enter(namespace)
        {
            return Step::Namespace;
        }
        if libc::chdir(child.directory) != 0 {
            return Step::Directory;
        }
        // Exec resets handlers, but a signal that is unblocked before it would still run ours;
        // and what is ignored, as Rust sets SIGPIPE up, stays ignored.
        for signal in &*child.altered {
            if libc::signal(*signal, libc::SIG_DFL) == libc::SIG_ERR {
                return Step::Signals;
            }
        }
        if libc::pthread_sigmask(libc::SIG_SETMASK, &child.signals, ptr::null_mut()) != 0 {
            return Step::Signals;
        }
        if child.program.is_null() {
            // All that was to be learned is that it comes this far.
            libc::_exit(0);
        }
        libc::execve(child.program, child.arguments, child.environment);
        Step::Exec
    }
}

/// Puts a worker in its own group, under its limits, and lets it die with the server.
///
/// # Safety
/// As [`harden`].
unsafe fn bind(child: &Child) -> Option<Step> {
    // SAFETY: system calls on plain values.
    unsafe {
        if libc::setpgid(0, 0) != 0 {
            return Some(Step::Group);
        }
        // A server that died before this call sends no signal any more; then nobody waits either.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
            || libc::getppid() != child.parent
        {
            return Some(Step::Tie);
        }
        // Before the standard descriptors take its number. Who did not get in is found outside.
        if child.cgroup >= 0 {
            libc::write(child.cgroup, c"0".as_ptr().cast(), 1);
        }
        let files = libc::rlimit { rlim_cur: child.files, rlim_max: child.files };
        let cores = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let limited = libc::setrlimit(libc::RLIMIT_CORE, &cores) == 0
            && libc::setrlimit(libc::RLIMIT_NOFILE, &files) == 0;
        (!limited).then_some(Step::Limits)
    }
}

fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.map(CStr::as_ptr).chain([ptr::null()]).collect()
}

fn every_signal() -> libc::sigset_t {
    // SAFETY: `sigfillset` initialises the whole set.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&mut set);
        set
    }
}

fn errno() -> i32 {
    // SAFETY: always a valid pointer; in the child it is the suspended parent's.
    unsafe { *libc::__errno_location() }
}

/// A child of ours that has ended and was not reaped yet, whoever it is.
pub fn ended_child() -> Option<i32> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is plain data that the call fills in; all zero means that nothing ended.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &mut info, options);
        (result == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}

/// Takes note of the end of our child `pid`, if it has ended; with `wait`, once it has.
pub fn reap(pid: i32, wait: bool) -> Option<Exit> {
    let mut status: c_int = 0;
    let options = if wait { 0 } else { libc::WNOHANG };
    // SAFETY: both pointers are to locals that outlive the call; `rusage` is plain numbers.
    let (reaped, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &mut status, options, &mut usage), usage)
    };
    (reaped == pid).then(|| Exit {
        status: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        rss_kib_max: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn launch(program: &str, arguments: &[&str]) -> Launch {
        let c = |text: &str| CString::new(text).expect("no NUL");
        Launch {
            program: c(program),
            arguments: [&[program], arguments].concat().into_iter().map(c).collect(),
            environment: vec![c("A=1")],
            directory: c("/"),
            namespace: None,
        }
    }

    fn run(launch: &Launch, pidfd: bool) -> (Result<Started, NotStarted>, String) {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        let extra = [CString::new("B=2").expect("no NUL")];
        let stdio = [null.as_fd(), writer.as_fd(), writer.as_fd()];
        let seat = Seat { environment: &extra, stdio: &stdio, join: None, cgroup: None };
        let started = Spawner::new(pidfd).spawn(launch, &seat);
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("readable");
        (started, text)
    }

    #[test]
    fn the_child_starts_clean() {
        let script = "echo $A$B $(pwd) $(ulimit -c) $(ulimit -n); trap '' TERM; \
                      grep -E 'SigBlk|SigIgn|SigCgt' /proc/self/status; exit 3";
        for pidfd in [false, true] {
            let (started, text) = run(&launch("/bin/sh", &["-c", script]), pidfd);
            let started = started.expect("started");
            assert_eq!(started.pidfd.is_some(), pidfd);
            let exit = reap(started.pid, true).expect("ours");
            assert_eq!((exit.status, exit.signal), (Some(3), None));
            assert!(exit.rss_kib_max > 100, "{exit:?}");
            let mut lines = text.lines();
            assert_eq!(lines.next(), Some("12 / 0 1024"));
            assert_eq!(lines.next(), Some("SigBlk:\t0000000000000000"), "{text}");
            // Only what the script itself ignores, SIGTERM; and not the C library's own affairs.
            let ignored = lines.next().and_then(|line| line.strip_prefix("SigIgn:\t"));
            let ignored = u64::from_str_radix(ignored.expect(&text), 16).expect(&text);
            assert_eq!(ignored & !(0b11 << 31), 1 << (libc::SIGTERM - 1), "{text}");
        }
    }

    #[test]
    fn a_failure_names_its_step_and_leaves_no_process() {
        let directory = CString::new("/nonexistent").expect("no NUL");
        for (launch, step, errno) in [
            (launch("/nonexistent", &[]), Step::Exec, libc::ENOENT),
            (launch("/dev/null", &[]), Step::Exec, libc::EACCES),
            (Launch { directory, ..launch("/bin/sh", &[]) }, Step::Directory, libc::ENOENT),
        ] {
            let (started, _) = run(&launch, true);
            let failed = started.expect_err("not started");
            assert_eq!(failed, NotStarted { step, errno });
            assert!(failed.is_handlers_fault());
        }
    }

    #[test]
    fn it_leads_a_group_of_its_own() {
        let (started, text) =
            run(&launch("/bin/sh", &["-c", "cut -d' ' -f5 /proc/$$/stat"]), false);
        let pid = started.expect("started").pid;
        reap(pid, true).expect("ours");
        assert_eq!(text.trim(), pid.to_string());
    }
}

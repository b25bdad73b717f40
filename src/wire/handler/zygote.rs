//! A native zygote: the process that has initialised, and forks the workers.
//!
//! On the GNU C library a worker is made by `clone(CLONE_PARENT)`, so that it is the host's own
//! child from its first moment. Elsewhere, and where the kernel refuses that, the C library must do the
//! fork itself, or its idea of the thread's number stays the zygote's (musl's `abort` would then end
//! the zygote): a fork of a fork whose parent exits, and the host adopts the orphan.

#![allow(
    unsafe_code,
    reason = "forking, what is asked of a fork, and what a start leaves by number; beside the host's spawn no other file may have any"
)]

extern crate std;

use core::mem::MaybeUninit;
use std::format;
use std::io::{IoSliceMut, Result, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::string::{String, ToString};
use std::vec::Vec;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::unix::{broken, cut, protocol};
use crate::wire::{FromWorker, HEADER_MAX, ToWorker, decode, encode};

/// Forks a worker for each message on `control`. Returns the worker's socket and the pipe with its
/// events in each worker, and `None` in the zygote once the host hangs up. If `sharing` is false, open
/// files and connections are a reason not to fork.
pub fn fork_workers(mut control: UnixStream, sharing: bool) -> Result<Option<Ends>> {
    let host = process_id(rustix::process::getppid());
    let refusal = threads().or_else(|| (!sharing).then(|| open_things(&control)).flatten());
    say(&mut control, FromWorker::Hello { protocol: protocol() }, b"")?;
    match &refusal {
        None => say(&mut control, FromWorker::Ready, b"")?,
        Some(why) => say(&mut control, FromWorker::Unforkable, why.as_bytes())?,
    }
    let place = thread_number();
    let mut input = Vec::new();
    while let Some((id, environment, ends, log)) = receive(&control, &mut input)? {
        std::io::stdout().flush()?;
        if refusal.is_some() {
            let pid = std::process::id();
            say(&mut control, FromWorker::Forked { id, pid }, b"")?;
            drop(control);
            settle_in(&log, &[])?;
            return Ok(Some(ends));
        }
        // SAFETY: `threads` found this thread alone; between the fork and its return the child
        // does nothing.
        let pid = unsafe { fork(place) };
        if pid == 0 {
            drop(control);
            leave_zygote(host);
            settle_in(&log, &environment)?;
            return Ok(Some(ends));
        }
        let pid = u32::try_from(pid).unwrap_or(0);
        say(&mut control, FromWorker::Forked { id, pid }, b"")?;
    }
    Ok(None)
}

fn process_id(pid: Option<rustix::process::Pid>) -> i32 {
    pid.map_or(0, |pid| pid.as_raw_nonzero().get())
}

/// Why this process must not fork: other threads would be missing in the worker, with what they
/// hold locked.
fn threads() -> Option<String> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => None,
        Ok(n) => Some(format!("it has {n} threads")),
        Err(error) => Some(format!("its threads cannot be counted: {error}")),
    }
}

/// Why workers must not share what is open: connections, and places in files.
fn open_things(control: &UnixStream) -> Option<String> {
    let list = match std::fs::read_dir("/proc/self/fd") {
        Ok(list) => list,
        Err(error) => return Some(format!("its descriptors cannot be listed: {error}")),
    };
    for entry in list.flatten() {
        let number = entry.file_name().to_string_lossy().parse().unwrap_or(-1);
        let own = number <= 2 || number == control.as_raw_fd();
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        // The list itself is one of them; terminals, random numbers and the like have no state.
        if !own && !target.starts_with("/dev/") && !target.starts_with("/proc/") {
            return Some(format!("it has opened {target}"));
        }
    }
    None
}

fn say(control: &mut UnixStream, message: FromWorker, payload: &[u8]) -> Result<()> {
    let mut frame = [0; 32];
    let length = encode(&message, payload.len(), &mut frame).map_err(broken)?;
    control.write_all(&[&frame[..length], payload].concat())
}

/// A worker's socket, and the pipe with its events if the host knows of such.
type Ends = (UnixStream, Option<OwnedFd>);

type Fork = (u32, Vec<(String, String)>, Ends, OwnedFd);

/// Reads one message; `None` at the end of the stream.
fn receive(control: &UnixStream, input: &mut Vec<u8>) -> Result<Option<Fork>> {
    let mut beside = Vec::new();
    loop {
        let mut bytes = [0; HEADER_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let read = match rustix::net::recvmsg(control, parts, &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => continue,
            read => read?.bytes,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                beside.extend(fds);
            }
        }
        if read == 0 {
            return Ok(None);
        }
        input.extend_from_slice(&bytes[..read]);
        let Some(frame) = decode::<ToWorker<'_>>(input, HEADER_MAX).map_err(broken)? else {
            continue;
        };
        let ToWorker::Fork { id, environment } = frame.message else {
            return Err(broken(crate::wire::Error::OutOfOrder));
        };
        let pairs = environment.split('\0').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let end = frame.end;
        input.drain(..end);
        let mut beside = beside.into_iter();
        let (Some(socket), Some(log)) = (beside.next(), beside.next()) else { return Err(cut()) };
        return Ok(Some((id, pairs, (socket.into(), beside.next()), log)));
    }
}

/// A worker is not part of the zygote's group, and goes with the host.
fn leave_zygote(host: i32) {
    let _ = rustix::process::setpgid(None, None);
    let tied =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if tied.is_err() || process_id(rustix::process::getppid()) != host {
        std::process::exit(1);
    }
}

/// Takes what a worker was given in place of the zygote's.
fn settle_in(log: &OwnedFd, environment: &[(String, String)]) -> Result<()> {
    rustix::stdio::dup2_stdout(log.as_fd())?;
    rustix::stdio::dup2_stderr(log.as_fd())?;
    for (name, value) in environment {
        if name == "HOB_CGROUP" {
            // Who does not get in is frozen by other means.
            let _ = std::fs::write(value, "0");
            continue;
        }
        // SAFETY: this process was just forked from one with a single thread.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

/// The pipe with the events that a worker is started with; `None` if it is not there, as behind a
/// program that closes what it does not know. Behind such a one, a pipe that was opened before this is
/// taken for it.
pub fn inherited_events() -> Option<OwnedFd> {
    // SAFETY: `stat` is plain numbers that the call fills in. The descriptor was open when this process
    // began, so nothing in it owns that, unless a program in between closed it: see above.
    let events = unsafe {
        let mut stat: libc::stat = core::mem::zeroed();
        let is_pipe =
            libc::fstat(EVENTS, &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO;
        is_pipe.then(|| OwnedFd::from_raw_fd(EVENTS))
    };
    let events = events?;
    rustix::io::fcntl_setfd(&events, rustix::io::FdFlags::CLOEXEC).ok()?;
    Some(events)
}

/// The descriptor of that pipe.
const EVENTS: i32 = 3;

/// The most memory that this process had so far, in KiB.
pub fn memory_kib_max() -> u32 {
    // SAFETY: `usage` is plain numbers that the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = core::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    u32::try_from(usage.ru_maxrss).unwrap_or(u32::MAX)
}

/// Forks a process whose parent is the host: 0 in the new one, its number in this one, negative if
/// that failed. `place` is that of `thread_number`.
///
/// # Safety
/// Only while there is one thread.
unsafe fn fork(place: Option<usize>) -> i32 {
    // SAFETY: one thread, says the caller.
    unsafe {
        let Some(place) = place else { return fork_twice() };
        let pid = clone(place);
        let short = [Some(libc::EAGAIN), Some(libc::ENOMEM)];
        if pid >= 0 || short.contains(&std::io::Error::last_os_error().raw_os_error()) {
            return pid;
        }
        // Refused for good: by an emulator, or in the first process of a container.
        fork_twice()
    }
}

/// By one system call, with what the C library's own `fork` asks of it: the kernel writes the new
/// number to `place`.
///
/// # Safety
/// Only while there is one thread, whose number the C library keeps at `place`.
unsafe fn clone(place: usize) -> i32 {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    let flags = libc::c_long::from(flags | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID);
    let none: libc::c_long = 0;
    // SAFETY: without a new stack the child goes on here, on its copy of everything.
    let pid = unsafe {
        if cfg!(target_arch = "x86_64") {
            libc::syscall(libc::SYS_clone, flags, none, none, place, none)
        } else {
            libc::syscall(libc::SYS_clone, flags, none, none, none, place)
        }
    };
    i32::try_from(pid).unwrap_or(-1)
}

/// By the C library, twice: the process in between ends, and the host adopts the second.
///
/// # Safety
/// Only while there is one thread.
unsafe fn fork_twice() -> i32 {
    let Ok((mut reader, mut writer)) = std::io::pipe() else { return -1 };
    // SAFETY: one thread, says the caller; the process in between makes system calls only.
    unsafe {
        let between = libc::fork();
        if between == 0 {
            let middle = libc::getpid();
            let worker = libc::fork();
            if worker == 0 {
                // Until it is adopted, the host's death would go unnoticed.
                while libc::getppid() == middle {
                    libc::sched_yield();
                }
                return 0;
            }
            let _ = writer.write_all(&worker.to_ne_bytes());
            libc::_exit(0);
        }
        drop(writer);
        let mut pid = [0; 4];
        let read = std::io::Read::read_exact(&mut reader, &mut pid);
        libc::waitpid(between, core::ptr::null_mut(), 0);
        if between < 0 || read.is_err() { -1 } else { i32::from_ne_bytes(pid) }
    }
}

/// Where the GNU C library keeps this thread's number, which nothing but its own `fork` puts right in
/// a child. The kernel knows a place too, but not if it was built without `CHECKPOINT_RESTORE`, and since
/// glibc 2.43 it is another one: so the library's record of the thread is looked through, and the place
/// is the one that `pthread_getcpuclockid` goes by. `None` if there is no such.
#[cfg(target_env = "gnu")]
fn thread_number() -> Option<usize> {
    /// Bytes of the record that are looked at: fewer than it has anywhere. The number is at 104 to 720.
    const RECORD: usize = 1024;
    // SAFETY: `pthread_self` is the address of the record, which is this thread's own; what is
    // changed there is changed back before anything else is called that reads it.
    unsafe {
        let record = usize::try_from(libc::pthread_self()).ok()?;
        let number = libc::gettid();
        (record..record + RECORD).step_by(size_of::<libc::pid_t>()).find(|place| {
            let place = core::ptr::with_exposed_provenance_mut::<libc::pid_t>(*place);
            if place.read_volatile() != number {
                return false;
            }
            place.write_volatile(number + 1);
            let kept = kept_number();
            place.write_volatile(number);
            kept == Some(number + 1)
        })
    }
}

/// Elsewhere the library's `fork` does more than that.
#[cfg(not(target_env = "gnu"))]
fn thread_number() -> Option<usize> {
    None
}

/// This thread's number as the C library has it.
#[cfg(target_env = "gnu")]
fn kept_number() -> Option<libc::pid_t> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: this thread's own clock, written to a local.
    let error = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
    // The kernel has the number of a thread in its clock's, from the fourth bit on, inverted.
    (error == 0).then_some(!(clock >> 3))
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    /// Has the kernel refuse this process `CLONE_PARENT`, as containers do. An emulator of programs has
    /// no filters, and refuses it anyway.
    fn refuse_siblings() {
        let step = |code: u32, then, otherwise, k: u32| libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt: then,
            jf: otherwise,
            k,
        };
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let (is, has) = (libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_JMP | libc::BPF_JSET);
        // The lower half of the first argument stands at 16.
        let mut filter = [
            step(load, 0, 0, 0),
            step(is, 0, 3, u32::try_from(libc::SYS_clone).unwrap()),
            step(load, 0, 0, 16),
            step(has, 0, 1, libc::CLONE_PARENT.cast_unsigned()),
            step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
            step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
        // SAFETY: the kernel copies the program, which is there until the end of this.
        unsafe {
            let (none, yes): (libc::c_ulong, libc::c_ulong) = (0, 1);
            let filter = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, none, none, none);
            libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program);
        }
    }

    /// What a forked worker finds to be wrong: nothing is 0. The zygote is `prepared` before.
    fn wrong(place: Option<usize>, prepared: fn(Option<usize>)) -> i32 {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        // SAFETY: the processes that are forked call nothing that another thread may hold locked.
        unsafe {
            let host = libc::getpid();
            let (mut reader, mut writer) = std::io::pipe().unwrap();
            let zygote = libc::fork();
            if zygote == 0 {
                prepared(place);
                let worker = fork(place);
                if worker == 0 {
                    while libc::getppid() != host {
                        libc::sched_yield();
                    }
                    let right = kept_number() == Some(libc::getpid());
                    libc::_exit(i32::from(!right));
                }
                let told = writer.write_all(&worker.to_ne_bytes());
                libc::_exit(i32::from(told.is_err()));
            }
            drop(writer);
            let mut worker = [0; 4];
            std::io::Read::read_exact(&mut reader, &mut worker).unwrap();
            let mut status = 0;
            assert_eq!(libc::waitpid(zygote, &raw mut status, 0), zygote);
            assert_eq!(status, 0);
            let worker = i32::from_ne_bytes(worker);
            assert!(worker > 0, "it was forked");
            assert_eq!(libc::waitpid(worker, &raw mut status, 0), worker);
            status
        }
    }

    #[test]
    fn a_worker_is_the_hosts_and_knows_its_number() {
        let place = thread_number();
        assert!(place.is_some(), "it is found");
        assert_eq!(wrong(place, drop), 0);
        // A place where nothing is kept: what is checked here can fail.
        let mut elsewhere: libc::pid_t = 0;
        assert_ne!(wrong(Some((&raw mut elsewhere).expose_provenance()), drop), 0);
    }

    #[test]
    fn so_is_one_that_was_forked_twice() {
        assert_eq!(wrong(None, drop), 0);
    }

    #[test]
    fn so_is_one_whose_zygote_may_have_no_siblings() {
        let refused = |place: Option<usize>| {
            refuse_siblings();
            // SAFETY: this process was forked, and has one thread.
            let sibling = unsafe { clone(place.expect("it is found")) };
            if sibling >= 0 {
                // It is refused nothing: the test would show nothing.
                std::process::abort();
            }
        };
        assert_eq!(wrong(thread_number(), refused), 0);
    }
}

//! The directories that a worker sees in place of the machine's: a mount namespace of its own, made
//! by the child before its exec. What is mounted there is seen by nobody else, and is gone with the
//! last process in it, however that ends.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::ptr;

use libc::{c_char, c_ulong};

/// What is mounted, in this order. The first part is the same for every process that belongs
/// together; the second is one's own, so whoever forks workers inside the first gives each its
/// own by doing the second once more, in a namespace that each makes for itself.
#[derive(Debug, Default)]
pub struct Namespace {
    /// Code and layers.
    pub places: Vec<Mount>,
    /// The private `/tmp`, and what of the machine's stays visible in it.
    pub tmp: Vec<Mount>,
}

/// One step on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// A directory of the machine at another place, which exists.
    Bind {
        /// What is shown.
        source: CString,
        /// Where.
        target: CString,
        /// `MS_NOEXEC` and the like, with which it is read-only; `None`: it stays as it is.
        read_only: Option<c_ulong>,
    },
    /// The same for a directory or file whose place is made first; left out where there is none.
    Keep {
        /// What is shown.
        source: CString,
        /// Where.
        target: CString,
        /// As above.
        read_only: Option<c_ulong>,
    },
    /// A new directory.
    Directory(CString),
    /// An empty file system in memory.
    Memory {
        /// Where.
        target: CString,
        /// Its mode and size, as `mount -o` has them.
        options: CString,
    },
    /// What is mounted at one place, to another.
    Move {
        /// From here.
        source: CString,
        /// To here.
        target: CString,
    },
}

/// The namespace that the process `pid` is in, for others to join. None if it has ended meanwhile:
/// a process that is not reaped yet is in none any more.
pub fn namespace_of(pid: i32) -> io::Result<Option<File>> {
    match File::open(format!("/proc/{pid}/ns/mnt")) {
        Ok(namespace) => Ok(Some(namespace)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes the calling process a namespace of its own, and mounts everything in it. False if that
/// failed, with `errno` set.
///
/// # Safety
/// Only in the child of `spawn`: it obeys the rules at the head of that file.
pub(super) unsafe fn enter(namespace: &Namespace) -> bool {
    // SAFETY: system calls on strings that the parent keeps alive.
    unsafe {
        // A slave, not private: what the machine mounts and unmounts later comes here too, so that
        // a worker neither misses a disk that is plugged in nor holds on to one that is taken out.
        // Nothing ever goes the other way.
        libc::unshare(libc::CLONE_NEWNS) == 0
            && mount(None, c"/", libc::MS_REC | libc::MS_SLAVE)
            && namespace.places.iter().chain(&namespace.tmp).all(|step| perform(step))
    }
}

/// # Safety
/// As for [`enter`].
unsafe fn perform(step: &Mount) -> bool {
    // SAFETY: the caller vouches for the rules; every string ends with a NUL.
    unsafe {
        match step {
            Mount::Bind { source, target, read_only } => bind(source, target, *read_only),
            Mount::Keep { source, target, read_only } => {
                let mut found: libc::stat = std::mem::zeroed();
                if libc::stat(source.as_ptr(), &mut found) != 0 {
                    return true;
                }
                let made = if found.st_mode & libc::S_IFMT == libc::S_IFDIR {
                    libc::mkdir(target.as_ptr(), 0o755)
                } else {
                    libc::mknod(target.as_ptr(), libc::S_IFREG | 0o644, 0)
                };
                (made == 0 || super::errno() == libc::EEXIST) && bind(source, target, *read_only)
            }
            Mount::Directory(target) => {
                // Whatever the server's umask says of it, others pass through.
                libc::mkdir(target.as_ptr(), 0o755) == 0 && libc::chmod(target.as_ptr(), 0o755) == 0
            }
            Mount::Memory { target, options } => {
                let flags = libc::MS_NOSUID | libc::MS_NODEV;
                let (kind, options) = (c"tmpfs".as_ptr(), options.as_ptr().cast());
                libc::mount(kind, target.as_ptr(), kind, flags, options) == 0
            }
            Mount::Move { source, target } => mount(Some(source), target, libc::MS_MOVE),
        }
    }
}

/// # Safety
/// As for [`enter`].
unsafe fn bind(source: &CStr, target: &CStr, read_only: Option<c_ulong>) -> bool {
    // SAFETY: the caller vouches for the rules.
    unsafe {
        mount(Some(source), target, libc::MS_BIND)
            // The first call takes no flags of the new mount.
            && read_only.is_none_or(|flags| {
                let flags = flags | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
                mount(None, target, flags)
            })
    }
}

/// # Safety
/// As for [`enter`].
unsafe fn mount(source: Option<&CStr>, target: &CStr, flags: c_ulong) -> bool {
    let source: *const c_char = source.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: each string ends with a NUL, or is none, which these kinds of mount allow.
    unsafe { libc::mount(source, target.as_ptr(), ptr::null(), flags, ptr::null()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::super::{Launch, NotStarted, Seat, Spawner, Step};
    use super::*;
    use std::os::fd::AsFd;
    use std::rc::Rc;

    #[test]
    fn who_has_ended_is_in_no_namespace() {
        let launch = Launch {
            program: c"/bin/true".into(),
            arguments: vec![c"true".into()],
            environment: Vec::new(),
            directory: c"/".into(),
            namespace: None,
        };
        let null = File::open("/dev/null").expect("/dev/null");
        let seat = Seat { environment: &[], stdio: &[null.as_fd(); 3], join: None, cgroup: None };
        let pid = Spawner::new(false).spawn(&launch, &seat).expect("started").pid;
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("not reaped");
        while !stat().contains(") Z ") {
            std::thread::yield_now();
        }
        assert!(namespace_of(pid).expect("nothing is wrong").is_none());
        super::super::reap(pid, true).expect("ours");
        assert!(namespace_of(std::process::id().cast_signed()).expect("there").is_some());
    }

    #[test]
    fn a_failed_mount_names_its_step_and_is_not_the_handlers_fault() {
        let bind =
            Mount::Bind { source: c"/".into(), target: c"/nonexistent".into(), read_only: None };
        let launch = Launch {
            program: c"/bin/true".into(),
            arguments: vec![c"true".into()],
            environment: Vec::new(),
            directory: c"/".into(),
            namespace: Some(Rc::new(Namespace { places: vec![bind], tmp: Vec::new() })),
        };
        let null = File::open("/dev/null").expect("/dev/null");
        let seat = Seat { environment: &[], stdio: &[null.as_fd(); 3], join: None, cgroup: None };
        let failed = Spawner::new(true).spawn(&launch, &seat).expect_err("not started");
        // Where namespaces are not allowed, it comes no further than that.
        let errno = if failed.errno == libc::EPERM { libc::EPERM } else { libc::ENOENT };
        assert_eq!(failed, NotStarted { step: Step::Namespace, errno });
        assert!(!failed.is_handlers_fault());
        let launch = Launch { namespace: None, ..launch };
        assert_eq!(Spawner::new(false).rehearse(&launch, &seat), Ok(()));
    }
}

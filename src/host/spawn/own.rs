//! What this process itself has, and was given.

use std::ffi::c_int;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// The most memory that this process had at one time, in KiB; or its program before the last exec.
pub fn own_rss_kib_max() -> u64 {
    // SAFETY: `usage` is plain numbers that the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    u64::try_from(usage.ru_maxrss).unwrap_or(0)
}

/// Keeps what this process inherited, besides its standard descriptors, from its own children.
pub fn keep_inherited_descriptors() {
    let Ok(list) = std::fs::read_dir("/proc/self/fd") else { return };
    for number in list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if number > 2 {
            // SAFETY: sets a flag of whatever descriptor has this number; if none has, it fails.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// The descriptor with this number, which whoever started this process has left here for it. To be
/// called once, and before anything was opened that could have this number.
pub fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: only asks; a number that nothing is open under is refused.
    let is_open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: it is open, and nobody here has opened it: it is nobody else's.
    is_open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// The signals whose disposition is not the default one.
pub(super) fn altered_signals() -> Vec<c_int> {
    let altered = |signal: &c_int| {
        // SAFETY: only asks; `action` is plain data that the call fills in.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, ptr::null(), &mut action) == 0
                && action.sa_sigaction != libc::SIG_DFL
        }
    };
    // The C library keeps the first real-time signals for itself and refuses to tell.
    (1..=libc::SIGRTMAX()).filter(altered).collect()
}

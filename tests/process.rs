//! Real workers, well-behaved and not, under a real server. Everything runs twice: exits become
//! known by pidfd, then by SIGCHLD, as on kernels that have no pidfd.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "process/concurrency.rs"]
mod concurrency;
#[path = "process/crews.rs"]
mod crews;
#[path = "process/drain.rs"]
mod drain;
#[path = "process/exec.rs"]
mod exec;
#[path = "process/extensions.rs"]
mod extensions;
#[path = "process/freeze.rs"]
mod freeze;
#[path = "process/hostile.rs"]
mod hostile;
#[path = "process/leaks.rs"]
mod leaks;
#[path = "process/lifecycle.rs"]
mod lifecycle;
#[path = "process/notify.rs"]
mod notify;
#[path = "process/output.rs"]
mod output;
#[path = "process/paths.rs"]
mod paths;
#[path = "process/probe.rs"]
mod probe;
#[path = "process/rest.rs"]
mod rest;
#[path = "process/starts.rs"]
mod starts;
#[path = "process/stream.rs"]
mod stream;
#[path = "process/update.rs"]
mod update;
#[path = "process/upgrade.rs"]
mod upgrade;
#[path = "process/zygote.rs"]
mod zygote;

/// Defines a test for each way in which exits become known.
macro_rules! both_reapers {
    ($($name:ident),* $(,)?) => {
        mod pidfd {
            $(#[test] fn $name() { super::$name(&["--reaper", "pidfd"]); })*
        }
        mod sigchld {
            $(#[test] fn $name() { super::$name(&["--reaper", "sigchld"]); })*
        }
    };
}
pub(crate) use both_reapers;

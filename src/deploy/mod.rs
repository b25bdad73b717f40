//! `hob deploy`: brings this program and functions to boards over the user's own `ssh`.
//!
//! The board decides alone: what swaps versions, probes and rolls back is a shell program
//! (`board.sh`, `install.sh`) that runs there in a session of its own. This side looks, plans,
//! uploads, and at the end confirms. What a board says is not trusted.

mod binary;
mod fleet;
mod functions;
mod look;
mod plan;
mod run;
mod ssh;
pub mod target;
mod upload;

use std::path::PathBuf;

use crate::error::{Error, ExitCode};
use target::Host;

/// What is to happen to the hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Bring them the program.
    #[default]
    Deploy,
    /// Tell how they are.
    Status,
    /// Back to the version before.
    Rollback,
}

/// Everything `hob deploy` is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is to happen.
    pub action: Action,
    /// `USER@HOST[:PORT]`, or names of the fleet.
    pub hosts: Vec<String>,
    /// The profile that hosts are to take, where the fleet file names no other; `None`: each finds
    /// its own.
    pub board: Option<String>,
    /// Deploy this file, and build nothing.
    pub binary: Option<PathBuf>,
    /// Function folders for hosts whose fleet file names no others.
    pub functions: Option<PathBuf>,
    /// Functions that are gone here go there too.
    pub prune: bool,
    /// The file that lists hosts.
    pub fleet: Option<PathBuf>,
    /// Only show what would be done.
    pub dry_run: bool,
    /// For programs.
    pub json: bool,
    /// How long the new version has to answer.
    pub probe_timeout_s: u32,
    /// How long the board waits for this side to confirm that it can still be reached.
    pub confirm_timeout_s: u32,
}

/// Does it on all hosts at once; the exit code is that of the worst.
pub fn run(options: &Options) -> Result<ExitCode, Error> {
    let hosts: Vec<Host> = target::hosts(&options.hosts, options.fleet.as_deref())?;
    let given = options.binary.as_deref().map(binary::Binary::read).transpose()?;
    fleet::run(&hosts, options, given.as_ref())
}

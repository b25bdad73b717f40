//! `hob deploy` against real SSH servers, on boards that have BusyBox and nothing else, and on machines
//! that systemd or OpenRC has booted.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "deploy/binaries.rs"]
mod binaries;
#[path = "deploy/board.rs"]
mod board;
mod common;
#[path = "deploy/functions.rs"]
mod functions;
#[path = "deploy/link.rs"]
mod link;
#[path = "deploy/machine.rs"]
mod machine;
#[path = "deploy/openrc.rs"]
mod openrc;
#[path = "deploy/rollback.rs"]
mod rollback;
#[path = "deploy/source.rs"]
mod source;
#[path = "deploy/systemd.rs"]
mod systemd;
#[path = "deploy/user.rs"]
mod user;
#[path = "deploy/way.rs"]
mod way;
